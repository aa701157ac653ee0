"""MOTH's choice of which class pairs to harden next (paper, section V-C), free of models and images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from ..triggers.trigger import SIZE_FLOOR, Pair


@dataclass
class PairScheduler:
    """A bandit over unordered class pairs {a, b}: every pair once, then those with the smallest triggers.

    ``speed`` (K, K): share of the loss that the universal trigger of target t took from images of i during warm-up,
    so pairs that are easily turned come first. ``size`` (K, K): the last trigger size of each directed pair in pixels
    (nan: none found yet). ``picked``: how often each pair had its turn.

    The paper goes from speed to growth: to the pairs that grow fastest. A scanner sees the smallest trigger of a model,
    so here a pair's turn comes by the size of its smaller direction instead.
    """

    speed: np.ndarray
    random_share: float
    size: np.ndarray = field(init=False)
    picked: dict[Pair, int] = field(init=False)

    def __post_init__(self) -> None:
        self.size = np.full(self.speed.shape, np.nan)
        self.picked = dict.fromkeys(self.pairs, 0)

    @property
    def pairs(self) -> list[Pair]:
        """All unordered pairs, lower class first."""
        count = len(self.speed)
        return [(a, b) for a in range(count) for b in range(a + 1, count)]

    def order(self) -> list[Pair]:
        """All pairs, the next one first: those never picked by speed, then by the smaller direction's size."""
        return sorted(self.pairs, key=self._place)

    def _place(self, pair: Pair) -> tuple[int, float]:
        a, b = pair
        if not self.picked[pair]:
            return 0, -float(self.speed[a, b] + self.speed[b, a])
        sizes = [size for size in (self.size[a, b], self.size[b, a]) if not np.isnan(size)]
        return 1, float(min(sizes, default=np.inf))

    def pick(self, count: int, stream: torch.Generator) -> list[Pair]:
        """``count`` different pairs: each slot takes a random pair with chance random_share, else the next one left."""
        left = self.order()
        chosen = []
        for _ in range(min(count, len(left))):
            slot = 0
            if float(torch.rand((), generator=stream)) < self.random_share:
                slot = int(torch.randint(len(left), (), generator=stream))
            chosen.append(left.pop(slot))
        for pair in chosen:
            self.picked[pair] += 1
        return chosen

    def observe(self, sizes: Mapping[Pair, float]) -> None:
        """Take in the sizes of this round's directed pairs; a direction that failed is left out by the caller."""
        for (victim, target), size in sizes.items():
            self.size[victim, target] = size

    def smallest(self, share: float) -> float:
        """Geometric mean in pixels of this share of the known sizes, the smallest and at least one; nan without any."""
        known = np.sort(self.size[~np.isnan(self.size)])
        few = known[: max(1, round(share * len(known)))]
        return statistics.geometric_mean(np.maximum(few, SIZE_FLOOR).tolist()) if len(few) else math.nan
