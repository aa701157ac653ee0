"""What a model card says of class distances, as one record: the side file that the card points to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

from ... import __version__
from ...core.records import Field, record
from ...core.subject import width_of
from ...rounds.data_settings import DataSettings
from ...runs.journal import Journal
from ...triggers.distance_records import DistanceMatrix, protocol, stranger
from ..distance_bounds.bounds import ClassBounds, PairBounds
from ..gain import Change, Gain, compare_distances
from ..results import result_rows

FORMAT: Literal["trojai-moth class distances 2"] = "trojai-moth class distances 2"
RISKIEST = 5

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "class_distance_mean": "mean class distance in pixels",
        "class_distance_geometric_mean": "geometric mean class distance in pixels",
        "class_distance_minimum": "smallest class distance in pixels",
        "class_distance_mean_change": "change of the mean class distance by hardening",
        "class_distance_geometric_mean_change": "change of the geometric mean class distance by hardening",
        "class_distance_minimum_change": "change of the smallest class distance by hardening",
        "accuracy_before_hardening": "accuracy before hardening",
        "accuracy_after_hardening": "accuracy after hardening",
        "false_positive_verdict": "verdict after hardening: cleared, kept, clean or not judged",
    }
)
"""Types of the card's evaluation results, in order, and their names."""


@record
class Origin:
    """How the images are made again: what ``distance`` was called with."""

    data: DataSettings
    on: Literal["held", "train"]
    seed: int = Field(ge=0, description="as given on the command line")


@record
class Outcome:
    """What is known beside the distances; accuracies on ``images`` clean images that were not trained on."""

    accuracy_before: float | None = None
    accuracy_after: float | None = None
    images: str = Field(default="", description="which images, in words")
    verdict: str | None = Field(default=None, description="of a rescan; None where there was none")
    reason: str = ""


@record
class CardRecord:
    """class_distances.json."""

    format: Literal["trojai-moth class distances 2"] = FORMAT
    version: str = __version__
    model_id: str
    labels: tuple[str, ...] = Field(description="names of the classes, else numbers, in the order of rows and columns")
    before: DistanceMatrix
    after: DistanceMatrix | None
    gain: Gain | None
    bounds: ClassBounds
    outcome: Outcome
    origin: Origin
    size: int = Field(gt=0, description="height of the model's input in pixels")
    width: int | None = Field(default=None, gt=0, description="of the model's input; None: it is square")

    def __post_init__(self) -> None:
        """ValueError for parts that are damaged, or of different numbers of classes."""
        classes = self.before.classes
        parts = (len(self.labels), self.bounds.classes, self.last.classes)
        pairs = ((pair.victim, pair.target) for pair in self.bounds.pairs)
        damage = self.before.damage or self.last.damage or stranger(pairs, classes)
        if damage or any(others != classes for others in parts):
            raise ValueError(damage or f"distances of {classes} classes, other parts of {parts}")

    @property
    def area(self) -> int:
        """Pixels of the model's input."""
        return self.size * (self.width or self.size)

    @property
    def last(self) -> DistanceMatrix:
        """The distances of the model as it is published: after hardening, if it was hardened."""
        return self.before if self.after is None else self.after

    @property
    def riskiest(self) -> tuple[PairBounds, ...]:
        """The pairs with the smallest distances."""
        return tuple(pair for pair in self.bounds.pairs if pair.last is not None)[:RISKIEST]

    def scalars(self) -> dict[str, float | str]:
        """The evaluation results by type, without those that are not known."""
        values: dict[str, Any] = {
            "class_distance_mean": self.last.mean,
            "class_distance_geometric_mean": self.last.geometric_mean,
            "class_distance_minimum": self.last.minimum,
            **{name: change.change for name, change in self._changes.items()},
            "accuracy_before_hardening": self.outcome.accuracy_before,
            "accuracy_after_hardening": self.outcome.accuracy_after,
            "false_positive_verdict": self.outcome.verdict,
        }
        known = {name: values[name] for name in METRICS if values.get(name) is not None}
        return {name: value if isinstance(value, str) else round(float(value), 4) for name, value in known.items()}

    def conditions(self, metric: str) -> dict[str, object] | None:
        """What a result about distances was measured with, and a change's interval; None for other results."""
        if not metric.startswith("class_distance"):
            return None
        settings = protocol(self.last.settings)
        kept = ("images_per_class", "steps", "success_bound", "seeds")
        found: dict[str, object] = {"norm": "L1 of the mask in pixels", **{name: settings[name] for name in kept}}
        change = self._changes.get(metric)
        if change and change.low is not None and change.high is not None:
            found["interval_95"] = [round(change.low, 4), round(change.high, 4)]
        return found

    @property
    def _changes(self) -> dict[str, Change]:
        """What hardening changed, by the evaluation result's type."""
        types = {
            "mean": "class_distance_mean_change",
            "geometric mean": "class_distance_geometric_mean_change",
            "smallest": "class_distance_minimum_change",
        }
        return {types[name]: change for name, change in (self.gain.changes if self.gain else ())}


def make_record(
    before: DistanceMatrix,
    after: DistanceMatrix | None,
    bounds: ClassBounds,
    outcome: Outcome,
    origin: Origin,
    shape: tuple[int, int],
    labels: Sequence[str] | None = None,
) -> CardRecord:
    """Put it together; SettingsError when before and after cannot be compared.

    shape: (H, W) of the input. labels: of the classes, if known.
    """
    return CardRecord(
        model_id=before.model_id,
        labels=tuple(labels or map(str, range(before.classes))),
        before=before,
        after=after,
        gain=compare_distances(before, after).gain if after else None,
        bounds=bounds,
        outcome=outcome,
        origin=origin,
        size=shape[0],
        width=width_of(shape),
    )


def run_outcome(run_dir: Path, model_id: str) -> Outcome | None:
    """What a rescan says of one of its models; None when it has no such model."""
    journal = Journal(run_dir)
    if not journal.started or model_id not in journal.identity().models:
        return None
    rows = result_rows(journal, {})
    row = rows[rows["model"] == model_id].to_dict("records")[0]
    accuracies = {name: row[name] for name in ("accuracy_before", "accuracy_after") if pd.notna(row[name])}
    verdict, reason = str(row["verdict"]), str(row["reason"])
    return Outcome(images="images that the rescan held back", verdict=verdict, reason=reason, **accuracies)
