"""How much class distances grew: pure functions of two matrices of trigger sizes.

A matrix is rows by victim of columns by target, None on the diagonal and where a pair is censored (no trigger was
found) or was not measured. A pair counts only where both matrices hold a size, so a pair that became impossible to
invert, which is the largest growth there is, does not raise a mean; it is counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.errors import SettingsError
from ..core.records import Field, record
from ..core.seeding import derive_seed
from ..triggers.distance_records import DistanceMatrix, protocol
from ..triggers.trigger import SIZE_FLOOR

Matrix = Sequence[Sequence[float | None]]


@record
class Gain:
    """Growth from one matrix to another; a gain of 0.5 is +50 %, None where no pair has both sizes."""

    pairs: int = Field(ge=0, description="pairs with a size before and after, which all figures but the last two cover")
    mean_before: float | None = Field(description="mean size before over these pairs")
    mean_after: float | None = Field(description="mean size after over these pairs")
    arithmetic: float | None = Field(description="mean of after/before, minus 1: the paper's figure")
    geometric: float | None = Field(description="geometric mean of after/before, minus 1")
    low: float | None = Field(
        description="lower end of the geometric gain's 95 % bootstrap interval; None below 2 pairs"
    )
    high: float | None = Field(description="upper end")
    shrunk: int = Field(ge=0, description="pairs that are smaller after")
    censored_before: int = Field(ge=0, description="pairs without a size before")
    censored_after: int = Field(ge=0, description="pairs without a size after")


@record
class PairChange:
    """One directed pair's size before and after; None where it is censored."""

    victim: int
    target: int
    before: float | None
    after: float | None


def gains(
    before: Matrix,
    after: Matrix,
    *,
    pairs: Iterable[tuple[int, int]] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Gain:
    """Growth over ``pairs`` (victim, target), all off the diagonal if None; ValueError unless the shapes agree.

    The interval is a percentile bootstrap over pairs. Pairs that share a class are not independent, so it is rather too
    narrow, and it says nothing of other models.

    >>> found = gains([[None, 10.0], [20.0, None]], [[None, 20.0], [10.0, None]])
    >>> found.pairs, found.arithmetic, found.geometric, found.shrunk
    (2, 0.25, 0.0, 1)
    """
    changes = pair_changes(before, after, pairs)
    both = [(change.before, change.after) for change in changes if None not in (change.before, change.after)]
    sizes = np.maximum(np.array(both, dtype=np.float64).reshape(-1, 2), SIZE_FLOOR)
    ratios = sizes[:, 1] / sizes[:, 0]
    low, high = bootstrap_mean(np.log(ratios), level=level, resamples=resamples, seed=seed) or (None, None)
    return Gain(
        pairs=len(ratios),
        mean_before=_mean(sizes[:, 0]),
        mean_after=_mean(sizes[:, 1]),
        arithmetic=_mean(ratios - 1),
        geometric=_grown(_mean(np.log(ratios))),
        low=_grown(low),
        high=_grown(high),
        shrunk=int((ratios < 1).sum()),
        censored_before=sum(change.before is None for change in changes),
        censored_after=sum(change.after is None for change in changes),
    )


def pair_changes(
    before: Matrix, after: Matrix, pairs: Iterable[tuple[int, int]] | None = None
) -> tuple[PairChange, ...]:
    """Both sizes of every pair, the smallest before first and those that are censored before last.

    >>> [change.after for change in pair_changes([[None, 9.0], [4.0, None]], [[None, 1.0], [2.0, None]])]
    [2.0, 1.0]
    """
    shapes = [[len(row) for row in matrix] for matrix in (before, after)]
    if shapes[0] != shapes[1] or any(length != len(before) for length in shapes[0]):
        raise ValueError("need two square matrices of the same number of classes")
    classes = range(len(before))
    chosen = pairs if pairs is not None else [(v, t) for v in classes for t in classes if v != t]
    changes = [PairChange(victim=v, target=t, before=before[v][t], after=after[v][t]) for v, t in chosen]
    return tuple(sorted(changes, key=lambda change: math.inf if change.before is None else change.before))


def bootstrap_mean(
    values: Sequence[float] | NDArray[np.float64], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval (low, high) of a mean; None below two values.

    >>> bootstrap_mean([3.0, 3.0, 3.0])
    (3.0, 3.0)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return None
    stream = np.random.default_rng(derive_seed(seed, "bootstrap"))
    # One resample at a time, or 45 classes would take 160 MB.
    means = [x[stream.integers(len(x), size=len(x))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _grown(log_ratio: float | None) -> float | None:
    return None if log_ratio is None else math.expm1(log_ratio)


SMALLEST = 5


@record
class DistanceChange:
    """How the class distances of one model changed."""

    model_id: str
    classes: int
    source_sha256: str
    weights_before: str = Field(description="hash of the weights")
    weights_after: str = Field(description="hash of the weights")
    settings: dict[str, object] = Field(description="what both were measured with")
    gain: Gain
    smallest: tuple[PairChange, ...] = Field(description="the smallest before with what became of them")
    notes: tuple[str, ...]


def compare_distances(
    before: DistanceMatrix, after: DistanceMatrix, *, names: tuple[str, str] = ("before", "after"), seed: int = 0
) -> DistanceChange:
    """SettingsError, naming both by ``names``, unless both have the same classes, pairs, images, settings and seeds."""
    difference = _difference(before, after)
    if difference:
        raise SettingsError(f"{names[0]} and {names[1]}: not comparable: {difference}; measure both in the same way")
    pairs = [(pair.victim, pair.target) for pair in before.pairs]
    changes = pair_changes(before.distances, after.distances, pairs)
    return DistanceChange(
        model_id=before.model_id,
        classes=before.classes,
        source_sha256=before.source_sha256,
        weights_before=before.weights_sha256,
        weights_after=after.weights_sha256,
        settings=protocol(before.settings),
        gain=gains(before.distances, after.distances, pairs=pairs, seed=seed),
        smallest=changes[:SMALLEST],
        notes=_notes(before, after),
    )


def _difference(before: DistanceMatrix, after: DistanceMatrix) -> str | None:
    """The first thing that makes a comparison meaningless, in words."""
    if before.classes != after.classes:
        return f"{before.classes} classes and {after.classes}"
    ours, theirs = protocol(before.settings), protocol(after.settings)
    for name, value in ours.items():
        if value != theirs[name]:
            return f"{name} is {value} and {theirs[name]}"
    sets = [{(pair.victim, pair.target) for pair in matrix.pairs} for matrix in (before, after)]
    if sets[0] != sets[1]:
        victim, target = min(sets[0] ^ sets[1])
        return f"{victim}->{target} was measured in one of them only"
    for victim in sorted({victim for victim, _ in sets[0]}):  # of other classes there may be none in one of them
        if before.image_sha256[victim] != after.image_sha256[victim]:
            return f"other images of class {victim}"
    return None


def _notes(before: DistanceMatrix, after: DistanceMatrix) -> tuple[str, ...]:
    notes = list(before.warnings)
    if before.source_sha256 != after.source_sha256:
        notes.append("the two were made from different model files")
    if before.weights_sha256 == after.weights_sha256:
        notes.append("the two have the same weights: what differs is rounding")
    for name in ("version", "torch", "device"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if ours != theirs:
            notes.append(f"{name}: {ours} before, {theirs} after")
    return tuple(notes)
