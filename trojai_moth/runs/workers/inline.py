"""The simplest worker: this process itself, one model after the other."""

from __future__ import annotations

import time

from ..run import Run
from ..run_task import run_task
from ..tasks import Task
from .pool import Report


class Inline:
    """Does a task while it is waited for."""

    splits = False

    def __init__(self, run: Run) -> None:
        """Nothing is begun yet."""
        self._run, self._task = run, None

    _task: Task | None

    def has_room(self) -> bool:
        """One task at a time."""
        return self._task is None

    def submit(self, task: Task) -> None:
        """Keep it until it is waited for."""
        self._task = task

    def wait(self, seconds: float) -> list[Report]:
        """Do the task, however long it takes; sleep if there is none."""
        if self._task is None:
            time.sleep(seconds)
            return []
        task, self._task = self._task, None
        self._run.step(task.number, "load")
        return [Report(task, run_task(self._run, task))]

    def stop(self) -> None:
        """Nothing runs beside this process."""
