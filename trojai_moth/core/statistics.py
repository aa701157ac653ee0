"""Scores, probabilities and outliers: the little statistics that scanners and verdicts share."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

# A verdict is never certain: NIST's cross-entropy punishes a confident mistake without bound.
PROBABILITY_FLOOR = 0.02

# Makes the median absolute deviation of a normal sample estimate its standard deviation.
_MAD_TO_DEVIATION = 1.4826

# Samples that a bound is simulated with; of more values than that the deviation is hardly left to chance.
_SAMPLES, _SIMULATED = 20_000, 300


def anomaly_indices(sizes: Sequence[float]) -> list[float] | None:
    """How far each lies below the median, in deviations by MAD; None for fewer than 3 or without spread.

    The outlier rule of Neural Cleanse (Wang et al., 2019, section V-B).

    >>> [round(index, 2) for index in anomaly_indices([2.0, 10.0, 11.0, 12.0, 13.0])]
    [6.07, 0.67, 0.0, -0.67, -1.35]
    """
    if len(sizes) < 3:
        return None
    values = np.array(sizes)
    median = np.median(values)
    deviation = _MAD_TO_DEVIATION * np.median(np.abs(values - median))
    return [float(index) for index in (median - values) / deviation] if deviation > 0 else None


@functools.cache
def outlier_bound(count: int, chance: float = 0.05) -> float:
    """The anomaly index that the lowest of ``count`` >= 3 normal values goes beyond with this probability.

    Of few values the median absolute deviation is often small by chance, so that a bound of 2 is beyond what one clean
    sample of ten keeps in three, and any fixed one too low for fewer.

    >>> [round(outlier_bound(count), 1) for count in (3, 5, 10, 90, 9900)]
    [10.8, 5.7, 3.8, 3.5, 4.4]
    """
    if count > _SIMULATED:
        return float(-special.ndtri(-math.expm1(math.log1p(-chance) / count)))
    values = np.random.default_rng(0).standard_normal((_SAMPLES, count))
    values -= np.median(values, axis=1, keepdims=True)
    deviations = _MAD_TO_DEVIATION * np.median(np.abs(values), axis=1)
    return float(np.quantile(-values.min(axis=1) / deviations, 1 - chance))


def log_odds(share: float, least: float) -> float:
    """ln(share / (1 - share)) of a share in [0, 1], which counts as no nearer to 0 or 1 than ``least``."""
    share = min(max(share, least), 1 - least)
    return math.log(share / (1 - share))


def logistic(score: float) -> float:
    """A score as a probability, kept away from 0 and 1; not calibrated."""
    raw = 1 / (1 + math.exp(-max(-50.0, min(50.0, score))))
    return min(max(raw, PROBABILITY_FLOOR), 1 - PROBABILITY_FLOOR)
