"""What a round's checkups come to: counts, architectures, classes, labels and their errata, time for the main job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.channels import COLOURS
from ..core.records import Field, record
from ..rounds.model_check import ModelCheck
from ..runs.estimate import Estimate, Kind

LABEL_WORDS = ("clean", "poisoned", "unknown")


@record
class RoundHealth:
    """The round as a whole; every count is of models."""

    models: int
    usable: int
    broken: int
    architectures: dict[str, int]
    classes: dict[int, int]
    conventions: dict[str, int]
    missing: dict[str, int]
    labels: dict[str, int] = Field(description="clean, poisoned and unknown, as published less the errata")
    errata: dict[str, str]
    same_file: dict[str, str] = Field(description="model -> the earlier one whose file it has")
    accuracy_least: float | None
    accuracy_mean: float | None
    notes: tuple[str, ...] = Field(default=(), description="what there is to say of the round's own files")
    estimate: Estimate | None = None


@dataclass
class Tally:
    """Counts checkups as they come, and keeps none of them."""

    labels: Mapping[str, bool]
    models: int = 0
    usable: int = 0
    architectures: Counter[str] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    conventions: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)
    same_file: dict[str, str] = field(default_factory=dict)
    accuracy_sum: float = 0.0
    accuracy_least: float | None = None
    measured: int = 0

    def add(self, checkup: ModelCheck) -> None:
        """Count one model."""
        self.models += 1
        self.usable += checkup.usable
        self.missing.update(checkup.missing)
        label = self.labels.get(checkup.model_id)
        self.known[LABEL_WORDS[2] if label is None else LABEL_WORDS[label]] += 1
        if checkup.sha256 is not None:
            first = self.files.setdefault(checkup.sha256, checkup.model_id)
            if first != checkup.model_id:
                self.same_file[checkup.model_id] = first
        if checkup.architecture is None or checkup.classes is None or checkup.size is None:
            return
        self.architectures[checkup.architecture] += 1
        self.classes[checkup.classes] += 1
        shape = (checkup.channels or COLOURS, checkup.size, checkup.width or checkup.size)
        self.kinds[checkup.architecture, checkup.classes, shape] += checkup.usable
        if checkup.convention is not None:
            self.conventions[checkup.convention.chosen.words] += 1
        if checkup.accuracy is not None:
            self.measured += 1
            self.accuracy_sum += checkup.accuracy
            least = self.accuracy_least
            self.accuracy_least = checkup.accuracy if least is None else min(least, checkup.accuracy)

    def health(self, errata: Mapping[str, str], notes: tuple[str, ...], estimate: Estimate | None) -> RoundHealth:
        """What was counted."""
        return RoundHealth(
            models=self.models,
            usable=self.usable,
            broken=self.models - self.usable,
            architectures=dict(self.architectures.most_common()),
            classes=dict(sorted(self.classes.items())),
            conventions=dict(self.conventions.most_common()),
            missing=dict(self.missing.most_common()),
            labels={word: self.known[word] for word in LABEL_WORDS},
            errata=dict(errata),
            same_file=self.same_file,
            accuracy_least=self.accuracy_least,
            accuracy_mean=self.accuracy_sum / self.measured if self.measured else None,
            notes=notes,
            estimate=estimate,
        )
