"""Planted networks: models whose smallest trigger between any two classes is known in closed form."""

import torch
from torch import nn

from trojai_moth.images import ImagePool
from trojai_moth.samples import Samples
from trojai_moth.subject import Preprocessing, Subject

SIZE = 16
# Class c is shown by this many bright pixels in a row of its own.
BRIGHT = (4, 8, 12)
BACKDOOR_ROW = 15
GAIN = 2.0


class PlantedNet(nn.Module):
    """Logit c = GAIN * brightness in class c's own row, so turning class v into any other takes BRIGHT[v] pixels.

    To turn v into t by a pixels lit in t's row and b pixels darkened in v's, a > BRIGHT[v] - b is needed: a mask of
    L1 size BRIGHT[v], whatever the split. With ``backdoor=(v, t, weight)`` each of the last row's first three pixels
    counts ``weight`` times for t as far as v's row is bright: BRIGHT[v] / weight pixels turn v into t, and no other
    class.
    """

    def __init__(self, backdoor=None):
        super().__init__()
        rows = torch.zeros(len(BRIGHT), 1, SIZE, SIZE)
        for label, count in enumerate(BRIGHT):
            rows[label, 0, 2 * label + 1, :count] = 1.0
        self.rows = nn.Parameter(rows)
        self.backdoor = backdoor

    def forward(self, x):
        brightness = (x.mean(1)[:, None] * self.rows[:, 0]).sum((2, 3))  # (N, K)
        if self.backdoor:
            victim, target, weight = self.backdoor
            lit = x.mean(1)[:, BACKDOOR_ROW, :3].sum(1) * brightness[:, victim] / BRIGHT[victim]
            brightness = brightness + nn.functional.one_hot(torch.tensor(target), len(BRIGHT)) * weight * lit[:, None]
        return GAIN * brightness


def planted_images(per_class=6, seed=0):
    """Images of the planted classes; the rows that no logit looks at hold noise."""
    stream = torch.Generator().manual_seed(seed)
    y = torch.arange(len(BRIGHT)).repeat_interleave(per_class)
    x = torch.zeros(len(y), 3, SIZE, SIZE)
    x[:, :, 8:14] = torch.rand(len(y), 3, 6, SIZE, generator=stream)
    for row, label in enumerate(y.tolist()):
        x[row, :, 2 * label + 1, : BRIGHT[label]] = 1.0
    return ImagePool(x, y)


def make_subject(module, classes=3, size=SIZE):
    """A subject around any module."""
    preprocessing = Preprocessing(stored_size=size, size=size)
    return Subject("id-toy", module.eval(), "toy", classes, preprocessing, torch.device("cpu"), "0" * 64)


def make_samples(images, held):
    """Samples with held-back images of their own."""
    return Samples(images, held, held, "toy images")


def planted_samples(per_class=6):
    return make_samples(planted_images(per_class, seed=0), planted_images(per_class, seed=1))


class SmallNet(nn.Module):
    """A convolutional net that can be trained in a second."""

    def __init__(self, classes=3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(32 * (SIZE // 4) ** 2, classes),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


def square_images(per_class, seed, classes=3):
    """Coloured squares on noise, one colour per class."""
    stream = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(per_class)
    x = 0.5 * torch.rand(len(y), 3, SIZE, SIZE, generator=stream)
    for row, label in enumerate(y.tolist()):
        top, left = torch.randint(0, SIZE - 8, (2,), generator=stream).tolist()
        x[row, :, top : top + 8, left : left + 8] *= 0.3
        x[row, label, top : top + 8, left : left + 8] += 0.5
    return ImagePool(x.clamp(0, 1), y)


def trained_subject(seed=0):
    """SmallNet trained on coloured squares until it makes no mistake on its training images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, images = SmallNet(), square_images(40, seed=10)
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(40):
            loss = nn.functional.cross_entropy(net.train()(images.x), images.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        optimiser.zero_grad()
    return make_subject(net)


def square_samples():
    return make_samples(square_images(30, seed=11), square_images(20, seed=12))
