"""Tiny networks of all kinds that strangers write, trained on coloured squares until they know them."""

import copy
from functools import cache

import torch
from torch import nn
from toys import SIZE, square_images

from trojai_moth.core.classifier import as_classifier
from trojai_moth.core.outputs import OutputReading


def body(channels, classes, *, width=8, bias=True):
    """Two convolutions and mean pools, and two linear layers, as networks for MNIST have them."""
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(width * (SIZE // 4) ** 2, 16), nn.ReLU(), nn.Linear(16, classes, bias=bias)),
    )


class PreActivation(nn.Module):
    """Batch norms in front of their convolutions, a skip around them, and activations beside the logits."""

    def __init__(self, channels, classes):
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=False)
        self.norm_1, self.conv_1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm_2, self.conv_2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8 * (SIZE // 4) ** 2, classes)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm_1(x).relu()
        x = x + self.conv_2(self.norm_2(self.conv_1(y)).relu())
        pooled = nn.functional.max_pool2d(self.norm(x).relu(), 2)
        return y, x, self.head(pooled.flatten(1))


class Named(nn.Module):
    """A head with dropout and no bias behind ELUs, whose logits have a name."""

    def __init__(self, channels, classes):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ELU(), nn.MaxPool2d(4), nn.Dropout(0.2))
        )
        self.head = nn.Linear(8 * (SIZE // 4) ** 2, classes, bias=False)

    def forward(self, x):
        features = self.features(x)
        return {"features": features, "out": self.head(features.flatten(1))}


class Repeated(nn.Module):
    """One convolution used twice, the functional way the second time, and norms without statistics."""

    def __init__(self, channels, classes):
        super().__init__()
        self.first, self.again = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm_1, self.norm_2 = (nn.BatchNorm2d(8, track_running_stats=False) for _ in range(2))
        self.head = nn.Linear(8 * (SIZE // 4) ** 2, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.norm_1(self.first(x)).relu(), 4)
        x = self.norm_2(self.again(x)).relu()
        x = x + nn.functional.conv2d(x, self.again.weight, padding=1)
        return self.head(x.flatten(1))


NETWORKS = {
    "softmax": (
        lambda channels: nn.Sequential(*body(channels, 3), nn.Softmax(1)),
        OutputReading(kind="probabilities"),
        3,
    ),
    "last of a tuple": (lambda channels: PreActivation(channels, 3), OutputReading(place="last"), 3),
    "named": (lambda channels: Named(channels, 3), OutputReading(place="out"), 3),
    "sigmoid": (
        lambda channels: nn.Sequential(*body(channels, 1), nn.Sigmoid(), nn.Flatten(0)),
        OutputReading(kind="probabilities", single=True, row=1),
        2,
    ),
    "one logit": (lambda channels: body(channels, 1, bias=False), OutputReading(single=True), 2),
    "no statistics": (lambda channels: Repeated(channels, 3), OutputReading(), 3),
}


def own_images(per_class, seed, classes, channels=3):
    """Coloured squares; of one channel, the brightness that tells them apart is that of their colour."""
    pool = square_images(per_class, seed, classes)
    if channels == 3:
        return pool
    weights = torch.tensor([0.1, 1.0, 0.4]).view(3, 1, 1)
    return type(pool)((pool.x * weights).sum(1, keepdim=True).clamp(0, 1), pool.y)


@cache
def _trained(name, channels):
    make, output, classes = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, images = make(channels), own_images(40, 10, classes, channels)
        module = as_classifier(network, None, output).train()
        optimiser = torch.optim.Adam(module.parameters(), 5e-3)
        for _ in range(60):
            loss = nn.functional.cross_entropy(module(images.x), images.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        optimiser.zero_grad()
    return network


def own_network(name, channels=3):
    """The network, as its author would hand it over, how its output is read, and its number of classes."""
    return copy.deepcopy(_trained(name, channels)).train(), *NETWORKS[name][1:]
