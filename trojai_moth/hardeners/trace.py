"""What a hardener returns: the changed subject and the trace of what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..core.records import Field, is_missing, record
from ..core.subject import Subject
from .accuracy_guard import Audit

if TYPE_CHECKING:
    import pandas as pd


@record
class HardeningRound:
    """What one round did: directed pairs with their trigger sizes (pixels; None where no trigger was found)."""

    number: int
    pairs: tuple[tuple[int | None, int, float | None], ...]
    loss: float | None
    learning_rate: float
    accuracy: float
    taken_back: bool


@record
class HardeningTrace:
    """Everything there is to know afterwards about one hardening.

    accuracy_before, accuracy_after: on the ``held_images`` of ``samples.clean``, which the guard watched; what that
    flatters, ``audit`` does not, where there were images for one. seconds: in a run also those of reading the model and
    its images, where that was still to be done.
    """

    hardener: str
    settings: dict[str, Any]
    seed: int
    data: str
    accuracy_before: float
    accuracy_after: float
    held_images: int
    rounds: tuple[HardeningRound, ...]
    stopped: str
    seconds: float = Field(ge=0)
    audit: Audit | None = None
    weights_sha256: str | None = Field(default=None, exclude_if=is_missing)
    """Digest of the file of hardened weights, once there is one; no part of what that file itself says."""

    def to_frame(self) -> pd.DataFrame:
        """A row per round: number, pairs visited, loss, learning rate, guarded accuracy, and whether it was undone."""
        import pandas as pd

        return pd.DataFrame([{**vars(done), "pairs": len(done.pairs)} for done in self.rounds])

    @property
    def cost(self) -> tuple[float, float, int]:
        """Accuracy before and after, and on how many images: unseen ones where there were any, else the guarded."""
        if self.audit is not None:
            return self.audit.accuracy_before, self.audit.accuracy_after, self.audit.images
        return self.accuracy_before, self.accuracy_after, self.held_images


class WithTrace(Protocol):
    """What hardened weights are saved from."""

    @property
    def subject(self) -> Subject:
        """The network with hardened weights."""

    @property
    def trace(self) -> HardeningTrace:
        """How they came to be."""


@dataclass(frozen=True)
class Hardened:
    """The new subject (the one given is untouched) and the trace of how it came to be."""

    subject: Subject
    trace: HardeningTrace
