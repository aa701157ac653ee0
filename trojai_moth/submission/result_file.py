"""The result of a detection: one number between 0 and 1 on one line, never half written and never nan."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Final

from ..core.files import write_text

PRELIMINARY: Final = 0.5
# The leaderboard's cross-entropy has no bound at 0 and 1.
_EDGE: Final = 1e-6


def write_probability(path: Path, value: float) -> None:
    """Write one probability, held within 0 and 1; OSError if the place cannot be written to.

    In one step where the folder allows a second file, else over the old one.
    """
    text = f"{inside(value)!r}\n"
    with contextlib.suppress(OSError):
        write_text(path, text)
        return
    path.write_text(text, encoding="utf-8")


def inside(value: float) -> float:
    """A probability in (0, 1); 0.5 for what is no number."""
    return PRELIMINARY if math.isnan(value) else min(max(value, _EDGE), 1 - _EDGE)
