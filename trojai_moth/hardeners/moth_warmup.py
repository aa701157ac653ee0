"""MOTH's warm-up: one universal trigger per target stands in for all pairs into it (paper, section V-B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.images import ImagePool
from ..core.subject import Subject
from ..triggers.engine import Engine
from ..triggers.inversion import InversionResult, invert, random_start
from ..triggers.task import InversionSettings, make_task
from ..triggers.trigger import AnyPair, Pair, Trigger


@dataclass(frozen=True)
class WarmUp:
    """What is known of the pairs before hardening.

    speed (K, K): u[i, t] in (-inf, 1], 0 on the diagonal; starts: a mask (1, H, W) and a pattern (3, H, W) for each
    (victim, target), with victim None for a universal trigger; working: those of starts that work.
    """

    speed: np.ndarray
    starts: dict[AnyPair, tuple[Tensor, Tensor]]
    working: frozenset[AnyPair]

    def start(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Where the search for a pair's trigger begins: its own, or the universal one of its target."""
        return self.starts.get(pair) or self.starts[None, pair[1]]

    def universal(self) -> list[Trigger]:
        """The universal triggers that work."""
        return [Trigger(v, t, *self.starts[v, t]) for v, t in self.starts if v is None and (v, t) in self.working]


def warm_up(
    subject: Subject, images: ImagePool, settings: InversionSettings, seed: int, engine: Engine | None = None
) -> WarmUp:
    """Invert one universal trigger per target on the images of all other classes, all targets at once."""
    return _invert(subject, images, settings, seed, engine, [(None, target) for target in range(subject.classes)])


def pairwise_warm_up(
    subject: Subject, images: ImagePool, settings: InversionSettings, seed: int, engine: Engine | None = None
) -> WarmUp:
    """Without the approximation (paper, Table III): invert a trigger for every pair whose victim has images."""
    present = sorted(set(images.y.tolist()))
    pairs = [(victim, target) for victim in present for target in range(subject.classes) if victim != target]
    return _invert(subject, images, settings, seed, engine, pairs)


def _invert(
    subject: Subject,
    images: ImagePool,
    settings: InversionSettings,
    seed: int,
    engine: Engine | None,
    pairs: Sequence[AnyPair],
) -> WarmUp:
    task = make_task(images.y.cpu(), pairs)
    result = invert(subject, images.x, task, settings, random_start(task, subject.size, seed), engine=engine)
    starts = {pair: (result.mask[row], result.pattern[row]) for row, pair in enumerate(pairs)}
    working = frozenset(pair for row, pair in enumerate(pairs) if result.converged[row])
    return WarmUp(loss_change(result, images.y, subject.classes), starts, working)


def loss_change(result: InversionResult, y: Tensor, classes: int) -> np.ndarray:
    """u[i, t] = mean over images of class i of (l0 - l_best) / l0, 0 where l0 is 0 (the warm-up's approximation).

    l0 and l_best are an image's cross-entropy towards t at the first step and at the best trigger.
    """
    first, best = result.first_loss.cpu(), result.best_loss.cpu()
    share = torch.where(first > 0, (first - best) / first.clamp_min(1e-12), torch.zeros_like(first))
    speed = np.zeros((classes, classes))
    labels = y.cpu()[result.task.index]
    for row, target in enumerate(result.task.targets.tolist()):
        used = result.task.weight[row] > 0
        for label in range(classes):
            mine = share[row][used & (labels[row] == label)]
            if len(mine):
                speed[label, target] = float(mine.mean())
    np.fill_diagonal(speed, 0.0)
    return speed
