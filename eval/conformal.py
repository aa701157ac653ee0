"""A threshold that loses no more true positives than was asked for, whatever the distribution of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..blind.learned import Retention
from ..errors import SettingsError

# Products such as 0.29 * 100 come out a little below the whole number that they are.
_ROUNDING = 1e-9


def retention_threshold(tp_scores: Sequence[float], tolerate_loss: float) -> Retention:
    """The k-th smallest of n true positives' scores (n,), k = floor(tolerate_loss * (n + 1)); cleared is what is below.

    A further true positive, exchangeable with these, scores below it with a chance of at most k / (n + 1), since each
    of n + 1 ranks is as likely (split conformal prediction; Vovk et al., 2005). Where k is 0, n is too small for what
    was asked: the threshold is the smallest score, and the bound 1 / (n + 1) says what that keeps to. The scores must
    come from rules that were not fitted to their models. SettingsError without scores, for one that is no number, and
    for a tolerate_loss outside of [0, 1).

    >>> retention_threshold([3.0, 1.0, 2.0], 0.5).threshold
    2.0
    """
    if not 0 <= tolerate_loss < 1:
        raise SettingsError(f"tolerate_loss is {tolerate_loss}; a share from 0 to below 1 is needed")
    scores = sorted(tp_scores)
    if not scores or not all(map(math.isfinite, scores)):
        raise SettingsError("a threshold needs the score of at least one true positive, and every score a number")
    k = math.floor(tolerate_loss * (len(scores) + 1) + _ROUNDING)
    return Retention(
        threshold=scores[max(k, 1) - 1],
        tolerate_loss=tolerate_loss,
        true_positives=len(scores),
        k=k,
        bound=max(k, 1) / (len(scores) + 1),
    )
