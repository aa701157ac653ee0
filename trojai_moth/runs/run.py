"""A run: which models are examined, how, and where its records lie; :mod:`~trojai_moth.runs.execute` does it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from .. import __version__
from ..core.messages import Progress, silent
from ..core.records import LARGEST_SEED, LONGEST_S, Field, fingerprint, record, to_dict
from ..hardeners.base import Hardener
from ..hardeners.registry import make_hardener
from ..loading.trusted import trust_of_run
from ..rounds.data_settings import DataSettings
from ..rounds.model_folder import ModelFolder, SkippedModel
from ..scanners.base import Scanner
from ..scanners.calibration import Calibration
from ..scanners.registry import make_scanner
from ..verdict.learned_rule import LearnedRule
from ..verdict.settings import EvidenceSettings
from .execution_settings import ExecutionSettings
from .journal import Journal, RunIdentity

# What a run says of its models goes through this logger.
NOTES = logging.getLogger(__name__)


@record
class RescanSettings:
    """Everything that decides a run's results, apart from the device."""

    scanner: str = Field(default="neural-cleanse", description="the scanner to use")
    scanner_options: dict[str, Any] = Field(default_factory=dict, description="its settings, where not the defaults")
    harden: Literal["flagged", "clean-only", "all"] = Field(default="flagged", description="which models to harden")
    hardener: str = Field(default="moth", description="the hardener to use")
    hardener_options: dict[str, Any] = Field(default_factory=dict, description="its settings, where not the defaults")
    data: DataSettings = Field(default_factory=DataSettings)
    seed: int = Field(
        default=0, ge=0, le=LARGEST_SEED, description="seed of the run; streams are derived from it by model and stage"
    )
    time_budget: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="seconds after which a scan is given up, and the model not judged; None: never",
    )
    hardener_budget: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="seconds after which a hardening is given up, and the model not judged",
    )
    model_budget: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="seconds that all stages of a model may take together; then it is not judged",
    )
    verdict: Literal["blind", "naive"] = Field(
        default="blind",
        description="blind: by the evidence; naive: cleared when the second scan is clean (the paper's reading)",
    )
    evidence: EvidenceSettings = Field(default_factory=EvidenceSettings)


class ModelStep(str):
    """What a run tells its progress callback of a model: ``[3/8] id-00000002: scan before``, and the parts of that."""

    model_id: str
    number: int
    total: int
    words: str

    @classmethod
    def of(cls, model_id: str, number: int, total: int, words: str) -> ModelStep:
        """The ``number``-th of ``total`` models, counted from 1, and what is being done with it."""
        step = cls(f"[{number}/{total}] {model_id}: {words}")
        step.model_id, step.number, step.total, step.words = model_id, number, total, words
        return step


def go_on() -> None:
    """The ``check`` of a run that nothing ends early."""


@dataclass(frozen=True)
class Run:
    """A run over a round: its models, settings and journal. ``may_harden(model_id)`` gives a reason not to, or None.

    With a calibration, probabilities and flags are the learned ones; what was learned with other settings is refused.
    With a rule, the blind verdict is the learned one, else the bounds of :mod:`~trojai_moth.verdict.threshold_rule`.
    ``fleet`` says by whom it is done, which changes no result. ``progress`` is given a :class:`ModelStep` now and then.
    ``check`` is called often and may raise to end the run. ``title``: goes with the name of each model in messages.
    """

    cases: list[ModelFolder | SkippedModel]
    settings: RescanSettings
    journal: Journal
    device: torch.device
    may_harden: Callable[[str], str | None]
    calibration: Calibration | None = None
    rule: LearnedRule | None = None
    fleet: ExecutionSettings = field(default_factory=ExecutionSettings)
    progress: Progress = silent
    check: Callable[[], None] = go_on
    title: str = ""

    @property
    def described(self) -> bool:
        """Whether one of its models is no round's."""
        return any(isinstance(case, ModelFolder) and case.config.described for case in self.cases)

    @cached_property
    def scanner(self) -> Scanner:
        """The scanner with its settings; SettingsError if it is not installed or a setting is wrong."""
        return make_scanner(self.settings.scanner, self.settings.scanner_options, described=self.described)

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

    def note(self, number: int, text: str) -> None:
        """Log what is worth a line about a model, by its place in the run, unless the run is to end."""
        self.check()
        NOTES.info("%s", self._of_model(number, text), extra={"model": self.cases[number].model_id})

    def step(self, number: int, text: str) -> None:
        """Give a sign of life within a stage of a model, by its place in the run, unless the run is to end."""
        self.check()
        self.progress(self._of_model(number, text))

    def _of_model(self, number: int, text: str) -> ModelStep:
        model_id = self.cases[number].model_id
        return ModelStep.of(f"{model_id} {self.title}".rstrip(), number + 1, len(self.cases), text)
