"""What a dispatcher wants of workers, whatever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from ..tasks import Outcome, Task

# died: the worker did, in the stage that ``stage`` names.
Ending = Outcome | Literal["died"]


@dataclass(frozen=True)
class Report:
    """What became of a task."""

    task: Task
    ending: Ending
    stage: str = ""
    seconds: float = 0.0


class Pool(Protocol):
    """Workers that take tasks. ``splits``: scans are tasks of their own, so that none waits for a hardening."""

    splits: bool

    def has_room(self) -> bool:
        """Whether another task would be begun at once."""

    def submit(self, task: Task) -> None:
        """Begin a task."""

    def wait(self, seconds: float) -> list[Report]:
        """What has ended meanwhile; returns early when something has. What is wrong with the run itself is raised."""

    def stop(self) -> None:
        """End all workers within seconds; what they were at can be taken up again."""
