"""One model: take its lease, do the stages that the journal lacks, record failures by kind, leave nothing behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from ..core.device import describe_device, release_memory, smaller_batches
from ..core.errors import DamagedRecordError, MothError, RunDirectoryError, UnreadableModelError, one_line
from ..core.files import require_space, written
from ..core.messages import kept_traceback
from ..core.seeding import derive_seed
from ..core.subject import Subject
from ..core.time_limit import TimeLimitExceeded, run_with_time_limit
from ..hardeners.trace import Hardened, HardeningTrace
from ..hardeners.weights import load_weights, read_trace, save_weights, size_of_weights
from ..rounds.model_folder import ModelFolder, SkippedModel
from ..rounds.open_folder import OpenedFolder, open_folder
from ..rounds.packs import unpacked
from ..rounds.samples import Samples, collect_samples, with_unseen
from ..scanners.result import ScanResult
from ..verdict.evidence import collect_evidence
from ..verdict.features import BlindEvidence
from ..verdict.judge import judge, left_alone, question
from ..verdict.records import Verdict
from .failures import RETRIES, FailureKind, OutOfMemory, kind_of
from .journal import Failure, NotHardened, ScanRecord, Stage
from .leases import Lease
from .run import Run
from .tasks import OnStage, Outcome, Part, Task
from .trigger_files import keep_triggers
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


T = TypeVar("T")


class StillToDo(Exception):
    """Raised where work would begin, when it was only asked whether there is any."""


class ModelRun:
    """One model of a run, by its place there; the model and its images are read only when a stage needs them.

    ``begin(stage, limit)`` is called before anything is computed, with the seconds that it may take (None: no limit);
    what it raises ends the run of this model. ``note`` is told what is worth a line. ``forgiving``: a scan that runs
    out of memory raises OutOfMemory instead of leaving its model not judged. ``mend``: set damaged records aside, which
    only the holder of the lease may.
    """

    def __init__(
        self,
        run: Run,
        number: int,
        begin: OnStage,
        note: Callable[[str], None],
        *,
        forgiving: bool = False,
        mend: bool = True,
    ) -> None:
        """Prepare, without reading anything."""
        case = run.cases[number]
        assert isinstance(case, ModelFolder), "a skipped model has no stages"
        self.case, self.run_, self.stage = case, run, "load"
        self.flagged_before: bool | None = None
        self._number, self._begin_, self._note = number, begin, note
        self._forgiving, self._mend = forgiving, mend
        self._used = 0.0
        self._files = ExitStack()
        self.seed = derive_seed(run.settings.seed, case.model_id)

    def run(self, part: Part = "all") -> bool:
        """The stages that are still to do; False if that was not all. What had to be unpacked for them is removed."""
        with self._files:
            return self._stages(part)

    def _stages(self, part: Part) -> bool:
        before = self._scan("before", lambda: self.opened.subject)
        self.flagged_before = before.verdict.flagged
        self._note(f"before: {before.verdict.outcome} ({before.verdict.reason})")
        everything = self.run_.settings.harden == "all" and before.verdict.flagged is not None
        if before.verdict.flagged or everything:
            if part == "scan":
                return False
            self._harden_and_scan(before)
        return True

    def _harden_and_scan(self, before: ScanRecord) -> None:
        left_alone = self._left_alone()
        if left_alone:
            self._note(f"kept without hardening: {left_alone.reason}")
            return
        trace = self._harden()
        self._note("hardened: accuracy {:.3f} -> {:.3f}".format(*trace.cost[:2]))
        after = self._scan("after", lambda: self._hardened_subject(trace))
        self._note(f"after: {after.verdict.outcome} ({after.verdict.reason})")
        if self.run_.settings.verdict == "blind" and before.verdict.flagged:
            self._note(self._judge(before.verdict).reason)

    def _judge(self, before: ScanResult) -> Verdict:
        """The blind verdict, by evidence that is gathered once; the rule may then be asked again at no cost."""
        if self.run_.rule is None and self.case.config.described:
            return self._recall("blind", Verdict) or self._published("blind", left_alone())
        evidence = self._recall("evidence", BlindEvidence) or self._published("evidence", self._evidence(before))
        done = self._recall("blind", Verdict)
        if done is None:
            self._begin("load")
            done = judge(evidence, self.run_.rule, sha256=self.opened.subject.source_sha256)
            done = self._published("blind", done)
        return done

    def _evidence(self, before: ScanResult) -> BlindEvidence:
        self._begin("load")
        subject, samples = self.opened.subject, self.samples
        limit = self._begin("evidence")
        settings, seed = self.run_.settings.evidence, derive_seed(self.seed, "evidence")
        asked = None if settings.complete else question(self.run_.rule)
        return run_with_time_limit(
            limit,
            lambda: collect_evidence(
                subject, samples, before, settings, seed=seed, question=asked,
                signs=self._on_disk.signs, progress=self._step,
            ),
        )  # fmt: skip

    def _left_alone(self) -> NotHardened | None:
        """The decision not to harden, which is made once and then stands in the journal."""
        done = self._recall("not-hardened", NotHardened)
        reason = None if done else self.run_.may_harden(self.case.model_id)
        if reason is None:
            return done
        self._begin("load")
        return self._published("not-hardened", NotHardened(reason=reason))

    @cached_property
    def opened(self) -> OpenedFolder:
        """The model, safely loaded, with its example images."""
        return open_folder(self._on_disk, self.run_.device, self.run_.settings.data)

    @cached_property
    def samples(self) -> Samples:
        """The images, shared by all stages."""
        seed = derive_seed(self.seed, "images")
        return collect_samples(self._on_disk, self.opened, self.run_.settings.data, seed)

    @cached_property
    def _on_disk(self) -> ModelFolder:
        return self._files.enter_context(unpacked(self.case))

    def _hardened_subject(self, trace: HardeningTrace) -> Subject:
        """The subject with the weights that the trace is of; made anew, from the same seed, if those are not there."""
        subject = self._kept(trace.weights_sha256)
        if subject is None:
            self._note("its hardened weights are not there any more; it is hardened again")
            self._save(self._hardened())
            again = read_trace(self._weights)
            self.run_.journal.write(self.case.model_id, "harden", again)
            subject = load_weights(self._weights, self.opened.subject, sha256=again.weights_sha256)
        return subject

    def _kept(self, sha256: str | None) -> Subject | None:
        """The subject with the weights that were kept, if there are any; what cannot be used is set aside."""
        if not os.path.lexists(self._weights):
            return None
        try:
            return load_weights(self._weights, self.opened.subject, sha256=sha256)
        except UnreadableModelError as error:
            self._note(f"{error}; moved to {self.run_.journal.set_aside(self._weights)}")
            return None

    @property
    def _weights(self) -> Path:
        return self.run_.journal.weights(self.case.model_id)

    def _scan(self, stage: Stage, subject_of: Callable[[], Subject]) -> ScanRecord:
        """Before and after use the same images, seed and settings, so that only the weights differ."""
        done = self._recall(stage, ScanRecord)
        if done is not None:
            return done
        self._begin("load")
        started = perf_counter()
        subject, samples = subject_of(), self.samples
        limit = self._begin(stage, self.run_.settings.time_budget)
        self._step(f"scan {stage}")
        verdict = self.run_.scanner(subject, samples, seed=derive_seed(self.seed, "scan"), time_budget=limit)
        if self._forgiving and verdict.skip == "out of memory":
            raise OutOfMemory(verdict.reason)
        if self.run_.calibration:
            verdict = self.run_.calibration.judge(verdict, subject.source_sha256)
        result = ScanRecord(
            architecture=subject.architecture,
            classes=subject.classes,
            sha256=subject.source_sha256,
            check=self.opened.check,
            convention=self.opened.convention,
            data=samples.description,
            accuracy=subject.accuracy(samples.clean.x, samples.clean.y),
            device=describe_device(subject.device),
            verdict=verdict,
            seconds=perf_counter() - started,
            note=self.opened.note,
            class_names=self.opened.class_names or self.case.config.class_names,
        )
        keep_triggers(self.run_.journal.path(self.case.model_id, stage), self.run_.scanner, subject, samples)
        return self._published(stage, result)

    def _harden(self) -> HardeningTrace:
        done = self._recall("harden", HardeningTrace)
        if done is not None:
            return done
        self._begin("load")
        # Weights that a process left which died before it could say so carry their trace.
        if self._kept(None) is None:
            # Weights first: a journal that says "hardened" must never be without them.
            self._save(self._hardened())
        # Another's may have been there first, and what the journal says must be said of those that stay.
        return self._published("harden", read_trace(self._weights))

    def _hardened(self) -> Hardened:
        self._begin("load")
        started = perf_counter()
        subject, data, images = self.opened.subject, self.run_.settings.data, derive_seed(self.seed, "images")
        samples = with_unseen(self.samples, self._on_disk, self.opened, data, images)
        self._require_space(subject)  # before hours of work, too
        limit, seed = self._begin("harden", self.run_.settings.hardener_budget), derive_seed(self.seed, "harden")
        hardened = self.run_.hardener(subject, samples, seed=seed, progress=self._step, time_budget=limit)
        # What was spent on reading the model counts where it was spent, as with a scan.
        return replace(hardened, trace=replace(hardened.trace, seconds=perf_counter() - started))

    def _save(self, hardened: Hardened) -> None:
        self._require_space(hardened.subject)
        written(self._weights, lambda: save_weights(hardened, self._weights, first=True))

    def _require_space(self, subject: Subject) -> None:
        require_space(self.run_.journal.root / "weights", size_of_weights(subject))

    def _step(self, text: str) -> None:
        self.run_.step(self._number, text)

    def _begin(self, stage: str, limit: float | None = None) -> float | None:
        """Enter a stage; the seconds it may take: its own budget, or what is left of the model's if that is less."""
        whole = self.run_.settings.model_budget
        if whole is not None:
            left = whole - self._used
            limit = left if limit is None else min(limit, left)
        self._begin_(stage, limit)
        self.stage = stage
        if limit is not None and limit <= 0:
            raise TimeLimitExceeded(f"took longer than the model's time budget of {whole:g} s in all")
        return limit

    def _recall(self, stage: str, cls: type[T]) -> T | None:
        model_id, journal = self.case.model_id, self.run_.journal
        found = journal.recall(model_id, stage, cls, self._note) if self._mend else journal.read(model_id, stage, cls)
        self._used += getattr(found, "seconds", 0.0)
        return found

    def _published(self, stage: str, value: T) -> T:
        """Put a record into the journal; what stands there now, which is another's where that one was first."""
        if self.run_.journal.publish(self.case.model_id, stage, value):
            self._used += getattr(value, "seconds", 0.0)
            return value
        self._note(f"{stage}: another process was first, so this result is dropped")
        return self._recall(stage, type(value)) or self._published(stage, value)
