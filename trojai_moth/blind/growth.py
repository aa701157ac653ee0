"""How a pair's trigger grew compared with other pairs of the same model: D1, D2 and D4 of the blind protocol.

A flagged pair was picked for being small, and small triggers grow more than large ones by chance alone. So growth is
judged beside control pairs, after the size it started from is accounted for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import HuberRegressor

from ..pairs import Pair

# Scaled median absolute deviation is the standard deviation of a normal distribution.
_MAD_SCALE = 1.4826
# A handful of controls can agree by chance; less scatter than this (of logarithms) is not believed.
SCATTER_FLOOR = 0.2
# Fewer controls than this can not carry a slope.
_SLOPE_CONTROLS = 6


def growth_residual(
    pair: Pair, before: Mapping[Pair, float], after: Mapping[Pair, float], controls: Sequence[Pair]
) -> float | None:
    """Residual (ln d1 - a - b ln d0) / max(1.4826 MAD(e), floor) of a pair; ln d1 = a + b ln d0 + e over controls.

    before, after: sizes in pixels, > 0, by directed pair (those without a trigger stand at the image's area). b is a
    Huber slope kept in [0, 1], as sizes picked for being small fall back to the middle but never overtake it; 1 with
    fewer than six controls. None without the pair or without controls.
    """
    known = [control for control in controls if control in before and control in after and control != pair]
    if pair not in before or pair not in after or not known:
        return None
    x, y = _logs(before, known), _logs(after, known)
    slope = _slope(x, y) if len(known) >= _SLOPE_CONTROLS else 1.0
    rest = y - slope * x
    middle = float(np.median(rest))
    scatter = max(_MAD_SCALE * float(np.median(np.abs(rest - middle))), SCATTER_FLOOR)
    return (math.log(after[pair]) - slope * math.log(before[pair]) - middle) / scatter


def log_size(pair: Pair, sizes: Mapping[Pair, float]) -> float | None:
    """The natural logarithm of a pair's size in pixels; None where it is missing."""
    return math.log(sizes[pair]) if pair in sizes else None


def log_growth(pair: Pair, before: Mapping[Pair, float], after: Mapping[Pair, float]) -> float | None:
    """Growth ln d1 - ln d0; None where one is missing."""
    if pair not in before or pair not in after:
        return None
    return math.log(after[pair]) - math.log(before[pair])


def contrast(withheld: float | None, burst: float | None) -> float | None:
    """C = G_b - G_ho: how much more a pair grew when hardened itself than while the others were; None if unknown."""
    return None if withheld is None or burst is None else burst - withheld


def asymmetry(pair: Pair, sizes: Mapping[Pair, float]) -> float | None:
    """A = ln d(t->v) - ln d(v->t); None where one is missing.

    >>> asymmetry((0, 1), {(0, 1): 1.0, (1, 0): 1.0})
    0.0
    """
    back = (pair[1], pair[0])
    return log_growth(pair, sizes, {pair: sizes[back]}) if back in sizes and pair in sizes else None


def rank_jump(pair: Pair, before: Mapping[Pair, float], after: Mapping[Pair, float]) -> float | None:
    """(rank after - rank before) / (n - 1) in [-1, 1] among the n pairs measured both times, rank 0 the smallest."""
    shared = [other for other in before if other in after]
    if pair not in shared or len(shared) < 2:
        return None
    first, second = (sum(sizes[other] < sizes[pair] for other in shared) for sizes in (before, after))
    return (second - first) / (len(shared) - 1)


def median_growth(pairs: Sequence[Pair], before: Mapping[Pair, float], after: Mapping[Pair, float]) -> float | None:
    """Median of ln d1 - ln d0 over pairs measured both times; None for none."""
    found = [log_growth(pair, before, after) for pair in pairs]
    values = [value for value in found if value is not None]
    return float(np.median(values)) if values else None


def _logs(sizes: Mapping[Pair, float], pairs: Sequence[Pair]) -> np.ndarray:
    return np.array([math.log(sizes[pair]) for pair in pairs])


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    if float(np.ptp(x)) == 0.0:
        return 1.0
    fitted = HuberRegressor(alpha=0.0, max_iter=1000).fit(x[:, None], y)
    return float(np.clip(fitted.coef_[0], 0.0, 1.0))
