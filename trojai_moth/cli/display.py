"""What a person sees: progress while a run goes on, and the verdict table at its end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from ..core.errors import printable
from ..core.messages import Progress, level, silent
from ..runs.run import ModelStep
from ..scanners.calibration import CalibrationMetrics, Estimate
from ..verdict import judge, threshold_rule
from .console import logged, make_table

_VERDICT_STYLE = {"cleared": "green", "kept": "bold red", "clean": "dim", "not judged": "yellow"}
# A name may have 128 letters, and one such must not squeeze the verdicts of all others out of the table.
_WIDEST_NAME = 32


@contextmanager
def run_progress() -> Iterator[Progress]:
    """What shows a run's progress on standard error: a bar on a terminal, elsewhere lines of the log.

    Bars flood the logs of a cluster. With -q nothing is shown. Messages appear above the bar.
    """
    if level() > logging.INFO:
        yield silent
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task("models", total=None, where="", now="")
            yield lambda text: _move(bar, task, text)
    else:
        yield logged()


def _bar() -> ProgressBar:
    where, now = (TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("where", "now"))
    return ProgressBar(
        where, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), now,
        console=Console(stderr=True), transient=True, redirect_stdout=False,
    )  # fmt: skip


def _move(bar: ProgressBar, task: TaskID, text: str) -> None:
    """To the model that is spoken of, if one is."""
    if isinstance(text, ModelStep):
        bar.update(task, total=text.total, completed=text.number - 1, where=text.model_id, now=text.words)
    else:
        bar.update(task, now=text)


def verdict_table(rows: pd.DataFrame) -> Table:
    """One line per model: what the scanner found before and after, what it cost, and what became of it."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", overflow="fold", max_width=_WIDEST_NAME)
    for name in ("label", "smallest trigger before", "after hardening", "accuracy", "verdict"):
        table.add_column(name)
    for row in rows.to_dict("records"):
        verdict = str(row["verdict"])
        outcome = f"[{_VERDICT_STYLE[verdict]}]{verdict}[/]{_by(row)}"
        found = [_trigger(row, when) for when in ("before", "after")]
        table.add_row(str(row["model"]), _label(row["label"]), *found, _accuracy(row), outcome)
    fitted = int(rows["fitted_on"].fillna(False).sum())
    if fitted:
        table.caption = f"The calibration was learned from {fitted} of these {len(rows)} models."
    return table


_BY = {threshold_rule.NAME: " by bounds", judge.NO_RULE_NAME: ": no rule"}


def _by(row: dict[str, object]) -> str:
    """Where no learned rule decided, what did; results of earlier versions do not say."""
    return _BY.get(str(row.get("rule")), "")


def calibration_table(metrics: CalibrationMetrics) -> Table:
    """The scanner as it is beside what was learned, with 95 % intervals."""
    table = make_table("", "scanner as it is", "learned, out of fold")
    for name, words in _FIGURES.items():
        table.add_row(words, *(_figure(getattr(quality, name)) for quality in (metrics.scanner, metrics.learned)))
    change, deviation = metrics.cross_entropy_change, metrics.score_deviation
    table.add_row("change of cross-entropy", "", _figure(change))
    table.add_row("deviation of a score over seeds", "-" if deviation is None else f"{deviation:.3f}", "")
    return table


_FIGURES = {
    "cross_entropy": "cross-entropy (0.693: knowing nothing)",
    "brier": "Brier",
    "roc_auc": "ROC-AUC",
    "true_positive_rate": "poisoned models flagged",
    "false_positive_rate": "clean models flagged",
    "balanced_accuracy": "balanced accuracy",
    "same_verdict": "same verdict for all seeds",
}


def _figure(figure: Estimate | float) -> str:
    """E.g. ``0.412 (0.301-0.533)``."""
    if not isinstance(figure, Estimate):
        return f"{figure:.3f}"
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


_TRIGGERS = (
    "The smallest trigger that turns images of one class into another, in pixels, and how often it does so on images "
    "held back. "
)
LEGEND = _TRIGGERS + "cleared: flagged at first, no longer after hardening. kept: still flagged. clean: never flagged."
BLIND_LEGEND = _TRIGGERS + (
    "cleared: flagged, but by what looks like a natural backdoor. kept: still flagged. not judged: cannot be told, so "
    "still flagged if it was. clean: never flagged. by bounds, no rule: no learned rule fits the model."
)
# More reasons than this would not be read; all are in results.csv.
_REASONS = 20


def reason_lines(rows: pd.DataFrame, *, flagged: bool = True) -> list[str]:
    """Why models were not judged, and with ``flagged`` why each of those was cleared or kept; rows of results.csv."""
    told = rows["verdict"] == "not judged"
    if flagged:
        told |= rows["flagged_before"].fillna(False).astype(bool)
    lines = [printable(f"{row['model']} {_reason(row)}") for row in rows[told].head(_REASONS).to_dict("records")]
    return [*lines, *([f"{int(told.sum()) - _REASONS} more: see results.csv"] if told.sum() > _REASONS else [])]


def _reason(row: dict[str, object]) -> str:
    reason, verdict = str(row["reason"]), str(row["verdict"])
    return reason if verdict != "not judged" or reason.startswith(verdict) else f"{verdict}: {reason}"


def _label(label: object) -> str:
    return "?" if pd.isna(label) else ("poisoned" if label else "clean")  # type: ignore[call-overload]


def _trigger(row: dict[str, object], when: str) -> str:
    """E.g. ``flagged 7->4 17 px, held-out 100%``."""
    flagged, size = row[f"flagged_{when}"], row[f"size_{when}"]
    if pd.isna(flagged):  # type: ignore[call-overload]
        return "-"
    word = "[red]flagged[/]" if flagged else "clean"
    if pd.isna(size):  # type: ignore[call-overload]
        return f"{word}: no trigger works"
    held = row[f"held_success_{when}"]
    text = f"{word} {escape(str(row[f'pair_{when}']))} {size:.0f} px"
    return text if pd.isna(held) else f"{text}, held-out {held:.0%}"  # type: ignore[call-overload]


def _accuracy(row: dict[str, object]) -> str:
    before, after = row["accuracy_before"], row["accuracy_after"]
    if pd.isna(before):  # type: ignore[call-overload]
        return "-"
    return f"{before:.1%}" if pd.isna(after) else f"{before:.1%} -> {after:.1%}"  # type: ignore[call-overload]
