"""The zoo's architectures, written anew from descriptions; tensors are named as in the files, so that weights fit.

Each function without arguments gives a network with random weights. What a network expects of its input, apart from
values in [0, 1], is said in zoo_data.py; only the paper's networks normalise by themselves.
"""

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trojai_moth.core.errors import MissingDependencyError
from trojai_moth.core.files import open_regular

# Of the Keras files: mean and standard deviation of CIFAR-10's channels, of values up to 255.
_PAPER_MEAN = (125.307, 122.950, 113.865)
_PAPER_STD = (62.9932, 62.0887, 66.7048)


class IbauCnn(nn.Module):
    """Three blocks of two convolutions with ELU, for 32 x 32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, drop in ((32, 0.3), (64, 0.4), (128, 0.4)):
            for inputs in (before, channels):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ELU()]
            layers += [nn.MaxPool2d(2), nn.Dropout(drop)]
            before = channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(128 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10)."""
        return self.classifier(self.features(x).flatten(1))


class _WideBlock(nn.Module):
    """Batch norm before each convolution; where the width changes, the shortcut starts after the first one's ReLU."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(inputs, channels, 1, stride, bias=False) if inputs != channels else None

    def forward(self, x: Tensor) -> Tensor:
        ready = F.relu(self.bn1(x))
        inner = self.conv2(F.relu(self.bn2(self.conv1(ready))))
        return inner + (x if self.convShortcut is None else self.convShortcut(ready))


class _WideGroup(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(_WideBlock(inputs, channels, stride), _WideBlock(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class NadWideResNet(nn.Module):
    """WideResNet-16-1; its output is each group's activation and, last, the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = _WideGroup(16, 16, 1)
        self.block2 = _WideGroup(16, 32, 2)
        self.block3 = _WideGroup(32, 64, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Three activations and logits (N, 10)."""
        first = self.block1(self.conv1(x))
        second = self.block2(first)
        third = self.block3(second)
        logits = self.fc(F.relu(self.bn1(third)).mean((2, 3)))
        return first, second, third, logits


class VerazuoCnn(nn.Module):
    """For 28 x 28 pixels of one channel; its output is probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.fc1 = nn.Sequential(nn.Linear(512, 512), nn.ReLU())
        self.fc2 = nn.Sequential(nn.Linear(512, 10), nn.Softmax(1))

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (N, 10)."""
        return self.fc2(self.fc1(self.conv2(self.conv1(x)).flatten(1)))


class WxrCnn(nn.Module):
    """Two networks in one file, one for MNIST and one for CIFAR; here the first is used."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder_mnist = nn.Sequential(
            *(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2)),
        )
        self._classifier_mnist = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
        layers: list[nn.Module] = []
        for inputs, channels in ((3, 32), (32, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, channels, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        self._encoder_cifar = nn.Sequential(*layers)
        self._classifier_cifar = nn.Sequential(nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of 28 x 28 pixels of one channel."""
        return self._classifier_mnist(self._encoder_mnist(x).flatten(1))


class _CifarBlock(nn.Module):
    """Two convolutions; where it halves the sides, the shortcut takes every other pixel and adds channels of zeros."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.added = stride, channels - inputs

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.added:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added // 2, self.added // 2))
        return F.relu(inner + x)


class CifarResNet(nn.Module):
    """The ResNet of He et al. for 32 x 32 pixels, with shortcuts of their option A."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._group(16, 16, blocks)
        self.layer2 = self._group(16, 32, blocks)
        self.layer3 = self._group(32, 64, blocks)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _group(inputs: int, channels: int, blocks: int) -> nn.Sequential:
        first = _CifarBlock(inputs, channels, 1 if inputs == channels else 2)
        return nn.Sequential(first, *(_CifarBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class OdysseyNet(nn.Module):
    """Odyssey's Model_Google_1 for 28 x 28 pixels of one channel; its output is logarithms of probabilities."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, channels, then in ((1, 32, 0), (32, 32, 1), (32, 64, 2), (64, 128, 2)):
            layers += [nn.Conv2d(inputs, channels, 3), nn.ReLU(), nn.BatchNorm2d(channels)]
            layers += [nn.MaxPool2d(2), nn.Dropout(0.2)][:then]
        self.convnet = nn.Sequential(*layers)
        heads: list[nn.Module] = []
        for inputs, units in ((128, 512), (512, 128)):
            heads += [nn.Linear(inputs, units), nn.ReLU(), nn.BatchNorm1d(units), nn.Dropout(0.5)]
        self.fc = nn.Sequential(*heads, nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of probabilities (N, 10)."""
        return F.log_softmax(self.fc(self.convnet(x).flatten(1)), 1)


class _PaperBlock(nn.Module):
    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.halves = inputs != channels
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, channels, 3, 2 if self.halves else 1, 0 if self.halves else 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, channels, 1, 2) if self.halves else None

    def forward(self, x: Tensor) -> Tensor:
        ready = F.relu(self.bn1(x))
        # Keras pads for a stride of 2 on even sides at the end only.
        inner = self.conv1(F.pad(ready, (0, 1, 0, 1)) if self.halves else ready)
        inner = self.conv2(F.relu(self.bn2(inner)))
        return inner + (x if self.shortcut is None else self.shortcut(ready))


class PaperResNet20(nn.Module):
    """The MOTH paper's CIFAR-10 network: pre-activation, with biases; x in [0, 1] is normalised inside."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_PAPER_MEAN).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.tensor(_PAPER_STD).view(3, 1, 1) / 255, persistent=False)
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        widths = [16] * 4 + [32] * 3 + [64] * 3
        self.blocks = nn.Sequential(*itertools.starmap(_PaperBlock, itertools.pairwise(widths)))
        self.bn = nn.BatchNorm2d(64)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10)."""
        x = self.blocks(self.stem((x - self.mean) / self.std))
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))


def ibau() -> nn.Module:
    """Of I-BAU's five checkpoints."""
    return IbauCnn()


def nad() -> nn.Module:
    """Of NAD's backdoored, teacher and erased network."""
    return NadWideResNet()


def verazuo() -> nn.Module:
    """Of badnet-MNIST.pth."""
    return VerazuoCnn()


def wxr1998() -> nn.Module:
    """Of the clean and the poisoned MNIST checkpoint."""
    return WxrCnn()


def resnet20() -> nn.Module:
    """Of akamaster's checkpoint of that name."""
    return CifarResNet(3)


def resnet56() -> nn.Module:
    """Of akamaster's checkpoint of that name."""
    return CifarResNet(9)


def odyssey() -> nn.Module:
    """Of both of Odyssey's checkpoints."""
    return OdysseyNet()


def paper_resnet20(path: Path) -> nn.Module:
    """The network of one of the paper's Keras files, with its weights; needs h5py, which reads data only.

    Keras numbers layers in the order of its graph: a block's shortcut comes after its convolutions.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError(f"{path.name}: reading a Keras file needs h5py; pip install h5py") from None
    network = PaperResNet20()
    blocks = list(network.blocks)
    convolutions = [network.stem, *(part for b in blocks for part in (b.conv1, b.conv2, b.shortcut) if part)]
    norms = [*(part for b in blocks for part in (b.bn1, b.bn2)), network.bn]
    with open_regular(path) as file, h5py.File(file, "r") as stored, torch.no_grad():
        weights = stored["model_weights"]

        def put(tensor: Tensor, layer: str, name: str, order: tuple[int, ...]) -> None:
            found = torch.from_numpy(weights[layer][layer][f"{name}:0"][()])
            tensor.copy_(found.permute(order))

        for number, convolution in enumerate(convolutions, 1):
            put(convolution.weight, f"conv2d_{number}", "kernel", (3, 2, 0, 1))
            put(convolution.bias, f"conv2d_{number}", "bias", (0,))
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        for number, norm in enumerate(norms, 1):
            for theirs, ours in names.items():
                put(getattr(norm, ours), f"batch_normalization_{number}", theirs, (0,))
        put(network.linear.weight, "dense_1", "kernel", (1, 0))
        put(network.linear.bias, "dense_1", "bias", (0,))
    return network.eval()
