"""The rule for where nothing was learned: bounds on plain stamps, all of which an injected trigger must be within."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..core.records import fingerprint
from ..core.statistics import logistic
from ..triggers.stamps import StampBounds
from ..triggers.trigger import Pair
from .explanation import contribute, missing_words, open_words, sentence
from .features import BlindEvidence, PairFeatures, Question
from .records import MOST_NAMED, Contribution, Outcome, Verdict, measured

NAME: Final = "bounds"
FEATURES_USED: Final = ("stamp_success", "stamp_breadth", "removal_success", "stamp_gap")
NO_CANDIDATES: Final = "not judged: no patch of its scanner could be measured, and no other flag is taken back"
# Set by hand. They hold for all 78 flagged models with a polygon of the third to eleventh set and start
# (benchmarks/model_sets.py), on which they must not be judged.
FALLBACK_BOUNDS: Final = StampBounds(success=0.75, breadth=0.17, removal=0.5, gap=0.7)
# The probability is 1/2 in the middle between no bound missed and one.
_HALF: Final = 0.5


class _Checks(NamedTuple):
    """A pair with what its features said, +1 within the bound and -1 beyond it, and those that said nothing."""

    pair: PairFeatures
    said: tuple[Contribution, ...]
    missing: tuple[str, ...]

    @property
    def name(self) -> Pair:
        return self.pair.victim, self.pair.target

    @property
    def beyond(self) -> int:
        """Bounds that it is beyond: what speaks for a natural trigger."""
        return sum(part.contribution < 0 for part in self.said)

    @property
    def injected(self) -> bool:
        return not self.missing and not self.beyond


def judge_by_bounds(evidence: BlindEvidence, settings: StampBounds) -> Verdict:
    """Keep the flag where a candidate is within all bounds; clear it where each is beyond one.

    Where what is missing could still keep a pair, the model is not judged. The score is the number of bounds that the
    most suspicious candidate is beyond, below 0, and the probability a plain logistic curve: not calibrated.
    """
    checked = [_check(pair, settings) for pair in evidence.candidates]
    worst = min(checked, key=lambda one: (one.beyond, len(one.missing)), default=None)
    if worst is None:
        return _not_judged(settings, NO_CANDIDATES)
    outcome = _outcome(checked)
    if outcome is None:
        return _not_judged(settings, missing_words(worst.name, worst.missing, evidence.skipped), worst)
    probability = logistic(_HALF - worst.beyond)
    unknown = [feature for feature in worst.missing if feature in evidence.left_open]
    # Bounds weigh alike, so those that speak for the outcome are what decided.
    parts = tuple(sorted(worst.said, key=lambda part: (part.contribution > 0) != (outcome == "kept")))[:MOST_NAMED]
    return Verdict(
        outcome=outcome,
        probability=probability,
        score=-float(worst.beyond),
        threshold=0.0,
        pair=worst.name,
        decided_by=parts,
        missing=tuple(feature for feature in worst.missing if feature not in unknown),
        reason=sentence(outcome, worst.name, probability, parts) + (open_words(unknown) if unknown else ""),
        rule=NAME,
        rule_sha256=fingerprint(settings),
    )


def bounds_question(settings: StampBounds) -> Question:
    """What the bounds ask of the evidence: one bound that a pair is beyond is enough, whatever the others."""

    def settled(pairs: Sequence[PairFeatures], unknown: frozenset[str]) -> Outcome | None:
        return _outcome([_check(pair, settings) for pair in pairs])

    return Question(features=frozenset(FEATURES_USED), settled=settled)


def _outcome(checked: Sequence[_Checks]) -> Outcome | None:
    if any(one.injected for one in checked):
        return "kept"
    return "cleared" if checked and all(one.beyond for one in checked) else None


def _check(pair: PairFeatures, settings: StampBounds) -> _Checks:
    opinions = {
        "stamp_success": (pair.stamp_success, lambda value: value >= settings.success),
        "stamp_breadth": (pair.stamp_breadth, lambda value: value >= settings.breadth),
        "removal_success": (pair.removal_success, lambda value: value <= settings.removal),
        "stamp_gap": (pair.stamp_gap, lambda value: value >= settings.gap),
    }
    said = tuple(
        contribute(feature, value, 1.0 if within(value) else -1.0)
        for feature, (value, within) in opinions.items()
        if measured(value)
    )
    return _Checks(pair, said, tuple(feature for feature, (value, _) in opinions.items() if not measured(value)))


def _not_judged(settings: StampBounds, reason: str, checks: _Checks | None = None) -> Verdict:
    return Verdict(
        outcome="not judged",
        pair=checks.name if checks else None,
        missing=checks.missing if checks else (),
        reason=reason,
        rule=NAME,
        rule_sha256=fingerprint(settings),
    )
