"""A threshold that loses no more true positives than was asked for, whatever the distribution of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from ...core.errors import SettingsError
from ...verdict.learned_rule import Retention

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


def with_room(found: Retention, clean_scores: Sequence[float]) -> Retention:
    """The same with its threshold halfway down to the next clean model's score, where there is one below.

    Any threshold between the two says the same of the models that it is set on, and the lower it is the fewer true
    positives are lost, so that the promise holds all the more.

    >>> with_room(retention_threshold([2.0, 3.0], 0.02), [1.0, 0.0, 2.5]).threshold
    1.5
    """
    below = [score for score in clean_scores if score < found.threshold]
    return replace(found, threshold=(found.threshold + max(below)) / 2) if below else found


def with_tail(found: Retention, tp_scores: Sequence[float], share: float) -> Retention:
    """The same with its threshold no higher than where a normal distribution of these scores (n,) has ``share`` below.

    For few true positives: below the lowest of n scores a share of about 1 / (n + 1) is to be expected, and that they
    are about normal says more of it than they do. Only ever lowers the threshold, so that the promise holds. The same
    where fewer than two scores are given. SettingsError for a share outside of (0, 0.5].

    >>> with_tail(retention_threshold([1.0, 2.0, 3.0], 0.02), [1.0, 2.0, 3.0], 0.01).threshold < 0
    True
    """
    if not 0 < share <= 0.5:
        raise SettingsError(f"tail_loss is {share}; a share above 0 and at most 0.5 is needed")
    if len(tp_scores) < 2:
        return found
    tail = NormalDist.from_samples(tp_scores)
    lowest = tail.inv_cdf(share) if tail.stdev > 0 else tail.mean
    return replace(found, threshold=min(found.threshold, lowest))
