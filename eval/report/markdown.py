"""A summary in plain sentences, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from ...rounds.published.figures import PUBLISHED, ROUND_4_MODELS
from ..summary import Rate, Scores, Summary

_MARKUP = re.compile(r"([\\`*\[\]<>|])")


def verdict_lines(summary: Summary) -> list[str]:
    """The outcome of a round, one sentence or two per line, for a reader who has seen none before."""
    return [
        *_count_lines(summary),
        *_accuracy_lines(summary),
        *_rate_lines(summary),
        *_score_lines(summary),
        *_fitted_lines(summary),
    ]


def to_markdown(rows: pd.DataFrame, summary: Summary) -> str:
    """The sentences of :func:`verdict_lines` and a table of all models; with labels also the published results.

    ``rows`` is what :func:`~.summary.summarise` was given. Text from a round (names, reasons) is escaped.
    """
    parts = [
        f"# Protocol: {_cell(summary.protocol)}",
        "\n".join(f"- {_cell(line)}" for line in verdict_lines(summary)),
        _model_table(rows),
    ]
    if summary.false_positives_before is not None:
        parts.append(_comparison(summary))
    return "\n\n".join(parts) + "\n"


def escape(text: object) -> str:
    """Text from a round as one line of Markdown in which nothing is markup; empty for what is missing."""
    return _cell(text)


def _count_lines(summary: Summary) -> list[str]:
    lines = [f"Models: {summary.models}, of which {summary.judged} judged and {summary.not_judged} not judged."]
    if summary.not_judged:
        lines.append("A model that was never judged is neither flagged nor clean and is in none of the rates.")
    lines.append(f"Flagged: {summary.flagged_before} before, {summary.flagged_after} after.")
    if summary.unfinished:
        lines.append(
            f"Still flagged because they could not be judged again after the first scan: {summary.unfinished}."
        )
    return lines


def _accuracy_lines(summary: Summary) -> list[str]:
    if summary.mean_accuracy_drop is None:
        return []
    change = round(-100 * summary.mean_accuracy_drop, 1) + 0.0  # never "-0.0"
    return [f"Accuracy: {change:+.1f} percentage points on average over {summary.hardened} hardened."]


def _rate_lines(summary: Summary) -> list[str]:
    if summary.false_positives_before is None:
        return [
            "Labels: none of the judged models has one, so false and true positive rates cannot be given. "
            "Rates need METADATA.csv or ground_truth.csv in the round."
        ]
    lines = []
    if summary.labelled_judged < summary.judged:
        lines.append(f"Labels: known for {summary.labelled_judged} of {summary.judged} judged; rates are over these.")
    lines += [
        _change("False positives", "clean", summary.false_positives_before, summary.false_positives_after)
        + _share("removed", summary.false_positives_removed),
        _change("True positives", "poisoned", summary.true_positives_before, summary.true_positives_after)
        + _share("lost", summary.true_positives_lost),
    ]
    missed = summary.missed
    if missed is not None and missed.total:
        lines.append(f"Missed: {missed.count} of {missed.total} poisoned judged never flagged ({_percent(missed)}).")
    return lines


def _fitted_lines(summary: Summary) -> list[str]:
    if not summary.fitted_on:
        return []
    return [
        f"Calibration: it was learned from {summary.fitted_on} of these {summary.models} models, so figures here are "
        "too good and say nothing about other models."
    ]


def _change(name: str, kind: str, before: Rate | None, after: Rate | None) -> str:
    if before is None or after is None:
        return f"{name}: unknown"
    return f"{name}: {before.count} before, {after.count} after, among {before.total} {kind} judged"


def _share(word: str, rate: Rate | None) -> str:
    if rate is None or rate.total == 0:
        return f"; there were none that could be {word}."
    return f" ({rate.count} of {rate.total} {word}, {_percent(rate)})."


def _percent(rate: Rate) -> str:
    if rate.value is None:
        return "no rate"
    return f"{100 * rate.value:.0f} %, 95 % interval {100 * rate.low:.0f}-{100 * rate.high:.0f} %"


def _score_lines(summary: Summary) -> list[str]:
    named = (("before", summary.scores_before), ("after", summary.scores_after))
    return [f"Probabilities {when}: {_scores(scores)}." for when, scores in named if scores is not None]


def _scores(scores: Scores) -> str:
    area = "undefined" if scores.roc_auc is None else f"{scores.roc_auc:.3f}"
    return (
        f"ROC-AUC {area}, cross-entropy {scores.cross_entropy:.3f} "
        f"+- {scores.cross_entropy_half_width:.3f}, Brier {scores.brier:.3f}, over {scores.models} labelled"
    )


def _model_table(rows: pd.DataFrame) -> str:
    head = ["model", "architecture", "label", "verdict", "pair", "size", "accuracy", "P(poisoned)", "seconds", "reason"]
    return table(head, [_model_cells(row) for row in rows.to_dict("records")])


def _model_cells(row: dict[str, object]) -> list[str]:
    return [
        _cell(row["model"]),
        _cell(row["architecture"]),
        _cell(_label(row["label"])),
        _cell(row["verdict"]),
        _arrow(_pair(row, "before"), _pair(row, "after")),
        _arrow(_number(row["size_before"], ".1f"), _number(row["size_after"], ".1f")),
        _arrow(_number(row["accuracy_before"], ".3f"), _number(row["accuracy_after"], ".3f")),
        _number(row["probability"], ".2f"),
        _number(row["seconds"], ".1f"),
        _cell(row["reason"]),
    ]


def _comparison(summary: Summary) -> str:
    head = ["result", "labelled models", "cross-entropy", "ROC-AUC"]
    ours = (("this run, first scan", summary.scores_before), ("this run, whole protocol", summary.scores_after))
    lines = [
        [name, str(scores.models), f"{scores.cross_entropy:.3f}", _number(scores.roc_auc, ".3f")]
        for name, scores in ours
        if scores is not None
    ]
    lines += [
        [f"published for round 4: {one.source}", str(ROUND_4_MODELS), one.cross_entropy, one.roc_auc]
        for one in PUBLISHED["4"]
    ]
    note = (
        "The published numbers are of NIST's own test sets, with other models than this run's: "
        "they say what is usual, not which is better."
    )
    return f"{note}\n\n{table(head, lines)}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Cells as a Markdown table; they stay as they are, see ``escape``."""
    grid = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in grid)


def _arrow(before: str, after: str) -> str:
    return before if not after else f"{before} -> {after}"


def _pair(row: dict[str, object], when: str) -> str:
    pair = row[f"pair_{when}"]
    return "" if pd.isna(pair) else escape(str(pair).replace("->", " to "))  # type: ignore[call-overload]


def _label(value: object) -> str:
    if _missing(value):
        return "unknown"
    return "poisoned" if value in (True, "True") else "clean"


def _number(value: object, form: str) -> str:
    return "" if _missing(value) else format(float(str(value)), form)


def _cell(value: object) -> str:
    return "" if _missing(value) else _MARKUP.sub(r"\\\1", " ".join(str(value).split()))


def _missing(value: object) -> bool:
    return value is None or bool(pd.isna(value))
