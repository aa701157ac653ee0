"""What was learned about a scanner's scores on labelled models, and verdicts made with it.

A scanner's score says how suspicious a model is, not how likely it is to be poisoned, and its bound is somebody's
choice. A calibration holds a curve from score to probability and a threshold on the score, learned by ``trojai-moth
calibrate`` for one scanner with one group of settings and one kind of images; with anything else it is refused.

The probability holds for rounds in which as large a share of the models is poisoned as among those learned from, and
for models as they come: what hardening does to scores is not learned here.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..core.errors import SettingsError
from ..core.learned_file import read_learned, refuse_other
from ..core.records import Field, fingerprint, record, to_dict
from ..core.statistics import PROBABILITY_FLOOR, logistic
from ..rounds.data_settings import DataSettings
from .base import Scanner
from .registry import split_names
from .result import Calibrated, ScanResult

Method = Literal["logistic", "monotone"]


@record
class LogisticCurve:
    """Probability = 1 / (1 + exp(-(slope * score + intercept))) (Platt, 1999)."""

    kind: Literal["logistic"] = "logistic"
    slope: float = Field(ge=0, description="per unit of the scanner's score; never below 0", allow_inf_nan=False)
    intercept: float = Field(description="log odds at score 0", allow_inf_nan=False)

    def probability(self, score: float) -> float:
        """P(poisoned) of a score, in [0.02, 0.98]."""
        return logistic(self.slope * score + self.intercept)


@record
class MonotoneCurve:
    """Straight lines between knots, level outside of them (isotonic regression)."""

    kind: Literal["monotone"] = "monotone"
    scores: tuple[float, ...] = Field(min_length=1, description="knots, rising")
    probabilities: tuple[float, ...] = Field(min_length=1, description="P(poisoned) at the knots, never falling")

    def __post_init__(self) -> None:
        """ValueError for knots that make no curve."""
        rising = all(a < b for a, b in zip(self.scores, self.scores[1:], strict=False))
        monotone = all(a <= b for a, b in zip(self.probabilities, self.probabilities[1:], strict=False))
        finite = all(math.isfinite(value) for value in (*self.scores, *self.probabilities))
        if len(self.scores) != len(self.probabilities) or not (rising and monotone and finite):
            raise ValueError("knots must be finite, as many as probabilities, with rising scores")

    def probability(self, score: float) -> float:
        """P(poisoned) of a score, in [0.02, 0.98]."""
        value = float(np.interp(score, self.scores, self.probabilities))
        return min(max(value, PROBABILITY_FLOOR), 1 - PROBABILITY_FLOOR)


@record
class FittedModel:
    """One model that was learned from; scores, one per seed, are the scanner's own."""

    model_id: str
    sha256: str
    group: str = Field(description="twins share a group, and a group is never split between folds")
    poisoned: bool
    fold: int = Field(ge=0, description="the fold in which it was tested")
    scores: tuple[float, ...]


@record
class LeftOut:
    """A labelled or listed model that nothing was learned from, and why; it counts neither as clean nor as poisoned."""

    model_id: str
    reason: str


@record
class Provenance:
    """What a calibration was learned from. It holds no date, so that the same work gives the same file."""

    round: str = Field(description="name of the round's folder")
    seeds: tuple[int, ...] = Field(min_length=1, description="every model was scanned once with each")
    clean: int = Field(ge=1, description="clean models learned from")
    poisoned: int = Field(ge=1, description="poisoned models learned from")
    folds: int = Field(ge=2, description="parts of the cross-fit")
    split_sha256: str = Field(description="of model files, labels and folds")
    versions: dict[str, str]
    models: tuple[FittedModel, ...]
    left_out: tuple[LeftOut, ...]


@record
class Estimate:
    """A value with its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@record
class Quality:
    """How good probabilities, scores and flags are."""

    cross_entropy: Estimate = Field(description="of all scans' probabilities, lower is better; knowing nothing: 0.693")
    brier: Estimate = Field(description="mean squared error of all scans' probabilities, lower is better")
    roc_auc: Estimate = Field(description="of the scanner: by score; learned: by probability out of fold")
    true_positive_rate: Estimate = Field(description="flagged of the poisoned, scans with the first seed")
    false_positive_rate: Estimate = Field(description="flagged of the clean, scans with the first seed")
    balanced_accuracy: float = Field(description="mean of true positive and true negative rate")
    same_verdict: Estimate = Field(description="share of models with the same verdict for all seeds")


@record
class CalibrationMetrics:
    """The scanner as it is beside what was learned, always tested on folds that were not learned from."""

    scanner: Quality
    learned: Quality
    cross_entropy_change: Estimate = Field(description="learned minus scanner, on the same models")
    score_deviation: float | None = Field(description="of one model's score over seeds; None with one seed")


@record
class Calibration:
    """Everything learned, in one file."""

    option: ClassVar[str] = "--calibration"
    again: ClassVar[str] = "calibrate anew"
    form: ClassVar[int] = 1
    format: Literal[1] = 1
    scanner: str = Field(description="name, or names with commas between them")
    scanner_settings: dict[str, Any]
    settings_sha256: str = Field(description="of the scanner's name and settings")
    data: DataSettings
    method: Method
    curve: LogisticCurve | MonotoneCurve = Field(discriminator="kind")
    threshold: float = Field(description="flagged when the scanner's score is above it", allow_inf_nan=False)
    max_false_positive_rate: float | None = Field(description="what the threshold was asked to keep to, if anything")
    false_positive_bound: float | None = Field(description="what it keeps to, for models like those learned from")
    metrics: CalibrationMetrics
    provenance: Provenance

    def judge(self, verdict: ScanResult, sha256: str) -> ScanResult:
        """The scanner's verdict with the learned probability and flag; sha256 of the model's file.

        The score is moved by the threshold, so that it is above 0 exactly when the model is flagged. What was not
        judged stays so, and one of several scanners that could not judge never makes a clean model.
        """
        raw = verdict.score
        if verdict.flagged is None or raw is None:
            return verdict
        score = raw - self.threshold
        judged = score > 0 or not verdict.incomplete
        return dataclasses.replace(
            verdict,
            outcome="flagged" if score > 0 else "clean" if judged else "not judged",
            score=score if judged else None,
            probability=self.curve.probability(raw) if judged else None,
            member_scores={name: own - self.threshold for name, own in verdict.member_scores.items()},
            reason=f"{verdict.reason}; score {raw:.2f}, learned threshold {self.threshold:.2f}",
            calibrated=Calibrated(
                sha256=fingerprint(self),
                raw_score=raw,
                raw_probability=verdict.probability,
                fitted_on=sha256 in self.fitted_files,
            ),
        )

    @property
    def fitted_files(self) -> frozenset[str]:
        """SHA-256 of the files of all models learned from."""
        return frozenset(model.sha256 for model in self.provenance.models)

    def check(self, name: str, scanner: Scanner, data: DataSettings) -> None:
        """SettingsError when a run's scanner, its settings or its images are not those that were learned with."""
        used = {"--scanner": ",".join(split_names(name)), **_flat("scanner", to_dict(scanner.settings))}
        learned = {"--scanner": self.scanner, **_flat("scanner", self.scanner_settings)}
        used |= _flat("data", to_dict(data))
        learned |= _flat("data", to_dict(self.data))
        refuse_other(self, learned, used)


def read_calibration(path: Path) -> Calibration:
    """Read what ``trojai-moth calibrate`` wrote; SettingsError for another format or settings changed by hand."""
    made = read_learned(Calibration, path)
    if made.settings_sha256 != settings_fingerprint(made.scanner, made.scanner_settings):
        raise SettingsError(f"{made.option} {path}: its settings do not match their hash; {made.again}")
    return made


def settings_fingerprint(scanner: str, settings: dict[str, Any]) -> str:
    """SHA-256 of a scanner's name and settings."""
    return fingerprint({"scanner": scanner, "settings": settings})


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {name: part for key, item in value.items() for name, part in _flat(f"{prefix}.{key}", item).items()}
