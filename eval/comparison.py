"""Hardening methods side by side on one model: what was measured of each, and the table that is made of it.

The table is the paper's (MOTH, Tables II and III): accuracy, robustness, class distance, and what was gained and lost.
Everything here is a function of records; eval/contest.py makes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..core.files import write_atomically
from ..core.records import LARGEST_SEED, Field, record, to_dict
from ..hardeners import Part
from ..rounds.data_settings import DataSettings
from ..synthesis.settings import PgdSettings
from ..triggers.distance_records import CHANNELS, FAST, DistanceSettings, unconverged
from ..triggers.trigger import Pair
from .gain import Change, gains

Distances = tuple[tuple[float | None, ...], ...]
_CHANGES = ("mean", "geometric", "smallest")


ORIGINAL = "original"
ABLATION: tuple[str, ...] = get_args(Part)
"""The four parts of MOTH whose worth the paper's Table III shows, by leaving out one at a time."""


# Less even than `distance --fast`, since every row is measured; it ranks rows of one table, and no more.
FAST_METER = DistanceSettings(**{**FAST, "images_per_class": 20})


@record
class JudgeSettings:
    """On how many images and pairs every row is judged."""

    fresh_per_class: int = Field(
        default=50,
        gt=0,
        le=100_000,
        description="new images per class that no method ever saw; with --data composed only",
    )
    robustness_per_class: int = Field(
        default=20, gt=0, le=100_000, description="images per class that are attacked at most"
    )
    pairs: int = Field(
        default=30,
        gt=0,
        le=1_000_000,
        description="directed pairs whose distance is measured at most, chosen at random by the seed",
    )


@record
class ComparisonSettings:
    """Everything that decides a row's figures, apart from its method and the device."""

    data: DataSettings = Field(default_factory=DataSettings)
    judge: JudgeSettings = Field(default_factory=JudgeSettings)
    distance: DistanceSettings = FAST_METER
    robustness: PgdSettings = Field(default_factory=PgdSettings)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="images, starts and methods derive theirs from it")


@record
class Method:
    """A hardener, with those of its parts that are left out."""

    hardener: str
    without: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What the table calls it.

        >>> Method(hardener="moth", without=("warmup",)).label
        'moth without warmup'
        """
        return f"{self.hardener} without {', '.join(self.without)}" if self.without else self.hardener

    @property
    def slug(self) -> str:
        """The label as part of a file's name."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", self.label)


def methods_of(names: Sequence[str], ablation: bool) -> tuple[Method, ...]:
    """Every name once, in order; then, if asked for, MOTH without each of its four parts.

    >>> [method.label for method in methods_of(["moth", "pgd", "moth"], False)]
    ['moth', 'pgd']
    """
    found = tuple(Method(hardener=name) for name in dict.fromkeys(names))
    return found + tuple(Method(hardener="moth", without=(part,)) for part in ABLATION if ablation)


@record
class Judgement:
    """One subject's figures; distances[victim][target] in pixels, None for pairs that are censored or not measured."""

    accuracy: float
    robustness: float
    attack_success: float | None
    distances: Distances
    seconds: float


@record
class Entry:
    """One method's outcome as it is saved: its settings, its trace in short, and the judgement or why there is none."""

    method: str
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: float | None = None
    stopped: str = ""
    judgement: Judgement | None = None
    failure: str | None = None


@record
class Row:
    """One line of the table; None where a figure is unknown or does not apply.

    mean, geometric, smallest: what became of the original's distances, over the pairs that have one in both.
    """

    method: str
    accuracy: float | None = None
    robustness: float | None = None
    minutes: float | None = None
    distance_pixels: float | None = None
    distance_l1: float | None = None
    pairs: int | None = None
    pairs_tried: int | None = None
    mean: Change | None = None
    geometric: Change | None = None
    smallest: Change | None = None
    shrunk: int | None = None
    accuracy_loss: float | None = None
    attack_before: float | None = None
    attack_after: float | None = None
    injected_before_pixels: float | None = None
    injected_after_pixels: float | None = None
    stopped: str = ""
    failure: str | None = None


@record
class Comparison:
    """A whole comparison: what was compared, on what and how, every method's outcome and the table.

    ``pairs`` are the directed (victim, target) pairs that changes cover; ``injected`` are those of the model's
    triggers, which are measured besides.
    """

    model_id: str
    architecture: str
    classes: int
    source_sha256: str
    version: str
    device: str
    data: str
    judged: str
    poisoned_examples: int
    pairs: tuple[Pair, ...]
    injected: tuple[Pair, ...]
    settings: ComparisonSettings
    entries: tuple[Entry, ...]
    table: tuple[Row, ...]


def make_table(entries: Sequence[Entry], pairs: Sequence[Pair], injected: Sequence[Pair] = ()) -> tuple[Row, ...]:
    """A row per entry; the first one is the original, to which all others are compared over ``pairs``."""
    original = entries[0].judgement if entries else None
    if original is None:
        raise ValueError("a comparison starts with the original's judgement")
    return tuple(_row(entry, original, pairs, injected) for entry in entries)


def _row(entry: Entry, original: Judgement, pairs: Sequence[Pair], injected: Sequence[Pair]) -> Row:
    judged = entry.judgement
    minutes = None if entry.seconds is None else entry.seconds / 60
    if judged is None:
        return Row(method=entry.method, minutes=minutes, stopped=entry.stopped, failure=entry.failure)
    found = gains(original.distances, judged.distances, pairs=pairs)
    pixels = found.mean.after if found.mean else None
    row: dict[str, Any] = {
        "method": entry.method,
        "accuracy": judged.accuracy,
        "robustness": judged.robustness,
        "minutes": minutes,
        "distance_pixels": pixels,
        "distance_l1": None if pixels is None else CHANNELS * pixels,
        "pairs": found.pairs,
        "pairs_tried": len(pairs),
        "attack_before": original.attack_success,
        "injected_before_pixels": _smallest(original.distances, injected),
        "stopped": entry.stopped,
    }
    if judged is original:
        return Row(**row)
    return Row(
        **row,
        mean=found.mean,
        geometric=found.geometric,
        smallest=found.smallest,
        shrunk=found.shrunk,
        accuracy_loss=original.accuracy - judged.accuracy,
        attack_after=judged.attack_success,
        injected_after_pixels=_smallest(judged.distances, injected),
    )


def _smallest(distances: Distances, pairs: Sequence[Pair]) -> float | None:
    """The smallest size of these pairs, None where none has one."""
    sizes = [distances[victim][target] for victim, target in pairs]
    return min((size for size in sizes if size is not None), default=None)


def to_frame(table: Sequence[Row]) -> pd.DataFrame:
    """The table with a column per field of a row, five for each change, for a CSV file."""
    five = [field.name for field in fields(Change)]
    columns = [
        name
        for field in fields(Row)
        for name in ([f"{field.name}_{part}" for part in five] if field.name in _CHANGES else [field.name])
    ]
    frame = pd.DataFrame([_flat(row) for row in table], columns=columns)
    return frame.astype({"pairs": "Int64", "pairs_tried": "Int64", "shrunk": "Int64"})


def _flat(row: Row) -> dict[str, Any]:
    values = to_dict(row)
    for name in _CHANGES:
        values |= {f"{name}_{part}": value for part, value in (values.pop(name) or {}).items()}
    return values


def legend(comparison: Comparison) -> str:
    """How to read the table: on what, how roughly, and what is left out."""
    settings = comparison.settings
    meter, attack = settings.distance, settings.robustness
    lines = [
        f"accuracy, px, L1: on {comparison.judged}.",
        f"robust: still right under PGD with {attack.steps} steps within {255 * attack.epsilon:.3g}/255, at most "
        f"{settings.judge.robustness_per_class} images of each class.",
        "minutes: hardening alone, without measuring. loss: of accuracy, in percentage points.",
        f"px: mean size of the smallest trigger found, in pixels, over those of {len(comparison.pairs)} class pairs "
        f"that have one both in the original and in this row; L1: as the paper counts, {CHANNELS} times that. At most "
        f"{meter.images_per_class} images, {meter.steps} steps, {len(meter.seeds)} seed(s) a pair. "
        f"{_roughness(meter)}",
        "mean, geo., smallest: how much the arithmetic mean of these sizes (the paper's figure), their geometric mean "
        "and the smallest of them changed, with 95 % intervals over pairs.",
    ]
    if comparison.poisoned_examples:
        lines.append(
            f"attack: share of {comparison.poisoned_examples} poisoned example images that get their trigger's target, "
            "before and after; no method saw them. injected: smallest trigger found for the injected pair, in "
            "pixels."
        )
    return "\n".join(lines)


def _roughness(meter: DistanceSettings) -> str:
    usual, rough = DistanceSettings(), unconverged(meter)
    fewer = meter.images_per_class < usual.images_per_class or len(meter.seeds) < len(usual.seeds)
    if not fewer and rough is None:
        return "That is the paper's protocol."
    words = "That is rougher than the paper's protocol: compare rows with each other, not with published figures."
    return f"{words} {rough.capitalize()}." if rough else words


# Colours that stay apart for the colour-blind.
_GAIN, _MINUTES, _LOSS, _QUIET = "#0072b2", "#e69f00", "#cc79a7", "#555555"


def write_chart(comparison: Comparison, path: Path) -> None:
    """Write a PNG with a bar per method: change of the mean distance and its interval, minutes, accuracy lost.

    Beside the bar stand the changes of the mean, of the geometric mean and of the smallest distance.
    """
    rows = [row for row in comparison.table[1:] if row.failure is None]
    figure = Figure(figsize=(11, 1.6 + 0.42 * max(len(rows), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    gain, minutes, loss = figure.subplots(1, 3, sharey=True, width_ratios=(6, 3, 3))
    changes = [100 * row.mean.change if row.mean else 0.0 for row in rows]
    _bars(gain, changes, _GAIN, "change of the mean distance (%)\nin words: mean; geometric mean; smallest")
    _bars(minutes, [row.minutes or 0 for row in rows], _MINUTES, "minutes of hardening")
    _bars(loss, [100 * (row.accuracy_loss or 0) for row in rows], _LOSS, "accuracy lost (points)")
    for place, row in enumerate(rows):
        _gain_text(gain, place, row)
    for axes, form in ((minutes, "%.1f"), (loss, "%.2f")):
        axes.bar_label(axes.containers[0], fmt=form, padding=3, fontsize=8, color=_QUIET)  # type: ignore[arg-type]
    gain.set_yticks(range(len(rows)), [row.method for row in rows])
    gain.invert_yaxis()
    figure.suptitle(f"{comparison.model_id} ({comparison.architecture}, {comparison.classes} classes)")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))


def _bars(axes: Axes, values: list[float], colour: str, label: str) -> None:
    axes.barh(range(len(values)), values, color=colour, height=0.6)
    axes.axvline(0, color=_QUIET, linewidth=0.8)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.25)


def _gain_text(axes: Axes, place: int, row: Row) -> None:
    """The interval as a line over the bar, and the figure beyond whatever reaches furthest right."""
    if row.mean is None or row.geometric is None or row.smallest is None:
        axes.text(0, place, " no pair measured", va="center", fontsize=8, color=_QUIET)
        return
    low, high = (row.mean.change if end is None else end for end in (row.mean.low, row.mean.high))
    axes.plot([100 * low, 100 * high], [place, place], color="black", linewidth=1.2)
    words = "; ".join(f"{change.change:+.0%}" for change in (row.mean, row.geometric, row.smallest))
    axes.text(100 * max(high, 0), place, f" {words}", va="center", fontsize=8, color=_QUIET)
