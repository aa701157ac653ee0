"""A run's journal as one row per model, with the labels joined: what results.csv and summary.json are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..core.errors import RunDirectoryError, one_line
from ..core.files import IrregularFileError, open_text, write_text
from ..core.records import to_json
from ..hardeners.trace import HardeningTrace
from ..runs.journal import Failure, Journal, NotHardened, ScanRecord
from ..scanners.result import Candidate, ScanResult
from ..triggers.trigger import pair_words
from ..verdict.features import BlindEvidence
from ..verdict.records import Verdict
from .csv_text import csv_text
from .labels import read_labels
from .report.markdown import to_markdown
from .summary import Summary, summarise

COLUMNS = [
    "model", "architecture", "classes", "label",
    "flagged_before", "score_before", "victim_before", "target_before", "size_before", "held_success_before",
    "flagged_after", "score_after", "victim_after", "target_after", "size_after", "held_success_after",
    "accuracy_before", "accuracy_after", "verdict", "probability_before", "probability", "fitted_on",
    "seconds", "device", "reason", "note", "read_as", "rule", "pair_before", "pair_after",
]  # fmt: skip

# Types that know missing values, or class 7 would be "7.0" in one run's table and "7" in another's.
_TYPES = {
    "label": "boolean", "fitted_on": "boolean", "flagged_before": "boolean", "flagged_after": "boolean",
    "classes": "Int64",
    "victim_before": "Int64", "target_before": "Int64", "victim_after": "Int64", "target_after": "Int64",
    "score_before": "float64", "size_before": "float64", "held_success_before": "float64",
    "score_after": "float64", "size_after": "float64", "held_success_after": "float64",
    "accuracy_before": "float64", "accuracy_after": "float64",
    "probability_before": "float64", "probability": "float64", "seconds": "float64",
}  # fmt: skip

# Where others write faster than this they will also be the last to write.
_MOST_REWRITES = 5

PROTOCOLS = {
    "blind": "harden flagged models without knowing labels, and clear those whose evidence is that of natural triggers",
    "flagged": "harden every flagged model without knowing labels (naive: a cleared model may be a hardened Trojan)",
    "clean-only": "harden only flagged models labelled clean (the paper's protocol; needs labels)",
    "all": "harden every model (naive: a cleared model may be a hardened Trojan)",
}


def result_rows(journal: Journal, labels: Mapping[str, bool]) -> pd.DataFrame:
    """One row per model of the run, in the run's order; a model that was not reached yet is "not judged"."""
    rows = [_row(journal, model_id, labels.get(model_id)) for model_id in journal.identity().models]
    return pd.DataFrame(rows, columns=COLUMNS).astype(_TYPES)


def asked_blind(journal: Journal) -> bool:
    """Whether the run's verdict is the blind one."""
    return journal.identity().settings.get("verdict") == "blind"


def write_results(journal: Journal, labels: Mapping[str, bool]) -> tuple[pd.DataFrame, Summary]:
    """Write results.csv, summary.json and report.md into the run directory; returns what they hold."""
    rows = result_rows(journal, labels)
    protocol = "blind" if asked_blind(journal) else str(journal.identity().settings.get("harden"))
    summary = summarise(rows, protocol=PROTOCOLS.get(protocol, protocol))
    write_text(journal.root / "results.csv", csv_text(rows))
    write_text(journal.root / "summary.json", to_json(summary))
    write_text(journal.root / "report.md", to_markdown(rows, summary))
    return rows, summary


def settled_results(journal: Journal, labels: Mapping[str, bool]) -> tuple[pd.DataFrame, Summary]:
    """As :func:`write_results`, and again if other processes have added to the journal meanwhile.

    Else the last of several to end could be overtaken by an earlier one that writes what it read before.
    """
    for _ in range(_MOST_REWRITES):
        before = _records(journal)
        written = write_results(journal, labels)
        if _records(journal) == before:
            break
    return written


def _records(journal: Journal) -> int:
    folder = journal.root / "journal"
    return len(os.listdir(folder)) if folder.is_dir() else 0


def read_results(path: Path) -> pd.DataFrame:
    """results.csv with the types that result_rows gives; RunDirectoryError for a file that is changed or damaged."""
    try:
        with open_text(path) as file:
            rows = pd.read_csv(file, dtype={"model": str, **_TYPES}, keep_default_na=False, na_values=[""])
    except IrregularFileError as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error}); delete it and give the rescan again") from None
    except (ValueError, TypeError, OverflowError) as error:  # pandas' own errors, and those of its types, are of these
        raise RunDirectoryError(f"{path}: damaged ({one_line(error)}); delete it and give the rescan again") from None
    missing = [name for name in ("model", "label") if name not in rows]
    if missing:
        raise RunDirectoryError(f"{path}: has no column {missing[0]}; delete it and give the rescan again")
    return rows


def read_run(run_dir: str | Path, *, round_dir: str | Path | None = None) -> pd.DataFrame:
    """A run's results so far, finished or not: a row per model, as docs/results-schema.md describes.

    round_dir: the round with its METADATA.csv, to join its labels; without it the labels are those of results.csv,
    where the run is finished. Raises RunDirectoryError for a folder that holds no run.

    >>> import trojai_moth as tm
    >>> tm.read_run("no-such-run")
    Traceback (most recent call last):
    ...
    trojai_moth.core.errors.RunDirectoryError: no-such-run: holds no run; give the --out folder of a rescan
    """
    journal = Journal(Path(run_dir))
    if not journal.started:
        raise RunDirectoryError(f"{run_dir}: holds no run; give the --out folder of a rescan")
    return result_rows(journal, known_labels(Path(run_dir), None if round_dir is None else Path(round_dir)))


def known_labels(run_dir: Path, truth: Path | None) -> Mapping[str, bool]:
    """By model id, True for poisoned: those of the round ``truth``, else those that results.csv holds."""
    if truth is not None:
        return read_labels(truth)
    file = run_dir / "results.csv"
    if not file.exists():
        return {}
    rows = read_results(file)
    return {str(row.model): bool(row.label) for row in rows.itertuples() if not pd.isna(row.label)}


def _row(journal: Journal, model_id: str, label: bool | None) -> dict[str, object]:
    before = journal.read(model_id, "before", ScanRecord)
    trace = journal.read(model_id, "harden", HardeningTrace)
    after = journal.read(model_id, "after", ScanRecord)
    failure = journal.read(model_id, "failure", Failure)
    left_alone = journal.read(model_id, "not-hardened", NotHardened)
    blind = journal.read(model_id, "blind", Verdict)
    verdict, reason = _decide(before, after, failure, left_alone)
    if asked_blind(journal) and verdict in ("cleared", "kept") and not left_alone:
        verdict, reason = (
            (blind.outcome, blind.reason) if blind else ("not judged", "the blind verdict is not done yet")
        )
    row: dict[str, object] = {"model": model_id, "label": label, "verdict": verdict, "reason": reason}
    row |= _scan_columns("before", before) | _scan_columns("after", after)
    if before:
        row |= {"architecture": before.architecture, "classes": before.classes, "device": before.device}
        row |= {"note": before.note or None, "read_as": before.convention.chosen.words}
        row |= {"accuracy_before": before.accuracy, "probability_before": before.verdict.probability}
        if before.verdict.calibrated:
            row["fitted_on"] = before.verdict.calibrated.fitted_on
        row["probability"] = (after.verdict if after and verdict != "clean" else before.verdict).probability
        if asked_blind(journal) and blind:
            row |= {"probability": blind.probability, "rule": blind.rule}
    if trace:
        row["accuracy_before"], row["accuracy_after"], _ = trace.cost
    evidence = journal.read(model_id, "evidence", BlindEvidence)
    row["seconds"] = round(sum(part.seconds for part in (before, trace, after, evidence, failure) if part), 1)
    return row


def _decide(
    before: ScanRecord | None, after: ScanRecord | None, failure: Failure | None, left_alone: NotHardened | None
) -> tuple[str, str]:
    """The verdict and why, in words."""
    if failure:
        return "not judged", f"{failure.stage}: {failure.reason}"
    if not before:
        return "not judged", "not reached yet"
    if before.verdict.flagged is None:
        return "not judged", f"scan before: {before.verdict.reason}"
    if not before.verdict.flagged:
        return "clean", before.verdict.reason
    if left_alone:
        return "kept", f"not hardened: {left_alone.reason}"
    if not after:
        return "not judged", "flagged, but hardening or the second scan is not done yet"
    if after.verdict.flagged is None:
        return "not judged", f"scan after: {after.verdict.reason}"
    return "kept" if after.verdict.flagged else "cleared", f"after hardening: {after.verdict.reason}"


def _scan_columns(when: str, scan: ScanRecord | None) -> dict[str, object]:
    if scan is None:
        return {}
    best = _best(scan.verdict)
    columns: dict[str, object] = {f"flagged_{when}": scan.verdict.flagged, f"score_{when}": scan.verdict.score}
    if best:
        columns |= {f"victim_{when}": best.victim, f"target_{when}": best.target, f"size_{when}": best.size}
        columns[f"held_success_{when}"] = best.held_success
        columns[f"pair_{when}"] = pair_words(best.victim, best.target, scan.class_names)
    return columns


def _best(verdict: ScanResult) -> Candidate | None:
    return verdict.evidence[0] if verdict.evidence else None
