"""The verdict on a flagged model's evidence, whichever rule gave it."""

from __future__ import annotations

import math
from typing import Literal, TypeGuard

from ..core.records import Field, record
from ..triggers.trigger import Pair

Outcome = Literal["cleared", "kept", "not judged"]
# More than this would not be read.
MOST_NAMED = 3


@record
class Contribution:
    """What one feature of the deciding pair said.

    contribution: its share of the score, above 0 where it spoke for an injected trigger; of a learned rule in log odds,
    of the rule without learning +1 or -1 vote.
    """

    feature: str
    value: float
    contribution: float
    words: str


@record
class Verdict:
    """cleared: natural. kept: injected, or not natural enough. not judged: cannot be told, so the flag stays.

    score: larger is more suspicious, and the model is cleared exactly when it is below threshold. pair: the directed
    pair victim -> target that decided. missing: features of that pair the rule would have used. fitted_on: the rule was
    learned from this very model. Score, threshold and probability are None where nothing was judged.
    """

    outcome: Outcome
    probability: float | None = Field(default=None, ge=0.02, le=0.98, description="of holding an injected backdoor")
    score: float | None = None
    threshold: float | None = None
    pair: Pair | None = None
    decided_by: tuple[Contribution, ...] = ()
    missing: tuple[str, ...] = ()
    reason: str
    rule: str = Field(description="name of the rule")
    rule_sha256: str
    fitted_on: bool = False

    @property
    def cleared(self) -> bool:
        """Whether the flag is taken back; what was not judged keeps it."""
        return self.outcome == "cleared"


def strongest(contributions: tuple[Contribution, ...]) -> tuple[Contribution, ...]:
    """The two or three that weigh most, largest first; those that say nothing are left out."""
    speaking = [part for part in contributions if part.contribution]
    return tuple(sorted(speaking, key=lambda part: (-abs(part.contribution), part.feature))[:MOST_NAMED])


def measured(value: float | None) -> TypeGuard[float]:
    """Whether there is a number; nan and infinity are none."""
    return value is not None and math.isfinite(value)
