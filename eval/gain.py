"""What became of class distances: pure functions of two matrices of trigger sizes.

A matrix is rows by victim of columns by target, None on the diagonal and where a pair is censored (no trigger was
found) or was not measured. A pair counts only where both matrices hold a size, so a pair that became impossible to
invert, which is the largest growth there is, raises none of the figures; it is counted apart.

Three changes are reported together. That of the arithmetic mean is the paper's "Increase", and large pairs decide it.
The geometric mean counts every pair alike, and the smallest distance is what a scanner sees. The mean of the pairs'
ratios is not among them: small pairs decide it, and it rises on models whose mean distance falls by half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.errors import SettingsError
from ..core.records import Field, record
from ..core.seeding import derive_seed
from ..triggers.distance_records import DistanceMatrix, protocol, unconverged
from ..triggers.trigger import SIZE_FLOOR

Matrix = Sequence[Sequence[float | None]]
Sizes = Sequence[float | None]


@record
class Change:
    """One figure of the same pairs before and after."""

    before: float = Field(description="in pixels")
    after: float = Field(description="in pixels")
    change: float = Field(description="after/before, minus 1: 0.5 is +50 %")
    low: float | None = Field(
        description="lower end of the change's 95 % bootstrap interval over pairs; None below 2 pairs"
    )
    high: float | None = Field(description="upper end")

    @property
    def words(self) -> str:
        """The change and its interval in percent.

        >>> Change(before=10.0, after=15.0, change=0.5, low=0.4, high=0.7).words
        '+50% (+40% to +70%)'
        """
        interval = "" if self.low is None or self.high is None else f" ({self.low:+.0%} to {self.high:+.0%})"
        return f"{self.change:+.0%}{interval}"


@record
class Gain:
    """How distances changed from one matrix to another; no Change where no pair has both sizes."""

    pairs: int = Field(ge=0, description="pairs with a size before and after, which all figures but the last two cover")
    mean: Change | None = Field(description="the arithmetic mean: the paper's figure")
    geometric: Change | None = Field(description="the geometric mean")
    smallest: Change | None = Field(description="the smallest size, which may be another pair's after than before")
    shrunk: int = Field(ge=0, description="pairs that are smaller after")
    censored_before: int = Field(ge=0, description="pairs without a size before")
    censored_after: int = Field(ge=0, description="pairs without a size after")

    @property
    def changes(self) -> tuple[tuple[str, Change], ...]:
        """The three by name, the one that models and methods are compared by first; empty where there are none."""
        named = (("mean", self.mean), ("geometric mean", self.geometric), ("smallest", self.smallest))
        return tuple((name, change) for name, change in named if change is not None)


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
    resamples: int = 10_000,
    seed: int = 0,
) -> Gain:
    """``size_gains`` of ``pairs`` (victim, target), all off the diagonal if None; ValueError unless the shapes agree.

    >>> found = gains([[None, 10.0], [30.0, None]], [[None, 20.0], [20.0, None]])
    >>> found.pairs, found.mean.change, found.smallest.change, found.shrunk
    (2, 0.0, 1.0, 1)
    """
    changes = pair_changes(before, after, pairs)
    old, new = [change.before for change in changes], [change.after for change in changes]
    return size_gains(old, new, resamples=resamples, seed=seed)


def size_gains(before: Sizes, after: Sizes, *, resamples: int = 10_000, seed: int = 0) -> Gain:
    """The three changes over the same pairs in the same order, sizes in pixels; ValueError for unequal lengths.

    The intervals are percentile bootstraps: pairs are drawn with replacement, and all three figures are taken of the
    same draw. Pairs that share a class are not independent, so the intervals of the means are rather too narrow, and
    they say nothing of other models. That of the smallest is no confidence interval at all, since a draw never holds
    a pair smaller than the smallest measured. It says only how far the figure hangs on one or two pairs.
    """
    both = [(old, new) for old, new in zip(before, after, strict=True) if None not in (old, new)]
    old, new = np.maximum(np.array(both, dtype=np.float64).reshape(-1, 2), SIZE_FLOOR).T
    mean, geometric, smallest = _changes(old, new, resamples, seed) if both else (None, None, None)
    return Gain(
        pairs=len(both),
        mean=mean,
        geometric=geometric,
        smallest=smallest,
        shrunk=int((new < old).sum()),
        censored_before=sum(size is None for size in before),
        censored_after=sum(size is None for size in after),
    )


def _changes(old: NDArray[np.float64], new: NDArray[np.float64], resamples: int, seed: int) -> list[Change]:
    before, after = _figures(old), _figures(new)
    ends = _intervals(old, new, resamples, seed) if len(old) > 1 else [(None, None)] * len(before)
    return [
        Change(before=float(b), after=float(a), change=float(a / b - 1), low=low, high=high)
        for b, a, (low, high) in zip(before, after, ends, strict=True)
    ]


def _figures(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., pairs) -> (3, ...): arithmetic mean, geometric mean, smallest."""
    return np.stack([sizes.mean(-1), np.exp(np.log(sizes).mean(-1)), sizes.min(-1)])


# All resamples at once would take gigabytes for 45 classes.
_DRAWN_TOGETHER = 500_000


def _intervals(
    old: NDArray[np.float64], new: NDArray[np.float64], resamples: int, seed: int
) -> list[tuple[float, float]]:
    """(low, high) of the change of each of ``_figures``."""
    stream = np.random.default_rng(derive_seed(seed, "bootstrap"))
    step = max(1, _DRAWN_TOGETHER // len(old))
    changes = []
    for begin in range(0, resamples, step):
        drawn = stream.integers(len(old), size=(min(step, resamples - begin), len(old)))
        changes.append(_figures(new[drawn]) / _figures(old[drawn]) - 1)
    low, high = np.quantile(np.concatenate(changes, axis=1), (0.025, 0.975), axis=1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


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
    smallest_pairs: tuple[PairChange, ...] = Field(description="the smallest before with what became of them")
    notes: tuple[str, ...]


def compare_distances(
    before: DistanceMatrix, after: DistanceMatrix, *, names: tuple[str, str] = ("before", "after"), seed: int = 0
) -> DistanceChange:
    """What became of one model's distances; SettingsError, naming both by ``names``, where they cannot be compared."""
    check_comparable(before, after, names)
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
        smallest_pairs=changes[:SMALLEST],
        notes=_notes(before, after),
    )


def check_comparable(
    before: DistanceMatrix, after: DistanceMatrix, names: tuple[str, str] = ("before", "after")
) -> None:
    """SettingsError, naming both by ``names``, unless both have the same classes, pairs, images, settings and seeds."""
    difference = _difference(before, after)
    if difference:
        raise SettingsError(f"{names[0]} and {names[1]}: not comparable: {difference}; measure both in the same way")


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
    rough = unconverged(before.settings)
    notes = [*before.warnings, *([rough] if rough else [])]
    if before.source_sha256 != after.source_sha256:
        notes.append("the two were made from different model files")
    if before.weights_sha256 == after.weights_sha256:
        notes.append("the two have the same weights: what differs is rounding")
    for name in ("version", "torch", "device"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if ours != theirs:
            notes.append(f"{name}: {ours} before, {theirs} after")
    return tuple(notes)
