"""One model's turn: take its lease, do what is to do, record a failure by its kind, and leave nothing behind."""

from __future__ import annotations

import time
from contextlib import suppress

from ..core.device import release_memory, smaller_batches
from ..core.errors import DamagedRecordError, MothError, RunDirectoryError, one_line
from ..core.messages import kept_traceback
from ..core.time_limit import TimeLimitExceeded
from ..rounds.model_folder import SkippedModel
from .failures import RETRIES, FailureKind, kind_of
from .leases import Lease
from .model_run import ModelRun, StillToDo
from .records import Failure
from .run import Run
from .tasks import OnStage, Outcome, Task
from .watchdog import take_word, watch_path

HUNG = "did not come back in its time and could not be interrupted, so its process was killed"


class _LeaseLost(Exception):
    """Another process has taken the model over."""


def run_task(run: Run, task: Task, on_stage: OnStage = lambda stage, limit: None) -> Outcome:
    """Do a task, as far as nobody else has or is at it; only what is wrong with the run itself is raised."""
    return _Turn(run, task, on_stage).take()


def fail_model(run: Run, number: int, stage: str, reason: str, kind: FailureKind, seconds: float) -> None:
    """Record a failure of a model whose worker cannot do so any more."""
    model_id = run.cases[number].model_id
    lease = run.journal.leases.acquire(model_id)
    if lease is None:  # another has taken it up
        return
    turn = _Turn(run, Task(number), lambda stage, limit: None)
    try:
        if not turn.hung(lease):
            turn.fail(lease, stage, reason, kind, seconds)
    finally:
        lease.release()


class _Turn:
    def __init__(self, run: Run, task: Task, on_stage: OnStage) -> None:
        self.run, self.task, self.on_stage = run, task, on_stage
        self.case = run.cases[task.number]
        self.model_id = self.case.model_id

    def note(self, text: str) -> None:
        self.run.note(self.task.number, text)

    def take(self) -> Outcome:
        if self._nothing_to_do():
            return "done"
        lease = self.run.journal.leases.acquire(self.model_id, self.task.expired)
        if lease is None:
            return "held"
        try:
            return "done" if self._nothing_to_do() else self._under(lease)
        finally:
            lease.release()

    def _nothing_to_do(self) -> bool:
        """Whether the journal says that the model is finished; nothing is computed or mended for the answer."""
        try:
            if self.run.journal.read(self.model_id, "failure", Failure) is not None:
                self.note("failed in the run so far; delete its .failure.json in the journal to try again")
                return True
            if isinstance(self.case, SkippedModel):
                return False
            notes: list[str] = []  # shown only if it was indeed finished
            model = ModelRun(self.run, self.task.number, _nothing_is_to_be_done, notes.append, mend=False)
            model.run()
        except (StillToDo, DamagedRecordError):
            return False
        for text in notes:
            self.note(text)
        self._finished(model)
        return True

    def _under(self, lease: Lease) -> Outcome:
        self.run.journal.recall(self.model_id, "failure", Failure, self.note)
        deaths = lease.generation - 1
        if isinstance(self.case, SkippedModel):
            self.fail(lease, "load", self.case.reason, "unreadable", 0.0)
        elif self.hung(lease):
            pass
        elif deaths >= self.run.fleet.deaths:
            self.fail(lease, "worker", f"{deaths} processes died or fell silent at this model", "worker died", 0.0)
        else:
            return self._examine(lease)
        return "done"

    def _examine(self, lease: Lease) -> Outcome:
        def begin(stage: str, limit: float | None) -> None:
            if not lease.held:
                raise _LeaseLost
            self.on_stage(stage, limit)

        tries = 0
        while True:
            started = time.perf_counter()
            forgiving = tries < RETRIES["out of memory"]
            model = ModelRun(self.run, self.task.number, begin, self.note, forgiving=forgiving)
            try:
                with smaller_batches(2**tries):
                    return self._finished(model) if model.run(self.task.part) else "more"
            except RunDirectoryError:  # damage to the run's own records says nothing about the model
                raise
            except _LeaseLost:
                self.note("another process has taken this model over, so it is left to that one")
                return "held"
            except Exception as error:  # one model's failure must not end a round of a thousand
                kind = kind_of(error)
                if tries == RETRIES.get(kind, 0):
                    reason = str(error) if isinstance(error, MothError | TimeLimitExceeded) else one_line(error)
                    seconds = time.perf_counter() - started
                    self.fail(lease, model.stage, reason, kind, seconds, kept_traceback(error))
                    return "done"
            tries += 1
            self.note(f"{kind}: tried once more with half the batch")
            release_memory(self.run.device)

    def _finished(self, model: ModelRun) -> Outcome:
        """Weights that nobody wants to keep are needed no more."""
        keep = self.run.fleet.keep_weights
        if keep == "none" or (keep == "flagged" and not model.flagged_before):
            with suppress(FileNotFoundError):
                self.run.journal.weights(self.model_id).unlink()
        self.run.journal.mark_finished(self.model_id)
        return "done"

    def hung(self, lease: Lease) -> bool:
        """Whether the process before hung at this model until it was ended; that is then recorded."""
        found = take_word(watch_path(self.run.journal.leases.folder, self.model_id))
        if found:
            self.fail(lease, found.stage, HUNG, "out of time", found.seconds)
        return found is not None

    def fail(
        self, lease: Lease, stage: str, reason: str, kind: FailureKind, seconds: float, traceback: str | None = None
    ) -> None:
        """Record a failure, unless another has taken the model over: what it finds must stand."""
        failure = Failure(stage=stage, reason=reason, seconds=seconds, kind=kind, traceback=traceback)
        if not lease.held:
            self.note(f"failed ({reason}), but another process has taken this model over")
        elif self.run.journal.publish(self.model_id, "failure", failure):
            self.note(f"not judged: {reason}")


def _nothing_is_to_be_done(stage: str, limit: float | None) -> None:
    raise StillToDo
