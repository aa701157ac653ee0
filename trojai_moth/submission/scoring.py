"""Scores as the leaderboard computes them, missing results included."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, roc_auc_score

from ..core.errors import MothError
from ..core.records import Field, record
from ..eval.metrics import Z_BY_LEVEL, cross_entropy, cross_entropy_half_width
from .predictions import Prediction

Floats = NDArray[np.float64]
THRESHOLD_STEP: Final = 0.01
CONFUSION_HEADER: Final = "Threshold, TP, FP, FN, TN, TPR, FPR"


@record
class Score:
    """What the leaderboard would show. ``flags`` are the harness's own words for what was wrong with the results."""

    models: int = Field(ge=1)
    poisoned: int = Field(ge=0)
    level: int = Field(description="of the interval, in percent")
    cross_entropy: float = Field(description="lower is better; knowing nothing costs 0.693")
    half_width: float = Field(description="of the interval around the cross-entropy")
    brier: float = Field(description="mean squared error; lower is better, though the harness ranks it the other way")
    roc_auc: float | None = Field(description="None where one label is absent")
    roc_auc_sweep: float | None = Field(description="area under the confusion table's 101 points, as until round 4")
    missing: tuple[str, ...] = Field(description="no result, or nan: scored as 0.5")
    unreadable: tuple[str, ...] = Field(description="the result is not a number: scored as 0.5")
    outside: tuple[str, ...] = Field(description="not in [0, 1]; only the cross-entropy clips")
    extra: tuple[str, ...] = Field(default=(), description="results of models that have no label; not scored")
    flags: str


def score(
    predictions: Sequence[Prediction], labels: Mapping[str, bool], *, level: int = 95, extra: Sequence[str] = ()
) -> Score:
    """Score results against the truth; ``level``: 90, 95, 98 or 99. MothError without models or for other levels."""
    if not predictions:
        raise MothError("score: the round has no labels; give one with METADATA.csv or ground_truth.csv files")
    if level / 100 not in Z_BY_LEVEL:
        raise MothError(f"--level {level}: the leaderboard has 90, 95, 98 and 99")
    p, y = arrays(predictions, labels)
    clipped = np.clip(p, 0, 1)
    rates = sweep(p, y)
    return Score(
        models=len(p),
        poisoned=int(y.sum()),
        level=level,
        cross_entropy=cross_entropy(clipped, y),
        half_width=cross_entropy_half_width(clipped, y, level=level / 100),
        brier=float(np.mean(np.square(p - y))),
        roc_auc=float(roc_auc_score(y, p)) if 0 < y.sum() < len(y) and np.isfinite(p).all() else None,
        roc_auc_sweep=float(auc(rates[:, 5], rates[:, 4])) if 0 < y.sum() < len(y) else None,
        missing=tuple(found.model_id for found in predictions if found.problem == "missing"),
        unreadable=tuple(found.model_id for found in predictions if found.problem == "unreadable"),
        outside=tuple(found.model_id for found in predictions if not 0 <= found.used <= 1),
        extra=tuple(extra),
        flags=_flags(predictions),
    )


def _flags(predictions: Sequence[Prediction]) -> str:
    """In the harness's order; its code today takes a file that is missing for one that cannot be parsed."""
    problem = any(found.problem for found in predictions)
    none = not any(found.value is not None and math.isfinite(found.value) for found in predictions)
    words = ((":Result Parse:", problem), (":No Results:", none), (":Missing Results:", problem))
    return "".join(word for word, said in words if said)


def arrays(predictions: Sequence[Prediction], labels: Mapping[str, bool]) -> tuple[Floats, Floats]:
    """Probabilities and labels (N,) of the same models, as they are scored."""
    p = np.array([found.used for found in predictions], dtype=np.float64)
    return p, np.array([float(labels[found.model_id]) for found in predictions])


def sweep(p: Floats, y: Floats) -> Floats:
    """(101, 6): TP, FP, FN, TN, TPR and FPR where p >= threshold is called poisoned; a rate of nothing is nan."""
    bad, good = y == 1, y == 0
    rows = []
    for threshold in thresholds():
        called = p >= threshold
        counts = [(called & bad).sum(), (called & good).sum(), (~called & bad).sum(), (~called & good).sum()]
        rates = [found / of.sum() if of.any() else np.nan for found, of in ((counts[0], bad), (counts[1], good))]
        rows.append([*counts, *rates])
    return np.array(rows, dtype=np.float64)


def thresholds() -> Floats:
    """0 to 1 in steps of 0.01, with the rounding errors of the harness, such as 0.35000000000000003."""
    return np.arange(0.0, 1.0 + THRESHOLD_STEP, THRESHOLD_STEP)


def confusion_csv(p: Floats, y: Floats) -> str:
    """The table that the harness writes beside its plots, byte for byte."""
    lines = [CONFUSION_HEADER]
    for threshold, row in zip(thresholds().tolist(), sweep(p, y).tolist(), strict=True):
        counts = [str(int(count)) for count in row[:4]]
        lines.append(", ".join([str(threshold), *counts, *(str(rate) for rate in row[4:])]))
    return "\n".join(lines) + "\n"
