"""Finished blind runs as the models that the protocol's rows count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.errors import MothError
from ..hardeners.trace import HardeningTrace
from ..rounds.metadata import MODEL_NAME, metadata_file, read_metadata
from ..runs.journal import Journal, ScanRecord
from ..verdict.records import Verdict
from .calibration.blind_runs import LabelledModel, read_blind_run
from .protocol_rows import ScoredModel


def read_scored(run_dir: Path, round_dir: Path) -> tuple[list[ScoredModel], list[str]]:
    """The flagged models of a run with blind verdicts, and the ids of those its rule was learned from, left out.

    MothError when the run has no blind verdicts, or as :func:`~.blind_runs.open_blind_run` says.
    """
    journal = Journal(run_dir)
    conditions = read_conditions(round_dir)
    scored, fitted = [], []
    for model in read_blind_run(run_dir, round_dir):
        verdict = journal.read(model.model_id, "blind", Verdict)
        if verdict is None:
            continue
        if verdict.fitted_on:
            fitted.append(model.model_id)
        else:
            known = {"architecture": model.architecture, **conditions.get(model.model_id, {})}
            scored.append(_scored(journal, model, verdict, known))
    if not scored and not fitted:
        raise MothError(f"{run_dir}: no blind verdicts of labelled models; make it with rescan --verdict blind")
    return scored, fitted


def _scored(journal: Journal, model: LabelledModel, verdict: Verdict, conditions: dict[str, str]) -> ScoredModel:
    after = journal.read(model.model_id, "after", ScanRecord)
    before = journal.read(model.model_id, "before", ScanRecord)
    trace = journal.read(model.model_id, "harden", HardeningTrace)
    parts = (before, trace, after, model.evidence)
    pairs = model.evidence.candidates
    return ScoredModel(
        model_id=model.model_id,
        twin_group=model.twin_group,
        poisoned=model.poisoned,
        cleared_naive=None if after is None else after.verdict.flagged is False,
        cleared_blind=verdict.cleared,
        probability=verdict.probability,
        size=min(_known([pair.size for pair in pairs]), default=None),
        held_success=max(_known([pair.held_success for pair in pairs]), default=None),
        right_pair=bool(model.right_pairs),
        censored=model.evidence.censored,
        seconds=sum(part.seconds for part in parts if part),
        conditions=conditions,
    )


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


# Column -> name in a table.
_COLUMNS = {"number_example_images": "images per class", "cnn_img_size_pixels": "pixels", "number_classes": "classes"}
_TYPE, _CONDITION, _GROUP, _LOOKALIKES = "triggers_0_type", "triggers_0_condition", "twin_group", "lookalike_pairs"


def read_conditions(round_dir: Path) -> dict[str, dict[str, str]]:
    """Model id -> name of a condition -> its value; {} without METADATA.csv. MothError when it cannot be read.

    A clean model has no trigger; it stands under the trigger condition of its poisoned twin, so that both are counted
    in one row.
    """
    table = read_metadata(metadata_file(round_dir), *_COLUMNS, _TYPE, _CONDITION, _GROUP, _LOOKALIKES)
    rows = [{column: text for column, text in row.items() if text != "None"} for row in table.to_dict("records")]
    by_group = {_group(row): row.get(_CONDITION) or "none" for row in rows if row.get(_TYPE)}
    found = {}
    for row in rows:
        known = {name: row[column] for column, name in _COLUMNS.items() if row.get(column)}
        if _group(row) in by_group:
            known["trigger condition"] = by_group[_group(row)]
        if _LOOKALIKES in table:
            known["look-alike pairs"] = str(len(row.get(_LOOKALIKES, "").split()))
        found[row[MODEL_NAME]] = known
    return found


def _group(row: Mapping[str, str]) -> str:
    """Of its twins; a model without any is its own."""
    return row.get(_GROUP) or row[MODEL_NAME]
