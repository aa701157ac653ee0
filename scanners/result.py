"""What a scanner returns: graded evidence and one of three outcomes."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import Misconduct
from ..core.records import Field, is_missing, record

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["flagged", "clean", "not judged"]


@record
class Candidate:
    """One inverted trigger: a class pair that may hide a backdoor. victim None: a universal trigger, of any class.

    size: of a patch in pixels (L1 of the mask), of a filter the mean change of a pixel's colour values in [0, 1]; None
    where no trigger reached the bound: never the same as a large one. success on the images inverted on, held_success
    on held_images images held back from the inversion. What a scanner did not measure is None: left_out_success, on
    images left out of the inversion one at a time; jitter_success, on held-back images shifted, turned and scaled a
    little; reverse_size, of the smallest trigger found from target to victim. scanner: which of several found it.
    """

    victim: int | None
    target: int
    size: float | None
    success: float
    held_success: float | None
    held_images: int
    converged: bool
    kind: Literal["patch", "filter"] = "patch"
    left_out_success: float | None = None
    jitter_success: float | None = None
    reverse_size: float | None = None
    scanner: str | None = None


@record
class Calibrated:
    """What a learned calibration made a verdict from; fitted_on: it was learned from this very model, among others."""

    sha256: str
    raw_score: float
    raw_probability: float | None
    fitted_on: bool


@record
class ScanResult:
    """What a scanner says about one model; evidence is sorted, most suspicious first.

    score is above 0 exactly when the model is flagged; probability of being poisoned in [0.02, 0.98]. incomplete: one
    of several scanners could not judge, and the score is that of the others; member_scores: what each of several that
    judged it said, on the same footing as the score. skip: what went wrong where the base class refused to take a
    judgement; None for a judgement, and for a scanner that itself says why it cannot judge. traceback: of what it
    raised, where tracebacks are asked for (``--debug``); else it is no part of the record.
    """

    scanner: str
    outcome: Outcome
    score: float | None
    probability: float | None
    reason: str
    evidence: tuple[Candidate, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    seconds: float = 0.0
    incomplete: bool = False
    member_scores: dict[str, float] = Field(default_factory=dict)
    calibrated: Calibrated | None = None
    skip: Misconduct | None = None
    traceback: str | None = Field(default=None, exclude_if=is_missing)

    @property
    def flagged(self) -> bool | None:
        """True, False, or None when the model could not be judged."""
        return None if self.outcome == "not judged" else self.outcome == "flagged"

    @property
    def flagged_by(self) -> tuple[str, ...]:
        """Those of several scanners that flag the model, each alone."""
        return tuple(name for name, score in self.member_scores.items() if score > 0)

    def to_frame(self) -> pd.DataFrame:
        """A row per candidate trigger, most suspicious first, with the fields of :class:`Candidate`."""
        import pandas as pd

        columns = list(Candidate.__dataclass_fields__)
        return pd.DataFrame([vars(candidate) for candidate in self.evidence], columns=columns)

    def __repr__(self) -> str:
        """One line."""
        sure = "" if self.probability is None else f", probability {self.probability:.2f}"
        return f"<ScanResult {self.outcome} by {self.scanner}{sure}: {self.reason}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.to_frame().to_html(index=False)}"
