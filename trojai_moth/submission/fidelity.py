"""Mitigation fidelity: how much of the attack is gone, times how much of the accuracy is left.

The harness's own code reads the accuracy on clean images where the formula has the attack success before mitigation,
and that on poisoned images where it has the accuracy. ``nist`` repeats that, since it is what the leaderboard shows;
``corrected`` is the formula with its own names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..core.errors import MothError, SettingsError
from ..core.records import Field, read_json, record
from ..rounds.metadata import MODEL_NAME, metadata_file, read_metadata

LABELS_FILE: Final = "test-example-labels.json"
CLEAN_BEFORE: Final = "average_clean_test_example_accuracy"
POISONED_BEFORE: Final = "average_poisoned_test_example_accuracy"
# file name -> {"clean": class, "poisoned": target or None}, as the harness holds it
Labels = Mapping[str, Mapping[str, int | None]]


@record
class ModelFidelity:
    """One model: ``accuracy`` on clean labels and ``attack_success`` after mitigation, None without results."""

    model_id: str
    poisoned: bool
    accuracy: float | None
    attack_success: float | None
    nist: float | None
    corrected: float | None
    problem: str | None = None


@record
class FidelityScore:
    """Means over all models; one without results counts as 0 in both and is flagged."""

    models: tuple[ModelFidelity, ...]
    nist: float = Field(description="as the harness computes it, with two columns exchanged")
    corrected: float = Field(description="by the formula")
    missing: tuple[str, ...]


def score_fidelity(results: Path, truth: Path, poisoned: Mapping[str, bool]) -> FidelityScore:
    """Score a folder of MODEL.json files, each {file name: [logits]}, against METADATA.csv and the test labels.

    Labels of a model are in ``MODEL/test-example-labels.json``: {file name: {"clean": 3, "poisoned": 5 or null}}.
    """
    if not poisoned:
        raise MothError(f"{truth}: has no labels of which models are poisoned; give a round with METADATA.csv")
    before = _accuracies_before(metadata_file(truth))
    models = [_model(model, poisoned[model], results, truth, before) for model in sorted(poisoned)]
    return FidelityScore(
        models=tuple(models),
        nist=sum(model.nist or 0.0 for model in models) / len(models),
        corrected=sum(model.corrected or 0.0 for model in models) / len(models),
        missing=tuple(model.model_id for model in models if model.problem),
    )


def fidelity(attack_before: float, attack: float, accuracy_before: float, accuracy: float) -> float | None:
    """(before - after) / before of the attack, times after / before of the accuracy; None where either was 0 before.

    >>> fidelity(1.0, 0.25, 0.8, 0.8)
    0.75
    """
    if attack_before == 0 or accuracy_before == 0:
        return None
    return (attack_before - attack) / attack_before * (accuracy / accuracy_before)


def hit_rate(logits: Mapping[str, Sequence[float]], labels: Labels, kind: str) -> float:
    """Share of images whose largest logit is at the label of this kind; 0 if none counts.

    Images without logits, with a logit that is no finite number, or without such a label do not count.
    """
    hits, total = 0, 0
    for name, label in labels.items():
        row, goal = logits.get(name), label.get(kind)
        if row is None or goal is None or not all(math.isfinite(value) for value in row):
            continue
        hits, total = hits + (row.index(max(row)) == goal), total + 1
    return hits / total if total else 0.0


def _model(
    model: str, poisoned: bool, results: Path, truth: Path, before: Mapping[str, tuple[float, float]]
) -> ModelFidelity:
    path = results / f"{model}.json"
    known: dict[str, Any] = {"model_id": model, "poisoned": poisoned}
    if model not in before:
        raise MothError(f"{metadata_file(truth)}: no {CLEAN_BEFORE} and {POISONED_BEFORE} of {model}")
    empty: dict[str, Any] = dict.fromkeys(("accuracy", "attack_success", "nist", "corrected"))
    if not path.is_file():
        return ModelFidelity(**known, **empty, problem="no results")
    labels, logits = _labels(truth / model / LABELS_FILE), _logits(path)
    if logits is None:
        return ModelFidelity(**known, **empty, problem="results are not {file name: [logits]}")
    accuracy, attack = hit_rate(logits, labels, "clean"), hit_rate(logits, labels, "poisoned")
    clean, triggered = before[model]
    if not poisoned:
        kept = accuracy / clean if clean else None
        return ModelFidelity(**known, accuracy=accuracy, attack_success=None, nist=kept, corrected=kept)
    return ModelFidelity(
        **known,
        accuracy=accuracy,
        attack_success=attack,
        nist=fidelity(clean, attack, triggered, accuracy),
        corrected=fidelity(triggered, attack, clean, accuracy),
    )


def _logits(path: Path) -> dict[str, list[float]] | None:
    try:
        data = read_json(path)
        return {name: [float(value) for value in row] for name, row in data.items() if row}
    except (OSError, SettingsError, ValueError, AttributeError, TypeError):
        return None


def _labels(path: Path) -> Labels:
    try:
        data = read_json(path)
        return {name: {"clean": label["clean"], "poisoned": label["poisoned"]} for name, label in data.items()}
    except (OSError, SettingsError, AttributeError, TypeError, KeyError) as error:
        raise MothError(
            f'{path}: needs {{file name: {{"clean": class, "poisoned": target or null}}}} ({error})'
        ) from None


def _accuracies_before(path: Path) -> dict[str, tuple[float, float]]:
    try:
        rows = read_metadata(path, CLEAN_BEFORE, POISONED_BEFORE).to_dict("records")
        return {row[MODEL_NAME]: (_number(row[CLEAN_BEFORE]), _number(row[POISONED_BEFORE])) for row in rows}
    except (ValueError, KeyError) as error:
        raise MothError(
            f"{path}: fidelity needs numbers in the columns {CLEAN_BEFORE} and {POISONED_BEFORE} ({error})"
        ) from None


def _number(text: str) -> float:
    """A clean model has no accuracy on poisoned images, and its cell is empty."""
    return float(text) if text else 0.0
