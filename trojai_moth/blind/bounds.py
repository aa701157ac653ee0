"""What a learned rule can still say of a pair while some of its features are not known.

A score is a sum of one part per feature, so what is unknown moves it by no more than the sum of what each unknown
part can be: the standardised value is cut at +-4, shares lie in [0, 1], convictions in [-2, 2], and what turns out to
be missing adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from .features import PairFeatures
from .learned import STANDARD_LIMIT, Term
from .stamps import MOST_CONVICTION
from .verdict import Outcome, measured

# A pair that lacks a larger share of the rule's features says too little to be cleared by it.
MOST_MISSING: Final = 0.5
_SHARE: Final = (0.0, 1.0)
# What a feature can be by its definition; others are bounded by the cut alone.
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        **dict.fromkeys(("held_success", "left_out_success", "jitter_success", "transfer", "cross_accuracy"), _SHARE),
        **dict.fromkeys(("stamp_success", "stamp_breadth", "removal_success"), _SHARE),
        **dict.fromkeys(("stamp_conviction", "stamp_peak", "clean_conviction"), (-MOST_CONVICTION, MOST_CONVICTION)),
        "conviction_gap": (-2 * MOST_CONVICTION, 2 * MOST_CONVICTION),
        **dict.fromkeys(("surrogate_success", "hardened_success", "withheld_success"), _SHARE),
        **dict.fromkeys(("shared_channels", "shared_channels_trigger"), (0.0, math.inf)),
        "rank_jump": (-1.0, 1.0),
        "burst_drop": (-1.0, 1.0),
    }
)
# Sums in another order differ in their last digits.
_ROUNDING: Final = 1e-9


class Bounds(NamedTuple):
    """The smallest and largest score that a pair can come to; enough: even if all that is unknown stays missing."""

    low: float
    high: float
    enough: bool


def score_bounds(pair: PairFeatures, terms: Sequence[Term], intercept: float, unknown: Collection[str]) -> Bounds:
    """Of one pair; what is measured or missing for good counts as it is."""
    low = high = intercept
    lacking = 0
    for term in terms:
        value = getattr(pair, term.feature)
        if term.feature in unknown:
            parts = [0.0, *(term.weight * end for end in _ends(term))]
            low, high, lacking = low + min(parts), high + max(parts), lacking + 1
        elif measured(value):
            part = term.weight * term.standardised(value)
            low, high = low + part, high + part
        else:
            lacking += 1
    return Bounds(low, high, lacking <= MOST_MISSING * len(terms))


def settle(bounds: Sequence[Bounds], threshold: float) -> Outcome | None:
    """Kept if a pair must score so much, cleared if none can, None while it is open; no pairs settle nothing.

    >>> settle([Bounds(1.0, 3.0, True), Bounds(-9.0, 9.0, False)], 0.0)
    'kept'
    """
    if any(pair.enough and pair.low - _ROUNDING >= threshold for pair in bounds):
        return "kept"
    if bounds and all(pair.enough and pair.high + _ROUNDING < threshold for pair in bounds):
        return "cleared"
    return None


def _ends(term: Term) -> tuple[float, float]:
    low, high = RANGES.get(term.feature, (-math.inf, math.inf))
    ends = [(end - term.centre) / term.scale for end in (low, high)]
    first, second = (min(max(end, -STANDARD_LIMIT), STANDARD_LIMIT) for end in ends)
    return first, second
