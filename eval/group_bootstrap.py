"""Intervals of AUC and cross-entropy that respect that twins are alike: whole groups are drawn, never single models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.seeding import derive_seed
from .metrics import cross_entropy, roc_auc

Interval = tuple[float, float]


def group_bootstrap(
    probability: Sequence[float], poisoned: Sequence[bool], groups: Sequence[str], *, resamples: int = 1000,
    level: float = 0.95, seed: int = 0,
) -> dict[str, Interval | None]:  # fmt: skip
    """Percentile intervals of ``roc_auc`` and ``cross_entropy`` over draws of groups with replacement.

    A draw that lacks a label has no AUC and is left out of its interval, which is None where fewer than half of the
    draws are left; both are None with fewer than two groups. The sequences have one entry per model.

    >>> group_bootstrap([0.9, 0.1, 0.8, 0.2], [True, False, True, False], ["a", "a", "b", "b"])["roc_auc"]
    (1.0, 1.0)
    """
    p, y = np.array(probability, dtype=np.float64), np.array(poisoned, dtype=bool)
    names = sorted(set(groups))
    if len(names) < 2:
        return {"roc_auc": None, "cross_entropy": None}
    members = [np.flatnonzero(np.array(groups) == name) for name in names]
    stream = np.random.default_rng(derive_seed(seed, "group bootstrap"))
    areas, entropies = [], []
    for _ in range(resamples):
        drawn = np.concatenate([members[i] for i in stream.integers(len(names), size=len(names))])
        entropies.append(cross_entropy(p[drawn], y[drawn]))
        if len(set(y[drawn].tolist())) == 2:
            areas.append(roc_auc(p[drawn], y[drawn]))
    known = np.array([area for area in areas if area is not None])
    enough = len(known) >= resamples / 2
    return {
        "roc_auc": _percentiles(known, level) if enough else None,
        "cross_entropy": _percentiles(np.array(entropies), level),
    }


def _percentiles(values: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
