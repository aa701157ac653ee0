"""Verdicts in words: one plain sentence from the numbers that decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ..triggers.trigger import Pair
from .features import FEATURES
from .records import Contribution, Outcome

CUT_SHORT: Final = (
    "not judged: the evidence was cut short for another rule; gather it anew, with evidence.complete=true if more than "
    "one rule is to be asked"
)


def contribute(feature: str, value: float, contribution: float) -> Contribution:
    """A feature's contribution with the words for the side it spoke for; KeyError for a name that FEATURES lacks."""
    meaning = FEATURES[feature]
    words = meaning.injected if contribution > 0 else meaning.natural
    return Contribution(feature=feature, value=value, contribution=contribution, words=words)


def phrase(part: Contribution) -> str:
    """What a feature said, with its value.

    >>> phrase(contribute("stamp_gap", 1.94, 0.7))
    'the stamp does nothing to clean networks of the same classes (+1.9)'
    """
    meaning = FEATURES.get(part.feature)
    number = f"{part.value:+.1f}" if meaning is None or meaning.signed else f"{part.value:.2f}"
    return f"{part.words} ({number})"


def sentence(outcome: Outcome, pair: Pair, probability: float, parts: Sequence[Contribution]) -> str:
    """Why a model was cleared or kept; ``pair`` is its most suspicious one.

    What spoke for the outcome comes first, what spoke against it after "although".
    """
    kept = outcome == "kept"
    agreeing = [phrase(part) for part in parts if (part.contribution > 0) == kept]
    against = [phrase(part) for part in parts if (part.contribution > 0) != kept]
    likely = probability > 1 / 2
    state = f"{_state(kept, likely)} (probability {'' if likely else 'of being injected '}{probability:.2f})"
    because = ": " + "; ".join(agreeing) if agreeing else ""
    although = ", although " + " and ".join(against) if against else ""
    return f"{outcome}: {name(pair)} {state}{because}{although}"


def name(pair: Pair) -> str:
    """A directed pair.

    >>> name((4, 2))
    '4->2'
    """
    return f"{pair[0]}->{pair[1]}"


def missing_words(pair: Pair, missing: Sequence[str], skipped: Mapping[str, str]) -> str:
    """Why nothing was judged: what the pair lacks, and which stages were left out."""
    return f"not judged: {name(pair)} lacks {', '.join(missing)}" + (f" ({_left_out(skipped)})" if skipped else "")


def failed_words(features: Sequence[str], skipped: Mapping[str, str]) -> str:
    """That what could have changed the verdict is not known, as its stage failed.

    >>> failed_words(["clean_conviction"], {"clean_stamps": "no network learned the classes"})
    'not judged: clean_conviction is not known (clean_stamps was left out: no network learned the classes)'
    """
    known = "are" if len(features) > 1 else "is"
    return f"not judged: {', '.join(features)} {known} not known ({_left_out(skipped)})"


def _left_out(skipped: Mapping[str, str]) -> str:
    return "; ".join(f"{stage} was left out: {reason}" for stage, reason in skipped.items())


def open_words(features: Sequence[str]) -> str:
    """That some features were not needed any more.

    >>> open_words(["stamp_gap"])
    '; stamp_gap could not change that and was not measured'
    """
    return f"; {', '.join(features)} could not change that and {'were' if len(features) > 1 else 'was'} not measured"


def _state(kept: bool, likely: bool) -> str:
    if kept:
        return "still looks injected" if likely else "is not natural enough to be cleared"
    return "looks less injected than what the rule keeps" if likely else "looks natural, and no other pair less so"
