"""What the journal holds of each stage of a model."""

from __future__ import annotations

from typing import Literal

from ..core.records import Field, is_missing, record
from ..rounds.preprocessing import PreprocessingChoice
from ..scanners.result import ScanResult
from .failures import FailureKind

Stage = Literal["before", "harden", "after", "evidence", "blind"]
# Stages of a model in the order in which they run.
STAGES: tuple[Stage, ...] = ("before", "harden", "after", "evidence", "blind")


@record
class ScanRecord:
    """The journal's record of one scan."""

    architecture: str
    classes: int
    sha256: str
    check: str
    convention: PreprocessingChoice
    """How the model reads its images and what speaks for it."""
    data: str
    accuracy: float
    device: str
    verdict: ScanResult
    seconds: float
    note: str = ""
    """How the model was loaded, where that limits what the verdict means."""


@record
class Failure:
    """A model that could not be examined to the end; it is never counted as clean.

    traceback: of the exception that ended it, where the run was made with ``--debug``; else it is no part of the file.
    """

    stage: str
    reason: str
    seconds: float
    kind: FailureKind
    traceback: str | None = Field(default=None, exclude_if=is_missing)


@record
class NotHardened:
    """A flagged model that the protocol leaves alone, and why."""

    reason: str
