"""How a network's output becomes logits, one per class; read without torch."""

from __future__ import annotations

from typing import Literal

from .records import Field, record

Place = Literal["whole", "first", "last", "logits", "out", "output", "pred"]
Kind = Literal["logits", "probabilities", "log-probabilities"]


@record
class OutputReading:
    """Where in its output a network has its logits, and what they are; by default the output is logits (N, K)."""

    place: Place = Field(
        default="whole", description="the whole output, the first or last of several, or the one of this name"
    )
    kind: Kind = Field(default="logits", description="the logarithm is taken of probabilities")
    single: bool = Field(default=False, description="one number for each image, which is about the second class of two")
    row: int = Field(default=0, ge=0, description="numbers for each image that it is cut into; 0: it is (N, K) already")

    @property
    def plain(self) -> bool:
        """Whether the output is logits (N, K) as it is; logarithms of probabilities are logits, too."""
        return (self.place, self.single, self.row) == ("whole", False, 0) and self.kind != "probabilities"

    @property
    def note(self) -> str:
        """What a reader of results must know of it, as a sentence's end; empty for plain logits."""
        return f"its output is read as {self.words}" if self.words else ""

    @property
    def words(self) -> str:
        """E.g. ``the last of several outputs, probabilities (their logarithm is taken)``; empty for plain logits."""
        parts = []
        if self.place in ("first", "last"):
            parts.append(f"the {self.place} of several outputs")
        elif self.place != "whole":
            parts.append(f"the output named {self.place}")
        if self.kind == "probabilities":
            parts.append("probabilities (their logarithm is taken)")
        elif self.kind == "log-probabilities":
            parts.append("logarithms of probabilities")
        if self.single:
            parts.append("one number for two classes")
        return ", ".join(parts)
