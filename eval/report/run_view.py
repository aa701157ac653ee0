"""Everything a report shows of one run, read from its journal once: plain data, no markup."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ...core.errors import RunDirectoryError, SettingsError
from ...core.records import read_record
from ...hardeners.trace import HardeningTrace
from ...runs.journal import Journal, RunIdentity, ScanRecord, Stage
from ...scanners.result import ScanResult
from ...verdict.records import Verdict
from ..cards.card import CardRecord
from ..cards.text import PAIRS, SIDE_FILE
from ..protocol_rows import Row, ScoredModel, evaluate
from ..results import PROTOCOLS, asked_blind, known_labels, result_rows
from ..summary import Summary, summarise

_log = logging.getLogger(__name__)
# Rows that are set on the models that they are counted on belong to `evaluate`, which says so.
_CONTROL = "at equal loss"
STAGES: tuple[Stage, Stage] = ("before", "after")
"""The two scans of a model."""
CANDIDATE = (
    "victim", "target", "kind", "size", "success", "held_success", "held_images", "left_out_success", "jitter_success",
    "reverse_size", "scanner",
)  # fmt: skip
"""Fields of a candidate, in the order in which they are shown and exported."""


@dataclass(frozen=True)
class RunView:
    """One run. ``models``: by id, what its page shows; ``pictures``: by id, the file with its riskiest pairs.

    scans: by id and stage, the record beside which triggers may lie; flagged models first.
    """

    name: str
    identity: RunIdentity
    rows: pd.DataFrame
    summary: Summary
    protocol: tuple[Row, ...]
    blind: bool
    models: dict[str, dict[str, Any]]
    pictures: dict[str, Path]
    scans: dict[str, dict[str, Path]]


def read_view(run_dir: Path, truth: Path | None = None, cards: Path | None = None) -> RunView:
    """A run that rescan made, finished or not; RunDirectoryError where there is none or a record is damaged.

    truth: the labelled round; without it the labels that the run's results.csv holds. cards: folder of one folder per
    model with the class_distances.json of ``trojai-moth card``; that of the run without it.
    """
    journal = Journal(run_dir)
    if not journal.started:
        raise RunDirectoryError(f"{run_dir}: not a run directory; give one that rescan made")
    identity = journal.identity()
    rows, blind = result_rows(journal, known_labels(run_dir, truth)), asked_blind(journal)
    protocol = "blind" if blind else str(identity.settings.get("harden"))
    found = {model_id: _card(cards or run_dir / "cards", model_id) for model_id in identity.models}
    return RunView(
        name=run_dir.resolve().name,
        identity=identity,
        rows=rows,
        summary=summarise(rows, protocol=PROTOCOLS.get(protocol, protocol)),
        protocol=protocol_rows(rows, blind=blind),
        blind=blind,
        models={model_id: _model(journal, model_id, found[model_id]) for model_id in identity.models},
        pictures={
            model_id: path.parent / PAIRS for model_id, path in found.items() if path and (path.parent / PAIRS).exists()
        },
        scans={
            model_id: {stage: journal.path(model_id, stage) for stage in STAGES} for model_id in _flagged_first(rows)
        },
    )


def _flagged_first(rows: pd.DataFrame) -> list[str]:
    flagged = rows["flagged_before"].fillna(False).astype(bool)
    return [*rows["model"][flagged], *rows["model"][~flagged]]


def protocol_rows(rows: pd.DataFrame, *, blind: bool) -> tuple[Row, ...]:
    """The scanner alone, the oracle, naive hardening and the blind rule over the flagged models with a label.

    None of them without labels; no blind rule where the run's verdict is not the blind one.
    """
    chosen = rows[rows["flagged_before"].fillna(False).astype(bool) & rows["label"].notna()]
    if not len(chosen):
        return ()
    scored = [
        ScoredModel(
            model_id=row["model"],
            twin_group=row["model"],
            poisoned=bool(row["label"]),
            cleared_naive=None if pd.isna(row["flagged_after"]) else not row["flagged_after"],
            cleared_blind=blind and row["verdict"] == "cleared",
        )
        for row in chosen.to_dict("records")
    ]
    found = [row for row in evaluate(scored).rows if _CONTROL not in row.name]
    return tuple(row for row in found if blind or not row.name.startswith("blind"))


def candidate_rows(models: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """A row per candidate trigger of every scan: the table behind the pages of the models."""
    lines = [
        {"model": model_id, "stage": stage, "rank": rank, **dict(zip(CANDIDATE, candidate, strict=True))}
        for model_id, model in models.items()
        for stage in STAGES
        for rank, candidate in enumerate((model[stage] or {}).get("candidates", ()), 1)
    ]
    return pd.DataFrame(lines, columns=["model", "stage", "rank", *CANDIDATE])


def _card(folder: Path, model_id: str) -> Path | None:
    path = folder / model_id / SIDE_FILE
    return path if path.is_file() else None


def _model(journal: Journal, model_id: str, card: Path | None) -> dict[str, Any]:
    scans = {when: journal.read(model_id, when, ScanRecord) for when in STAGES}
    trace, blind = journal.read(model_id, "harden", HardeningTrace), journal.read(model_id, "blind", Verdict)
    first = scans["before"]
    return {
        "facts": _facts(first) if first else [],
        "classes": first.classes if first else 0,
        **{when: _scan(scan.verdict) if scan else None for when, scan in scans.items()},
        "hardening": _hardening(trace) if trace else None,
        "blind": _blind(blind) if blind else None,
        "distances": _distances_beside(card) if card else None,
    }


def _facts(scan: ScanRecord) -> list[list[str]]:
    return [["model file", f"SHA-256 {scan.sha256}"], ["loading", scan.check], ["images", scan.data]]


def _scan(verdict: ScanResult) -> dict[str, Any]:
    return {
        "scanner": verdict.scanner,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "score": _short(verdict.score),
        "probability": _short(verdict.probability),
        "candidates": [[_short(getattr(found, name)) for name in CANDIDATE] for found in verdict.evidence],
    }


def _hardening(trace: HardeningTrace) -> dict[str, Any]:
    before, after, images = trace.cost
    rounds = [[part.number, _short(part.accuracy), _short(part.loss), part.taken_back] for part in trace.rounds]
    return {
        "hardener": trace.hardener,
        "stopped": trace.stopped,
        "seconds": round(trace.seconds, 1),
        "accuracy": [_short(before), _short(after), images],
        "rounds": rounds,
    }


def _blind(verdict: Verdict) -> dict[str, Any]:
    parts = [[part.words, part.feature, _short(part.value), _short(part.contribution)] for part in verdict.decided_by]
    return {"outcome": verdict.outcome, "reason": verdict.reason, "rule": verdict.rule, "parts": parts}


def _distances_beside(card: Path) -> dict[str, Any] | None:
    """Those of a card; one that cannot be read, which no verdict needs, is left out with a warning."""
    try:
        return _distances(read_record(CardRecord, card))
    except SettingsError as error:
        _log.warning("%s; left out; make it anew with `trojai-moth card`", error)
        return None


def _distances(card: CardRecord) -> dict[str, Any]:
    """The matrices and, for similar pairs, the bounds of a card."""
    pairs = [
        [pair.victim, pair.target, *(_short(getattr(pair, name)) for name in BOUNDS), pair.at_risk]
        for pair in card.bounds.pairs
    ]
    return {
        "before": _matrix(card.before.distances),
        "after": _matrix(card.after.distances) if card.after else None,
        "pairs": pairs,
        "risk_bound": _short(card.bounds.risk_bound),
    }


BOUNDS = ("before", "after", "pasted", "sign_pixels", "surrogate", "similarity", "leakage")
"""Fields of a pair's bounds, in the order in which a model's page shows them."""


def _matrix(distances: Sequence[Sequence[float | None]]) -> list[list[Any]]:
    return [[_short(value) for value in row] for row in distances]


def _short(value: Any) -> Any:
    """Four digits are more than any of these numbers means, and a thousand models are in one file.

    What is no finite number is left out, since the page's script could not read it.

    >>> _short(17.123456), _short(None), _short(True), _short(float("inf"))
    (17.12, None, True, None)
    """
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None
