"""Finished blind runs as the models that the protocol's rows count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import MothError
from ..hardeners.trace import HardeningTrace
from ..runs.journal import Journal
from ..runs.records import ScanRecord
from ..verdict.records import Verdict
from .calibration.blind_runs import LabelledModel, read_blind_run
from .conditions import read_conditions
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
