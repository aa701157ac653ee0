"""The pasted bound: the smallest piece of a real image of the target that turns images of the victim.

Only the mask is inverted; the pattern is a clean image of the target. It is an upper bound of the class distance that
comes from natural likeness alone. Clean networks have such natural patches for every class
("Inherent backdoors", Tao et al., ACSAC 2024). On the few models tried, ln(B / d0) did not tell injected pairs: a piece
of the target can have the trigger's colour. So it is a number to publish beside the distance rather than a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...core.errors import MothError
from ...core.images import ImagePool
from ...core.records import Field, record
from ...core.seeding import generator
from ...core.subject import Subject
from ...triggers.engine import Engine
from ...triggers.inversion import invert, random_start
from ...triggers.task import InversionSettings, make_task
from ...triggers.trigger import Pair


@record
class PastedSettings:
    """How many target images are tried."""

    patterns: int = Field(default=4, gt=0, description="images of the target that pieces are cut from, for each pair")


@record
class PastedBound:
    """``size`` in pixels of the smallest piece that works, the image's area where none does and ``found`` is false.

    ``patterns``: target images that were tried, fewer than asked for where there are fewer.
    """

    size: float = Field(gt=0)
    found: bool
    patterns: int = Field(gt=0)


def pasted_bounds(
    subject: Subject,
    images: ImagePool,
    pairs: Sequence[Pair],
    settings: PastedSettings,
    inversion: InversionSettings,
    *,
    seed: int,
    engine: Engine | None = None,
) -> dict[Pair, PastedBound]:
    """B of every pair (victim, target), all at once; images: clean ones x (N, 3, H, W) in [0, 1] with labels y (N,).

    A pair's masks start as those of its free inversion do, and its pieces are cut from images drawn by seed and pair:
    neither depends on the other pairs. Raises MothError for a pair without images of its victim or of its target.
    """
    if not pairs:
        return {}
    y, chosen = images.y.cpu(), [_drawn(images, pair, settings.patterns, seed) for pair in pairs]
    rows = [pair for pair, index in zip(pairs, chosen, strict=True) for _ in index]
    task = make_task(y, rows)
    patterns = images.x[torch.cat(chosen).to(images.x.device)].cpu()
    start = (random_start(task, subject.shape, seed)[0], patterns)
    result = invert(subject, images.x, task, inversion, start, engine=engine, learn_pattern=False)
    sizes = torch.where(result.converged, result.size, math.inf).cpu().split([len(index) for index in chosen])
    return {pair: _smallest(part.tolist(), subject.area) for pair, part in zip(pairs, sizes, strict=True)}


def _drawn(images: ImagePool, pair: Pair, count: int, seed: int) -> torch.Tensor:
    """Positions (n,) of ``count`` target images, or of all that there are."""
    victims, targets = (images.positions(label).cpu() for label in pair)
    if not len(victims) or not len(targets):
        raise MothError(f"pasted bound {pair[0]} -> {pair[1]}: a class has no images; give at least one of each")
    order = torch.randperm(len(targets), generator=generator(seed, "pasted", *pair))
    return targets[order[:count]]


def _smallest(sizes: list[float], area: int) -> PastedBound:
    best = min(sizes)
    found = math.isfinite(best)
    return PastedBound(size=best if found else float(area), found=found, patterns=len(sizes))
