"""How long rescan may take on this machine: the work that its settings ask for, times what a piece of it takes here."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch.nn import functional

from .device import default_batch, wait_for
from .hardeners.moth_settings import MothSettings
from .loading import build_architecture
from .records import record
from .scanners.neural_cleanse import NeuralCleanseSettings

_RUNS = 3
# A training step also has gradients of weights: half as much again as one of images alone.
_TRAINING = 1.5
# Looking at images without any gradient.
_LOOK = 1 / 3


@record
class Work:
    """Images that go through the network and back, for one model."""

    scan: float
    harden: float


@record
class Estimate:
    """Seconds for a round: ``least`` if nothing is flagged, ``most`` if everything is, hardened and scanned again."""

    least: float
    most: float
    models: int


def work(classes: int, scanner: NeuralCleanseSettings, hardener: MothSettings, held_per_class: int) -> Work:
    """The most work that these settings ask for; searches that settle early take less.

    >>> work(2, NeuralCleanseSettings(), MothSettings(), 10).scan  # 2 pairs: 2 * 5 * 60 and 2 * 16 * 100
    3800.0
    """
    pairs = classes * (classes - 1)
    screened = pairs * scanner.screen_images * scanner.screen_steps
    inverted = min(pairs, scanner.screen_keep) * scanner.images_per_class * scanner.steps
    universal = classes * (classes - 1) * scanner.images_per_class * scanner.steps
    scan = {"pairwise": screened + inverted, "universal": universal, "both": screened + inverted + universal}
    warm = classes * min(hardener.warmup_images, classes * hardener.warmup_per_class) * hardener.warmup_steps
    directions = 2 * (hardener.pairs_per_round or classes)
    steps = hardener.first_steps + (hardener.turns - 1) * hardener.turn_steps
    trained = hardener.turns * hardener.sgd_steps * hardener.batch * _TRAINING
    looked = classes * held_per_class * _LOOK
    a_round = directions * hardener.images_per_direction * steps + trained + looked
    return Work(scan=float(scan[scanner.mode]), harden=warm + hardener.rounds * a_round)


def seconds_per_image(architecture: str, classes: int, size: int, device: torch.device) -> float:
    """Seconds for one image through the network and back to its pixels, the best of a few runs of a batch.

    The network has random weights: how long it takes does not depend on them.
    """
    module = build_architecture(architecture, classes).to(device).eval().requires_grad_(False)
    count = min(default_batch(device, size), 32)
    x = torch.rand(count, 3, size, size, device=device, requires_grad=True)
    y = torch.zeros(count, dtype=torch.long, device=device)
    times = []
    for _ in range(_RUNS + 1):
        wait_for(device)
        begun = time.perf_counter()
        torch.autograd.grad(functional.cross_entropy(module(x), y), x)
        wait_for(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:]) / count


def estimate(kinds: Mapping[tuple[str, int, int], int], works: Mapping[int, Work], device: torch.device) -> Estimate:
    """For so many models of each (architecture, classes, size), with the work per number of classes."""
    speed: dict[tuple[str, int], float] = {}
    least = most = 0.0
    for (architecture, classes, size), count in kinds.items():
        if (architecture, size) not in speed:
            speed[architecture, size] = seconds_per_image(architecture, classes, size, device)
        unit = speed[architecture, size] * count
        least += unit * works[classes].scan
        most += unit * (2 * works[classes].scan + works[classes].harden)
    return Estimate(least=least, most=most, models=sum(kinds.values()))
