"""Scan, harden what was flagged, scan again: a whole round, every stage of every model in the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import torch

from . import __version__
from .blind.learned import LearnedRule
from .blind.settings import EvidenceSettings
from .calibration import Calibration, fingerprint
from .dispatch import dispatch
from .executors import make_pool
from .fleet import Fleet
from .hardener import Hardener, make_hardener
from .journal import Journal, RunIdentity
from .loading.trusted import trust_of_run
from .records import Field, record, to_dict
from .rounds import Case, Skip
from .run_records import Failure, NotHardened, ScanRecord
from .samples import DataSettings
from .scanner import Scanner, make_scanner

__all__ = ["DataSettings", "Failure", "NotHardened", "Reporter", "RescanSettings", "Run", "ScanRecord"]


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
    model_budget: float | None = Field(
        default=None, gt=0, description="seconds that all stages of a model may take together; then it is not judged"
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


def go_on() -> None:
    """The ``check`` of a run that nothing ends early."""


@dataclass(frozen=True)
class Run:
    """A run over a round: its cases, settings and journal. ``may_harden(model_id)`` gives a reason not to, or None.

    With a calibration, probabilities and flags are the learned ones; what was learned with other settings is refused.
    With a rule, the blind verdict is the learned one, else the bounds of :mod:`~trojai_moth.blind.fallback`. ``fleet``
    says by whom it is done, which changes no result. ``check`` is called often and may raise to end the run.
    """

    cases: list[Case | Skip]
    settings: RescanSettings
    journal: Journal
    device: torch.device
    may_harden: Callable[[str], str | None]
    reporter: Reporter
    calibration: Calibration | None = None
    rule: LearnedRule | None = None
    fleet: Fleet = field(default_factory=Fleet)
    check: Callable[[], None] = go_on

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
        """Do what the journal does not hold yet; one model's failure is recorded and does not stop the others.

        What other processes are at is waited for, and taken over from those that have died.
        """
        if self.calibration:
            self.calibration.check(self.settings.scanner, self.scanner, self.settings.data)
        if self.rule:
            self.rule.check(self.settings.scanner, self.settings.data.source, to_dict(self.settings.evidence))
        self.journal.open(self.identity())
        self.journal.sweep()
        dispatch(self, make_pool(self))
        self.journal.sweep()
