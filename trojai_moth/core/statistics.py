"""Scores, probabilities and outliers: the little statistics that scanners and verdicts share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# A verdict is never certain: NIST's cross-entropy punishes a confident mistake without bound.
PROBABILITY_FLOOR = 0.02

# Makes the median absolute deviation of a normal sample estimate its standard deviation.
_MAD_TO_DEVIATION = 1.4826


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


def log_odds(share: float, least: float) -> float:
    """ln(share / (1 - share)) of a share in [0, 1], which counts as no nearer to 0 or 1 than ``least``."""
    share = min(max(share, least), 1 - least)
    return math.log(share / (1 - share))


def logistic(score: float) -> float:
    """A score as a probability, kept away from 0 and 1; not calibrated."""
    raw = 1 / (1 + math.exp(-max(-50.0, min(50.0, score))))
    return min(max(raw, PROBABILITY_FLOOR), 1 - PROBABILITY_FLOOR)
