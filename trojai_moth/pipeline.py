"""Scan, harden what was flagged, scan again: one model after the other, every stage in the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch

from . import __version__
from .blind.collect import collect_evidence
from .blind.features import BlindEvidence
from .blind.learned import LearnedRule
from .blind.rule import cascade, judge
from .blind.settings import EvidenceSettings
from .blind.verdict import BlindVerdict
from .calibration import Calibration, fingerprint
from .device import describe_device
from .errors import MothError, RunDirectoryError, one_line
from .hardener import Hardener, HardeningTrace, make_hardener
from .journal import Journal, RunIdentity
from .kept_triggers import keep_triggers
from .loading.trusted import trust_of_run
from .opening import OpenedCase, open_case
from .packs import unpacked
from .records import Field, record, to_dict
from .rounds import Case, Skip
from .run_records import Failure, NotHardened, ScanRecord, Stage
from .samples import DataSettings, Samples, collect_samples, with_unseen
from .scanner import Scanner, Verdict, make_scanner
from .seeding import derive_seed
from .subject import Subject
from .weights import load_weights, save_weights


@record
class RescanSettings:
    """Everything that decides a run's results, apart from the device."""

    scanner: str = Field(default="neural-cleanse", description="the scanner to use")
    scanner_options: dict[str, Any] = Field(default_factory=dict, description="its settings, where not the defaults")
    harden: Literal["flagged", "clean-only", "all"] = Field(default="flagged", description="which models to harden")
    hardener: str = Field(default="moth", description="the hardener to use")
    hardener_options: dict[str, Any] = Field(default_factory=dict, description="its settings, where not the defaults")
    data: DataSettings = Field(default_factory=DataSettings)
    seed: int = Field(default=0, ge=0, description="seed of the run; streams are derived from it by model and stage")
    time_budget: float | None = Field(
        default=None, gt=0, description="seconds after which a scan is given up, and the model not judged; None: never"
    )
    hardener_budget: float | None = Field(
        default=None, gt=0, description="seconds after which a hardening is given up, and the model not judged"
    )
    verdict: Literal["blind", "naive"] = Field(
        default="blind",
        description="blind: by the evidence; naive: cleared when the second scan is clean (the paper's reading)",
    )
    evidence: EvidenceSettings = Field(default_factory=EvidenceSettings)


class Reporter(Protocol):
    """What the pipeline tells about its progress; the command line shows it, tests ignore it."""

    def model(self, model_id: str, number: int, total: int) -> None:
        """A model's turn has come."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def step(self, text: str) -> None:
        """A sign of life within a stage."""


@dataclass(frozen=True)
class Run:
    """A run over a round: its cases, settings and journal. ``may_harden(model_id)`` gives a reason not to, or None.

    With a calibration, probabilities and flags are the learned ones; what was learned with other settings is refused.
    With a rule, the blind verdict is the learned one, else the votes of :mod:`~trojai_moth.blind.fallback`.
    """

    cases: list[Case | Skip]
    settings: RescanSettings
    journal: Journal
    device: torch.device
    may_harden: Callable[[str], str | None]
    reporter: Reporter
    calibration: Calibration | None = None
    rule: LearnedRule | None = None

    @cached_property
    def scanner(self) -> Scanner:
        """The scanner with its settings; SettingsError if it is not installed or a setting is wrong."""
        return make_scanner(self.settings.scanner, self.settings.scanner_options)

    @cached_property
    def hardener(self) -> Hardener:
        """The hardener with its settings; SettingsError if it is not installed or a setting is wrong."""
        return make_hardener(self.settings.hardener, self.settings.hardener_options)

    def identity(self) -> RunIdentity:
        """What may not change while the run is continued."""
        models = tuple(case.model_id for case in self.cases)
        chosen = {
            "scanner_options": to_dict(self.scanner.settings),
            "hardener_options": to_dict(self.hardener.settings),
        }
        calibration = fingerprint(self.calibration) if self.calibration else None
        rule = fingerprint(self.rule) if self.rule else None
        settings = {**to_dict(self.settings), **chosen, **trust_of_run(), "calibration": calibration, "rule": rule}
        return RunIdentity(version=__version__, models=models, settings=settings)

    def execute(self) -> None:
        """Do what the journal does not hold yet; one model's failure is recorded and does not stop the others."""
        if self.calibration:
            self.calibration.check(self.settings.scanner, self.scanner, self.settings.data)
        if self.rule:
            self.rule.check(self.settings.scanner, self.settings.data.source, to_dict(self.settings.evidence))
        self.journal.open(self.identity())
        for number, case in enumerate(self.cases, 1):
            self.reporter.model(case.model_id, number, len(self.cases))
            if self.journal.read(case.model_id, "failure", Failure) is not None:
                self.reporter.note("failed in the run so far; delete its .failure.json in the journal to try again")
                continue
            if isinstance(case, Skip):
                self._fail(case.model_id, "load", case.reason, 0.0)
                continue
            self._examine(ModelRun(case, self))

    def _examine(self, model: ModelRun) -> None:
        started = time.perf_counter()
        try:
            model.run()
        except RunDirectoryError:  # damage to the run's own records says nothing about the model
            raise
        except MothError as error:
            self._fail(model.case.model_id, model.stage, str(error), time.perf_counter() - started)
        except Exception as error:  # one model's failure must not end a round of a thousand
            self._fail(model.case.model_id, model.stage, one_line(error), time.perf_counter() - started)

    def _fail(self, model_id: str, stage: str, reason: str, seconds: float) -> None:
        self.journal.write(model_id, "failure", Failure(stage=stage, reason=reason, seconds=seconds))
        self.reporter.note(f"not judged: {reason}")


class ModelRun:
    """The stages of one model; the model and its images are read only when a stage needs them."""

    def __init__(self, case: Case, run: Run) -> None:
        """Prepare, without reading anything."""
        self.case, self.run_, self.stage = case, run, "load"
        self._files = ExitStack()
        self.seed = derive_seed(run.settings.seed, case.model_id)

    def run(self) -> None:
        """All stages that are still to do; what had to be unpacked for them is removed."""
        with self._files:
            self._stages()

    def _stages(self) -> None:
        before = self._scan("before", lambda: self.opened.subject)
        self.run_.reporter.note(f"before: {before.verdict.outcome} ({before.verdict.reason})")
        if before.verdict.flagged or (self.run_.settings.harden == "all" and before.verdict.flagged is not None):
            self._harden_and_scan(before)

    def _harden_and_scan(self, before: ScanRecord) -> None:
        left_alone = self._left_alone()
        if left_alone:
            self.run_.reporter.note(f"kept without hardening: {left_alone.reason}")
            return
        trace = self._harden()
        self.run_.reporter.note("hardened: accuracy {:.3f} -> {:.3f}".format(*trace.cost[:2]))
        after = self._scan("after", self._hardened_subject)
        self.run_.reporter.note(f"after: {after.verdict.outcome} ({after.verdict.reason})")
        if self.run_.settings.verdict == "blind" and before.verdict.flagged:
            self.run_.reporter.note(self._judge(before.verdict).reason)

    def _judge(self, before: Verdict) -> BlindVerdict:
        """The blind verdict, by evidence that is gathered once; the rule may then be asked again at no cost."""
        model_id, journal, rule = self.case.model_id, self.run_.journal, self.run_.rule
        evidence = journal.read(model_id, "evidence", BlindEvidence)
        if evidence is None:
            evidence = self._evidence(before)
            journal.write(model_id, "evidence", evidence)
        done = journal.read(model_id, "blind", BlindVerdict)
        if done is None:
            done = judge(evidence, rule, sha256=self.opened.subject.source_sha256)
            journal.write(model_id, "blind", done)
        return done

    def _evidence(self, before: Verdict) -> BlindEvidence:
        self.stage = "load"
        subject, samples, hardened = self.opened.subject, self.samples, self._hardened_subject()
        self.stage = "evidence"
        settings, seed = self.run_.settings.evidence, derive_seed(self.seed, "evidence")
        asked = None if settings.complete else cascade(self.run_.rule)
        return collect_evidence(
            subject, samples, before, settings, seed=seed, hardened=hardened, cascade=asked,
            signs=sorted(self._on_disk.foregrounds.glob("*.png")), progress=self.run_.reporter.step,
        )  # fmt: skip

    def _left_alone(self) -> NotHardened | None:
        """The decision not to harden, which is made once and then stands in the journal."""
        model_id, journal = self.case.model_id, self.run_.journal
        done = journal.read(model_id, "not-hardened", NotHardened)
        reason = None if done else self.run_.may_harden(model_id)
        if reason is None:
            return done
        journal.write(model_id, "not-hardened", NotHardened(reason=reason))
        return NotHardened(reason=reason)

    @cached_property
    def opened(self) -> OpenedCase:
        """The model, safely loaded, with its example images."""
        return open_case(self._on_disk, self.run_.device, self.run_.settings.data)

    @cached_property
    def samples(self) -> Samples:
        """The images, shared by all stages."""
        seed = derive_seed(self.seed, "images")
        return collect_samples(self._on_disk, self.opened, self.run_.settings.data, seed)

    @cached_property
    def _on_disk(self) -> Case:
        return self._files.enter_context(unpacked(self.case))

    def _hardened_subject(self) -> Subject:
        return load_weights(self.run_.journal.weights(self.case.model_id), self.opened.subject)

    def _scan(self, stage: Stage, subject_of: Callable[[], Subject]) -> ScanRecord:
        """Before and after use the same images, seed and settings, so that only the weights differ."""
        done = self.run_.journal.read(self.case.model_id, stage, ScanRecord)
        if done is not None:
            return done
        self.stage = "load"
        started = time.perf_counter()
        subject, samples = subject_of(), self.samples
        self.stage = stage
        self.run_.reporter.step(f"scan {stage}")
        budget = self.run_.settings.time_budget
        verdict = self.run_.scanner(subject, samples, seed=derive_seed(self.seed, "scan"), time_budget=budget)
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
            seconds=time.perf_counter() - started,
            note=self.opened.note,
        )
        keep_triggers(self.run_.journal.path(self.case.model_id, stage), self.run_.scanner, subject, samples)
        self.run_.journal.write(self.case.model_id, stage, result)
        return result

    def _harden(self) -> HardeningTrace:
        done = self.run_.journal.read(self.case.model_id, "harden", HardeningTrace)
        if done is not None:
            return done
        self.stage = "load"
        subject, data, images = self.opened.subject, self.run_.settings.data, derive_seed(self.seed, "images")
        samples = with_unseen(self.samples, self._on_disk, self.opened, data, images)
        self.stage, seed = "harden", derive_seed(self.seed, "harden")
        hardened = self.run_.hardener(
            subject,
            samples,
            seed=seed,
            progress=self.run_.reporter.step,
            time_budget=self.run_.settings.hardener_budget,
        )
        # Weights first: a journal that says "hardened" must never be without them.
        save_weights(hardened, self.run_.journal.weights(self.case.model_id))
        self.run_.journal.write(self.case.model_id, "harden", hardened.trace)
        return hardened.trace
