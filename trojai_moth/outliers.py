"""Which of a few numbers lie unusually low: the outlier rule of Neural Cleanse (Wang et al., 2019, section V-B)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Makes the median absolute deviation of a normal sample estimate its standard deviation.
_MAD_TO_DEVIATION = 1.4826


def anomaly_indices(sizes: Sequence[float]) -> list[float] | None:
    """How far each lies below the median, in deviations by MAD; None for fewer than 3 or without spread.

    >>> [round(index, 2) for index in anomaly_indices([2.0, 10.0, 11.0, 12.0, 13.0])]
    [6.07, 0.67, 0.0, -0.67, -1.35]
    """
    if len(sizes) < 3:
        return None
    values = np.array(sizes)
    median = np.median(values)
    deviation = _MAD_TO_DEVIATION * np.median(np.abs(values - median))
    return [float(index) for index in (median - values) / deviation] if deviation > 0 else None
