"""A scanner as it is beside what was learned, with intervals over groups of twins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ...scanners.calibration import CalibrationMetrics, Estimate, Quality
from ..metrics import clopper_pearson, cross_entropy

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Twins are alike and scans of one model more so; only groups are independent draws, so these are drawn.
RESAMPLES = 1000
LEVEL = 0.95


class Evidence(NamedTuple):
    """What was said of M models with S seeds, each (M, S): probability, what to rank by, and whether it was flagged."""

    probability: Floats
    ranking: Floats
    flags: Bools


def measure(
    scanner: Evidence, learned: Evidence, scores: Floats, poisoned: Bools, groups: Sequence[str]
) -> CalibrationMetrics:
    """Both beside each other, for labels (M,) and groups (M,); ``scores`` (M, S) are the scanner's own."""
    draws = _draws(groups)
    costs = _costs(learned.probability, poisoned) - _costs(scanner.probability, poisoned)
    return CalibrationMetrics(
        scanner=_quality(scanner, poisoned, draws),
        learned=_quality(learned, poisoned, draws),
        cross_entropy_change=_interval(lambda rows: float(costs[rows].mean()), len(poisoned), draws),
        score_deviation=float(np.sqrt(scores.var(axis=1, ddof=1).mean())) if scores.shape[1] > 1 else None,
    )


def ranking_quality(ranking: Floats, poisoned: Bools) -> float | None:
    """ROC-AUC of values (N,) of any scale, ties count half; None if one label is absent.

    >>> ranking_quality(np.array([-3.0, 7.0]), np.array([False, True]))
    1.0
    """
    bad = int(poisoned.sum())
    pairs = bad * (len(poisoned) - bad)
    return float((rankdata(ranking)[poisoned].sum() - bad * (bad + 1) / 2) / pairs) if pairs else None


def _quality(evidence: Evidence, poisoned: Bools, draws: list[NDArray[np.int_]]) -> Quality:
    costs, seeds = _costs(evidence.probability, poisoned), evidence.flags.shape[1]
    errors = np.square(evidence.probability - poisoned[:, None])
    first = evidence.flags[:, 0]
    found, wrong = first[poisoned], first[~poisoned]
    same = (evidence.flags == evidence.flags[:, :1]).all(axis=1)

    def area(rows: NDArray[np.int_]) -> float | None:
        return ranking_quality(evidence.ranking[rows].ravel(), np.repeat(poisoned[rows], seeds))

    return Quality(
        cross_entropy=_interval(lambda rows: float(costs[rows].mean()), len(poisoned), draws),
        brier=_interval(lambda rows: float(errors[rows].mean()), len(poisoned), draws),
        roc_auc=_interval(area, len(poisoned), draws),
        true_positive_rate=_share(found),
        false_positive_rate=_share(wrong),
        balanced_accuracy=float((found.mean() + 1 - wrong.mean()) / 2),
        same_verdict=_share(same) if seeds > 1 else Estimate(value=None, low=None, high=None),
    )


def _costs(probability: Floats, poisoned: Bools) -> Floats:
    """NIST's cross-entropy of each scan (M, S)."""
    pairs = [[cross_entropy([p], [bad]) for p in row] for row, bad in zip(probability, poisoned, strict=True)]
    return np.array(pairs, dtype=np.float64)


def _share(hits: Bools) -> Estimate:
    low, high = clopper_pearson(int(hits.sum()), len(hits), level=LEVEL)
    return Estimate(value=float(hits.mean()), low=low, high=high)


def _draws(groups: Sequence[str]) -> list[NDArray[np.int_]]:
    """Rows of the models of as many groups as there are, drawn with replacement; the same ones for every figure."""
    names = sorted(set(groups))
    rows = [np.flatnonzero(np.array(groups) == name) for name in names]
    stream = np.random.default_rng(0)
    return [np.concatenate([rows[i] for i in stream.integers(len(rows), size=len(rows))]) for _ in range(RESAMPLES)]


def _interval(
    value: Callable[[NDArray[np.int_]], float | None], models: int, draws: list[NDArray[np.int_]]
) -> Estimate:
    """A figure of all models with its percentile interval over the draws in which it is defined."""
    drawn = [figure for figure in map(value, draws) if figure is not None]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail]) if drawn else (None, None)
    return Estimate(
        value=value(np.arange(models)),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
    )
