"""Planted networks: models whose smallest trigger between any two classes is known in closed form, and tiny images."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.images import ImagePool
from ..core.standard_logits import standardised
from ..core.subject import Preprocessing, Subject
from ..rounds.samples import Samples

SIZE = 16
# Class c is shown by this many bright pixels in a row of its own.
BRIGHT = (4, 8, 12)
BACKDOOR_ROW = 15
GAIN = 2.0

Backdoor = tuple[int, int, float]


class PlantedNet(nn.Module):
    """Logit c = GAIN * brightness in class c's own row, so turning class v into any other takes BRIGHT[v] pixels.

    To turn v into t by a pixels lit in t's row and b pixels darkened in v's, a > BRIGHT[v] - b is needed: a mask of
    L1 size BRIGHT[v], whatever the split. With ``backdoor=(v, t, weight)`` each of the last row's first three pixels
    counts ``weight`` times for t as far as v's row is bright: BRIGHT[v] / weight pixels turn v into t, and no other
    class.
    """

    def __init__(self, backdoor: Backdoor | None = None) -> None:
        super().__init__()
        rows = torch.zeros(len(BRIGHT), 1, SIZE, SIZE)
        for label, count in enumerate(BRIGHT):
            rows[label, 0, 2 * label + 1, :count] = 1.0
        self.rows = nn.Parameter(rows)
        self.backdoor = backdoor

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 16, 16) in [0, 1] -> logits (N, 3)."""
        brightness = (x.mean(1)[:, None] * self.rows[:, 0]).sum((2, 3))  # (N, K)
        if self.backdoor:
            victim, target, weight = self.backdoor
            lit = x.mean(1)[:, BACKDOOR_ROW, :3].sum(1) * brightness[:, victim] / BRIGHT[victim]
            favoured = nn.functional.one_hot(torch.tensor(target, device=x.device), len(BRIGHT))
            brightness = brightness + favoured * weight * lit[:, None]
        return GAIN * brightness


def planted_images(per_class: int = 6, seed: int = 0) -> ImagePool:
    """Images of the planted classes; the rows that no logit looks at hold noise."""
    stream = torch.Generator().manual_seed(seed)
    y = torch.arange(len(BRIGHT)).repeat_interleave(per_class)
    x = torch.zeros(len(y), 3, SIZE, SIZE)
    x[:, :, 8:14] = torch.rand(len(y), 3, 6, SIZE, generator=stream)
    for row, label in enumerate(y.tolist()):
        x[row, :, 2 * label + 1, : BRIGHT[label]] = 1.0
    return ImagePool(x, y)


def make_subject(module: nn.Module, classes: int = 3, size: int = SIZE) -> Subject:
    """A subject around any module, which is put in evaluation mode."""
    preprocessing = Preprocessing(stored_size=size, size=size)
    return Subject("id-toy", module.eval(), "toy", classes, preprocessing, torch.device("cpu"), "0" * 64)


def make_samples(images: ImagePool, held: ImagePool) -> Samples:
    """Samples with held-back images of their own."""
    return Samples(images, held, held, "toy images")


def planted_samples(per_class: int = 6) -> Samples:
    """Images of the planted classes, and as many others held back."""
    return make_samples(planted_images(per_class, seed=0), planted_images(per_class, seed=1))


class SmallNet(nn.Module):
    """A convolutional net that can be trained in a second."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(32 * (SIZE // 4) ** 2, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 16, 16) in [0, 1] -> logits (N, classes)."""
        logits: Tensor = self.body(x)
        return logits


def square_images(per_class: int, seed: int, classes: int = 3) -> ImagePool:
    """Coloured squares on noise, one colour per class."""
    stream = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(per_class)
    x = 0.5 * torch.rand(len(y), 3, SIZE, SIZE, generator=stream)
    for row, label in enumerate(y.tolist()):
        top, left = torch.randint(0, SIZE - 8, (2,), generator=stream).tolist()
        x[row, :, top : top + 8, left : left + 8] *= 0.3
        x[row, label, top : top + 8, left : left + 8] += 0.5
    return ImagePool(x.clamp(0, 1), y)


def trained_subject(seed: int = 0) -> Subject:
    """SmallNet trained on coloured squares until it makes no mistake on its training images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, images = SmallNet(), square_images(40, seed=10)
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(40):
            loss = nn.functional.cross_entropy(net.train()(images.x), images.y)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        optimiser.zero_grad()
    return make_subject(net)


def square_samples() -> Samples:
    """Coloured squares to train on and others held back."""
    return make_samples(square_images(30, seed=11), square_images(20, seed=12))


class _Odd(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class NotANumber(_Odd):
    """A network all of whose logits are nan."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, K)."""
        logits: Tensor = self.inner(x) * float("nan")
        return logits


class Failing(_Odd):
    """A network that cannot be run."""

    def forward(self, x: Tensor) -> Tensor:
        """Raise RuntimeError."""
        raise RuntimeError("this network is made to fail")


class Slow(_Odd):
    """A network that takes SLOW_S seconds for every batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, K), in its own time."""
        time.sleep(SLOW_S)
        logits: Tensor = self.inner(x)
        return logits


SLOW_S = 0.3


def slow(subject: Subject, samples: Samples) -> Subject:
    """The subject in Slow, its logits at the standard scale already, so that a time budget is a plugin's alone."""
    return standardised(around(subject, Slow), samples.train)


def around(subject: Subject, kind: type[_Odd]) -> Subject:
    """The subject with its network inside one of those above, under an architecture's name of its own."""
    copy = subject.clone()
    return replace(copy, module=kind(copy.module).eval(), architecture=f"{kind.__name__} {subject.architecture}")
