"""The rule for where nothing was learned: votes of features against stated bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..calibration import fingerprint
from ..records import Field, record
from ..scanner import logistic
from .features import BlindEvidence, PairFeatures
from .stages import Cascade
from .verdict import MOST_NAMED, BlindVerdict, Contribution, Outcome, Pair, measured
from .words import contribute, missing_words, open_words, sentence

NAME: Final = "votes"
FEATURES_USED: Final = ("burst_contrast", "rank_jump")
NO_CANDIDATES: Final = "not judged: no pair could be measured"
# Half a vote: the score lies in the middle between keeping and clearing where the probability is 1/2.
_HALF: Final = 0.5


@record
class FallbackSettings:
    """Bounds beyond which a feature votes for an injected trigger.

    Set by hand on both halves of benchmarks/blind.py's records, on which they must not be judged. Both features compare
    a pair with itself or with its model's other pairs, so that they mean the same at other sizes and for other
    scanners.
    """

    burst_contrast: float = Field(default=-0.5, description="injected below, in natural logarithms")
    rank_jump: float = Field(default=0.25, ge=-1, le=1, description="injected above, as a share of all ranks")
    votes: int = Field(default=1, ge=1, le=2, description="votes that keep a pair")


class _Votes(NamedTuple):
    """A pair with the votes cast, +1 for injected and -1 for natural, and the features that could not vote."""

    pair: PairFeatures
    cast: tuple[Contribution, ...]
    missing: tuple[str, ...]

    @property
    def name(self) -> Pair:
        return self.pair.victim, self.pair.target

    @property
    def injected(self) -> int:
        """Votes for injected."""
        return sum(part.contribution > 0 for part in self.cast)


def judge_by_votes(evidence: BlindEvidence, settings: FallbackSettings) -> BlindVerdict:
    """Keep the flag where a candidate has as many votes as ``settings.votes``; clear it where none can have.

    The votes: burst_contrast below its bound, rank_jump above its own. With one vote a model is cleared only if both
    say natural of every candidate. What is missing does not vote; where its vote could still keep a pair, the model is
    not judged. The score is the number of votes of the candidate with the most, the probability a plain logistic curve
    through 1/2 between keeping and clearing: not calibrated.
    """
    counted = [_count(pair, settings) for pair in evidence.candidates]
    most = max(counted, key=lambda votes: votes.injected, default=None)
    if most is None:
        return _not_judged(settings, NO_CANDIDATES)
    outcome: Outcome = "kept" if most.injected >= settings.votes else "cleared"
    for votes in counted:
        if outcome == "cleared" and votes.injected + len(votes.missing) >= settings.votes:
            return _not_judged(settings, missing_words(votes.name, votes.missing, evidence.skipped), votes)
    probability = logistic(most.injected - settings.votes + _HALF)
    unknown = [feature for feature in most.missing if feature in evidence.left_open]
    # Votes weigh alike, so those for the outcome are what decided.
    parts = tuple(sorted(most.cast, key=lambda part: (part.contribution > 0) != (outcome == "kept")))[:MOST_NAMED]
    return BlindVerdict(
        outcome=outcome,
        probability=probability,
        score=float(most.injected),
        threshold=float(settings.votes),
        pair=most.name,
        decided_by=parts,
        missing=tuple(feature for feature in most.missing if feature not in unknown),
        reason=sentence(outcome, most.name, probability, parts) + (open_words(unknown) if unknown else ""),
        rule=NAME,
        rule_sha256=fingerprint(settings),
    )


def votes_cascade(settings: FallbackSettings) -> Cascade:
    """What the votes ask of the evidence: what is not known yet may vote either way, or not at all."""

    def settled(pairs: Sequence[PairFeatures], unknown: frozenset[str]) -> Outcome | None:
        counted = [_count(pair, settings) for pair in pairs]
        if any(votes.injected >= settings.votes for votes in counted):
            return "kept"
        possible = [votes.injected + len(votes.missing) for votes in counted]
        return "cleared" if counted and max(possible) < settings.votes else None

    return Cascade(features=frozenset(FEATURES_USED), settled=settled)


def _count(pair: PairFeatures, settings: FallbackSettings) -> _Votes:
    opinions = {
        "burst_contrast": (pair.burst_contrast, lambda value: value < settings.burst_contrast),
        "rank_jump": (pair.rank_jump, lambda value: value > settings.rank_jump),
    }
    cast = tuple(
        contribute(feature, value, 1.0 if injected(value) else -1.0)
        for feature, (value, injected) in opinions.items()
        if measured(value)
    )
    return _Votes(pair, cast, tuple(feature for feature, (value, _) in opinions.items() if not measured(value)))


def _not_judged(settings: FallbackSettings, reason: str, votes: _Votes | None = None) -> BlindVerdict:
    return BlindVerdict(
        outcome="not judged",
        pair=votes.name if votes else None,
        missing=votes.missing if votes else (),
        reason=reason,
        rule=NAME,
        rule_sha256=fingerprint(settings),
    )
