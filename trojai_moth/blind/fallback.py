"""The rule for where nothing was learned: votes of features against stated bounds."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..calibration import fingerprint
from ..records import Field, record
from ..scanner import logistic
from .features import BlindEvidence, PairFeatures
from .verdict import MOST_NAMED, BlindVerdict, Contribution, Outcome, Pair, measured
from .words import contribute, missing_words, sentence

NAME: Final = "votes"
NO_CANDIDATES: Final = "not judged: no pair could be measured"
# Half a vote: the score lies in the middle between keeping and clearing where the probability is 1/2.
_HALF: Final = 0.5


@record
class FallbackSettings:
    """Bounds beyond which a feature votes for an injected trigger.

    Set by hand while looking at the first eleven development records of benchmarks/blind.py, on which they must not be
    judged. The bound of the channels is that of Ex-Ray (Liu et al., 2022).
    """

    withheld_residual: float = Field(default=2.5, description="injected above, in robust standard deviations")
    asymmetry_change: float = Field(default=-1.0, description="injected below, in natural logarithms")
    rank_jump: float = Field(default=0.3, ge=-1, le=1, description="injected above, as a share of all ranks")
    shared_channels: float = Field(default=0.8, gt=0, description="injected where both shares are at most this")
    votes: int = Field(default=2, ge=1, le=4, description="votes that keep a pair")


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

    The votes: withheld_residual and rank_jump above their bounds, asymmetry_change below its own, both shares of
    channels at most theirs. What is missing does not vote; where its vote could still keep a pair, the model is
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
    # Votes weigh alike, so those for the outcome are what decided.
    parts = tuple(sorted(most.cast, key=lambda part: (part.contribution > 0) != (outcome == "kept")))[:MOST_NAMED]
    return BlindVerdict(
        outcome=outcome,
        probability=probability,
        score=float(most.injected),
        threshold=float(settings.votes),
        pair=most.name,
        decided_by=parts,
        missing=most.missing,
        reason=sentence(outcome, most.name, probability, parts),
        rule=NAME,
        rule_sha256=fingerprint(settings),
    )


def _count(pair: PairFeatures, settings: FallbackSettings) -> _Votes:
    shares = [share for share in (pair.shared_channels, pair.shared_channels_trigger) if measured(share)]
    # A single large share is enough for natural; for injected both must be known.
    channels = max(shares) if len(shares) > 1 or any(s > settings.shared_channels for s in shares) else None
    opinions = {
        "withheld_residual": (pair.withheld_residual, lambda value: value > settings.withheld_residual),
        "asymmetry_change": (pair.asymmetry_change, lambda value: value < settings.asymmetry_change),
        "shared_channels": (channels, lambda value: value <= settings.shared_channels),
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
