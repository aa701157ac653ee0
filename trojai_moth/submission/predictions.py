"""Probabilities that submissions leave behind, written and read: one small file per model, or a run's results.csv."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from ..core.errors import MothError
from ..core.files import open_text, write_text
from ..core.records import record

DEFAULT: Final = 0.5
"""What the harness puts in place of a result that is missing or not a number."""
# The two are flagged by the harness in these words.
Problem = Literal["missing", "unreadable"]
_WALLTIME: Final = "-walltime.txt"


@record
class Prediction:
    """One model's result: ``value`` as it was given, None where there is none; ``problem`` says why."""

    model_id: str
    value: float | None
    problem: Problem | None = None

    @property
    def used(self) -> float:
        """What is scored."""
        return DEFAULT if self.value is None else self.value


def read_predictions(results: Path, models: Iterable[str]) -> list[Prediction]:
    """One prediction per model, in their order; MothError if ``results`` is neither a folder nor a table of results."""
    if results.is_dir():
        return [_from_file(results / f"{model}.txt", model) for model in models]
    if results.is_file():
        table = _from_table(results)
        return [table.get(model, Prediction(model_id=model, value=None, problem="missing")) for model in models]
    raise MothError(f"{results}: give a folder of id-*.txt files or the results.csv of a run")


def listed_models(results: Path) -> set[str]:
    """Ids of all models that ``results`` says anything of."""
    if results.is_dir():
        found = (path.name for path in results.glob("id-*.txt") if not path.name.endswith(_WALLTIME))
        return {name.removesuffix(".txt") for name in found}
    return set(_from_table(results))


def _from_file(path: Path, model: str) -> Prediction:
    """The first line as one number; whatever follows it is not looked at, as the harness does."""
    if not path.is_file():
        return Prediction(model_id=model, value=None, problem="missing")
    try:
        with open_text(path) as file:
            text = file.readline(1000)
    except (OSError, UnicodeDecodeError):
        return Prediction(model_id=model, value=None, problem="unreadable")
    return _parsed(text, model)


def _parsed(text: str, model: str) -> Prediction:
    try:
        value = float(text.strip())
    except ValueError:
        return Prediction(model_id=model, value=None, problem="unreadable")
    if math.isnan(value):
        return Prediction(model_id=model, value=None, problem="missing")
    return Prediction(model_id=model, value=value)


def _from_table(path: Path) -> dict[str, Prediction]:
    try:
        with open_text(path) as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MothError(f"{path}: cannot be read as CSV text ({error})") from None
    if not {"model", "probability"} <= set(columns):
        raise MothError(f"{path}: needs the columns model and probability, as the results.csv of rescan has them")
    found: dict[str, Prediction] = {}
    for row in rows:
        model, text = (row["model"] or "").strip(), (row["probability"] or "").strip()
        if model in found:
            raise MothError(f"{path}: has two rows for {model}; delete one")
        found[model] = _parsed(text, model) if text else Prediction(model_id=model, value=None, problem="missing")
    return found


PRELIMINARY: Final = 0.5
# The leaderboard's cross-entropy has no bound at 0 and 1.
_EDGE: Final = 1e-6


def write_probability(path: Path, value: float) -> None:
    """Write one probability, held within 0 and 1; OSError if the place cannot be written to.

    In one step where the folder allows a second file, else over the old one.
    """
    text = f"{inside(value)!r}\n"
    with contextlib.suppress(OSError):
        write_text(path, text)
        return
    path.write_text(text, encoding="utf-8")


def inside(value: float) -> float:
    """A probability in (0, 1); 0.5 for what is no number."""
    return PRELIMINARY if math.isnan(value) else min(max(value, _EDGE), 1 - _EDGE)
