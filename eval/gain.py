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

from ..core.records import Field, record
from ..core.seeding import derive_seed
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
