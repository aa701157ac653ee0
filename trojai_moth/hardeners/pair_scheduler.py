"""MOTH's choice of which class pairs to harden next (paper, section V-C), free of models and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from ..triggers.trigger import Pair


@dataclass
class PairScheduler:
    """A bandit over unordered class pairs {a, b}.

    ``speed`` (K, K): share of the loss that the universal trigger of target t took from images of i during warm-up,
    so pairs that are easily turned come first. ``size`` (K, K): the last trigger size of each directed pair in pixels
    (nan: none found yet). ``gain`` (K, K): running mean of the relative growth of that size between visits.

    Both parts of the priority are ranks in [0, 1], since a share of a loss, a size and a growth do not add up, and
    growth compares sizes of pair triggers only, never with those of universal ones.
    """

    speed: np.ndarray
    random_share: float
    ramp_rounds: int
    size: np.ndarray = field(init=False)
    gain: np.ndarray = field(init=False)
    visits: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.size = np.full(self.speed.shape, np.nan)
        self.gain = np.full(self.speed.shape, np.nan)
        self.visits = np.zeros(self.speed.shape, dtype=int)

    @property
    def pairs(self) -> list[Pair]:
        """All unordered pairs, lower class first."""
        count = len(self.speed)
        return [(a, b) for a in range(count) for b in range(a + 1, count)]

    def priority(self, round_number: int) -> np.ndarray:
        """(number of pairs,): (1 - alpha) rank of speed + alpha rank of gain, alpha = min(1, round / ramp)."""
        alpha = min(1.0, round_number / self.ramp_rounds)
        known = self.gain[~np.isnan(self.gain)]
        gain = np.where(np.isnan(self.gain), known.mean() if known.size else 0.0, self.gain)
        return (1 - alpha) * _ranks(self._both(self.speed)) + alpha * _ranks(self._both(gain))

    def pick(self, count: int, round_number: int, stream: torch.Generator) -> list[Pair]:
        """``count`` different pairs: each slot takes a random pair with chance random_share, else the best left."""
        pairs = self.pairs
        priority = self.priority(round_number)
        left = list(np.argsort(-priority, kind="stable"))
        picked = []
        for _ in range(min(count, len(pairs))):
            slot = 0
            if float(torch.rand((), generator=stream)) < self.random_share:
                slot = int(torch.randint(len(left), (), generator=stream))
            picked.append(pairs[left.pop(slot)])
        return picked

    def observe(self, sizes: Mapping[Pair, float]) -> None:
        """Take in the sizes of this round's directed pair triggers; a direction that failed is left out by the caller.

        gain <- (gain + (new - old) / old) / 2, from the second size on.
        """
        for (victim, target), new in sizes.items():
            old = self.size[victim, target]
            if not np.isnan(old):
                growth = (new - old) / max(old, 1e-6)
                before = self.gain[victim, target]
                self.gain[victim, target] = growth if np.isnan(before) else (before + growth) / 2
            self.size[victim, target] = new
            self.visits[victim, target] += 1

    def _both(self, matrix: np.ndarray) -> np.ndarray:
        return np.array([matrix[a, b] + matrix[b, a] for a, b in self.pairs])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks scaled to [0, 1]; equal values share the mean of their ranks."""
    if len(values) < 2:
        return np.zeros(len(values))
    smaller = (values[:, None] > values[None, :]).sum(1)
    equal = (values[:, None] == values[None, :]).sum(1) - 1
    return (smaller + equal / 2) / (len(values) - 1)
