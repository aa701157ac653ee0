"""Workers as processes of this machine, one per device or share of its cores; the driver only looks after them.

A worker may be killed, crash or hang without taking anything with it: the model it was at is taken up by another.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING

from ..errors import WorkerError
from ..loading.trusted import pickles_are_trusted
from ..turn import Task
from ..watchdog import OVERTIME_S
from .pool import Report
from .slots import Slot, slots
from .worker import Began, Broken, Ended, Message, Note, work

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from ..pipeline import Run

# Workers in a row that may die before they have said a word: then it is not the models that they die of.
_MOST_MUTE = 5
# Seconds that workers have to let go of their models when the run is to end.
_GRACE_S = 5.0


class Processes:
    """A fixed number of workers, each begun when there is a task for it and begun anew when it has died."""

    splits = False

    def __init__(self, run: Run, workers: int) -> None:
        """Nothing is begun yet."""
        self._run, self._context = run, _context()
        # What workers can not be sent: the user's terminal, and what asks whether he wants to stop.
        self._sent = replace(run, reporter=_NOBODY, check=_nothing)
        self._mute = 0
        self._workers = [_Worker(slot) for slot in slots(workers, run.device)]

    def has_room(self) -> bool:
        """Whether a worker is idle."""
        return any(worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give a task to an idle worker."""
        worker = next(worker for worker in self._workers if worker.task is None)
        if worker.process is None:
            worker.start(self._context, self._sent)
        worker.began(task)
        assert worker.pipe is not None
        with suppress(OSError):  # it has died; that is seen when it is waited for
            worker.pipe.send(task)

    def wait(self, seconds: float) -> list[Report]:
        """Pass on what workers say, and tell what has ended."""
        busy = {worker.pipe: worker for worker in self._workers if worker.task is not None}
        if not busy:
            time.sleep(seconds)
            return []
        ready = wait([pipe for pipe in busy if pipe is not None], seconds)
        reports = [self._hear(busy[pipe]) for pipe in ready if isinstance(pipe, Connection)]
        reports += [self._kill_if_late(worker) for worker in busy.values()]
        return [report for report in reports if report is not None]

    def stop(self) -> None:
        """Idle workers end with their pipe, busy ones by SIGTERM, and what is left then by SIGKILL."""
        begun = [worker for worker in self._workers if worker.process is not None]
        at = {self._run.cases[worker.task.number].model_id for worker in begun if worker.task is not None}
        for worker in begun:
            worker.ask_to_end()
        end = time.monotonic() + _GRACE_S
        for worker in begun:
            worker.end(max(0.0, end - time.monotonic()))
        # To be ended by us is not to die of a model.
        self._run.journal.leases.sweep(lambda model_id: model_id in at)

    def _hear(self, worker: _Worker) -> Report | None:
        assert worker.pipe is not None and worker.task is not None
        try:
            message: Message = worker.pipe.recv()
        except (EOFError, OSError):
            return self._buried(worker)
        worker.spoke, self._mute = True, 0
        if isinstance(message, Broken):
            raise message.error
        if isinstance(message, Ended):
            task, worker.task = worker.task, None
            return Report(task, message.outcome)
        if isinstance(message, Began):
            worker.enters(message)
        else:
            self._tell(worker.task, message.text, isinstance(message, Note))
        return None

    def _tell(self, task: Task, text: str, lasting: bool) -> None:
        cases, reporter = self._run.cases, self._run.reporter
        reporter.model(cases[task.number].model_id, task.number + 1, len(cases))
        (reporter.note if lasting else reporter.step)(text)

    def _buried(self, worker: _Worker) -> Report:
        assert worker.task is not None
        task, code = worker.task, worker.end(_GRACE_S)
        worker.task = None
        self._mute += not worker.spoke
        if self._mute > _MOST_MUTE:
            raise WorkerError(
                f"{self._mute} workers ended before they could begin ({_cause(code)}); try without --workers"
            )
        self._tell(task, f"its worker died ({_cause(code)}); another takes the model up", True)
        return Report(task, "died", worker.stage)

    def _kill_if_late(self, worker: _Worker) -> Report | None:
        if worker.task is None or worker.deadline is None or time.monotonic() < worker.deadline:
            return None
        task, worker.task = worker.task, None
        worker.end(0.0)
        return Report(task, "hung", worker.stage, time.monotonic() - worker.since)


@dataclass
class _Worker:
    slot: Slot
    process: BaseProcess | None = None
    pipe: Connection | None = None
    task: Task | None = None
    stage: str = ""
    since: float = 0.0
    deadline: float | None = None
    spoke: bool = False

    def start(self, context: BaseContext, run: Run) -> None:
        self.pipe, other = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]
            target=work, args=(other, run, self.slot, pickles_are_trusted())
        )
        self.process.start()
        self.spoke = False
        other.close()

    def began(self, task: Task) -> None:
        self.task, self.stage, self.since, self.deadline = task, "load", time.monotonic(), None

    def enters(self, message: Began) -> None:
        self.stage, self.since = message.stage, time.monotonic()
        self.deadline = None if message.limit is None else self.since + message.limit + OVERTIME_S

    def ask_to_end(self) -> None:
        assert self.process is not None and self.pipe is not None
        if self.task is not None:
            self.process.terminate()
        self.pipe.close()

    def end(self, patience: float) -> int | None:
        """Wait for its end, then kill it; the exit code."""
        assert self.process is not None and self.pipe is not None
        self.process.join(patience)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code, self.process = self.process.exitcode, None
        self.pipe.close()
        return code


class _Nobody:
    """A reporter for nobody."""

    def model(self, model_id: str, number: int, total: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def step(self, text: str) -> None:
        """Nothing."""


_NOBODY = _Nobody()


def _nothing() -> None:
    pass


def _cause(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _context() -> BaseContext:
    """Where it can be had, workers are forked from a server that has loaded torch once and done nothing else with it.

    A forked copy of a process that has used torch's threads may wait for ever, which the driver may have.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trojai_moth.executors.worker", "trojai_moth.pipeline"])
    return context
