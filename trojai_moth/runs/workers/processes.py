"""Workers as processes of this machine, one per device or share of its cores; the driver only looks after them.

A worker may be killed, crash or hang without taking anything with it: the model it was at is taken up by another.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from ...core.errors import WorkerError
from ...core.messages import silent
from ..run import Run, go_on
from ..tasks import Task
from ..watchdog import OVERTIME_S
from .pool import Report
from .slots import Slot, slots
from .worker import Began, Done, Inherited, Message, log_here, work

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
        # What workers cannot be sent: the user's terminal, and what asks whether he wants to stop.
        self._sent = replace(run, progress=silent, check=go_on)
        self._inherited = Inherited.from_here(OVERTIME_S)
        self._mute = 0
        self._workers = [_Worker(slot) for slot in slots(workers, run.device)]

    def has_room(self) -> bool:
        """Whether a worker is idle."""
        return any(worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give a task to an idle worker."""
        worker = next(worker for worker in self._workers if worker.task is None)
        if worker.process is None:
            worker.start(self._context, self._sent, self._inherited)
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
        if isinstance(message, Done):
            return self._ended(worker, message)
        if isinstance(message, Began):
            worker.stage = message.stage
        elif isinstance(message, logging.LogRecord):
            log_here(message)
        else:
            self._run.progress(message)
        return None

    def _ended(self, worker: _Worker, done: Done) -> Report:
        assert worker.task is not None
        if done.broken is not None:
            raise done.broken
        task, worker.task = worker.task, None
        return Report(task, done.outcome)

    def _buried(self, worker: _Worker) -> Report:
        assert worker.task is not None
        task, code = worker.task, worker.end(_GRACE_S)
        worker.task = None
        self._mute += not worker.spoke
        if self._mute > _MOST_MUTE:
            raise WorkerError(
                f"{self._mute} workers ended before they could begin ({_cause(code)}); try without --workers"
            )
        self._run.note(task.number, f"its worker died ({_cause(code)}); another takes the model up")
        return Report(task, "died", worker.stage)


@dataclass
class _Worker:
    slot: Slot
    process: BaseProcess | None = None
    pipe: Connection | None = None
    task: Task | None = None
    stage: str = ""
    spoke: bool = False

    def start(self, context: BaseContext, run: Run, inherited: Inherited) -> None:
        self.pipe, other = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]
            target=work, args=(other, run, self.slot, inherited)
        )
        self.process.start()
        self.spoke = False
        other.close()

    def began(self, task: Task) -> None:
        self.task, self.stage = task, "load"

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


def _cause(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _context() -> BaseContext:
    """Where it can be had, workers are forked from a server that has loaded torch once and done nothing else with it.

    A forked copy of a process that has used torch's threads may wait for ever, which the driver may have.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context
