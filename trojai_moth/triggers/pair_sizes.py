"""Distances of chosen pairs on one network, always by the same images and starts, so that only weights differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.images import ImagePool
from ..core.subject import Subject
from .inversion import invert, random_start
from .task import InversionSettings, make_task
from .trigger import Pair, Trigger


@dataclass(frozen=True)
class Measured:
    """sizes: pixels by directed pair, the image's area for a pair without a trigger (censored); triggers that work."""

    sizes: dict[Pair, float]
    triggers: dict[Pair, Trigger]

    @property
    def censored(self) -> float:
        """Share of the pairs without a trigger that works; 0 for no pairs."""
        return 1 - len(self.triggers) / len(self.sizes) if self.sizes else 0.0


def measure_pairs(
    subject: Subject, images: ImagePool, pairs: Sequence[Pair], settings: InversionSettings, seed: int
) -> Measured:
    """Invert all ``pairs`` (victim, target) on the victims' images, x (N, 3, H, W) in [0, 1].

    A pair's start depends on the seed and the pair only. Raises ValueError for a victim without images.
    """
    if not pairs:
        return Measured({}, {})
    task = make_task(images.y.cpu(), list(pairs))
    result = invert(subject, images.x, task, settings, random_start(task, subject.size, seed))
    works = result.converged.tolist()
    triggers = {pair: result.trigger(row) for row, pair in enumerate(pairs) if works[row]}
    area = float(subject.size**2)
    # A mask of less than a hundredth of a pixel is no mask, and its logarithm would rule every mean.
    sizes = {pair: max(triggers[pair].size, 0.01) if pair in triggers else area for pair in pairs}
    return Measured(sizes, triggers)
