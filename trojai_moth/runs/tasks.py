"""What is asked of a worker, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# scan: the first scan only; all: whatever there is to do.
Part = Literal["scan", "all"]
# done: nothing is left to do; more: scanned, and there is; held: another process is at it.
Outcome = Literal["done", "more", "held"]
# Is told the stage that begins, and the seconds that it may take (None: no limit).
OnStage = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Task:
    """What is asked of a worker: a model, by its place in the run, and how much of it.

    expired: the content of a lease that was found to be void, which may be taken over.
    """

    number: int
    part: Part = "all"
    expired: str | None = None
