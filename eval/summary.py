"""What a run did to a round, as counts that carry their denominators.

A model counts as judged once the first scan has spoken. One that was flagged and could then not be judged again (crash,
time-out, accuracy guard) stays flagged. One that was never judged is in no rate, and the summary says how many.
"""

from __future__ import annotations

import pandas as pd
from pydantic import Field

from ..core.errors import RunDirectoryError
from ..core.records import record
from .metrics import brier, clopper_pearson, cross_entropy, cross_entropy_half_width, roc_auc

COLUMNS = (
    "model", "label", "flagged_before", "verdict", "accuracy_before", "accuracy_after", "probability_before",
    "probability", "fitted_on", "seconds",
)  # fmt: skip
"""Columns :func:`summarise` needs."""

VERDICTS = ("cleared", "kept", "clean", "not judged")


@record
class Rate:
    """``count`` out of ``total`` with its 95 % Clopper-Pearson interval."""

    count: int = Field(ge=0, description="how many")
    total: int = Field(ge=0, description="out of how many")
    value: float | None = Field(description="count / total; None when total is 0")
    low: float = Field(ge=0, le=1, description="lower end of the interval")
    high: float = Field(ge=0, le=1, description="upper end of the interval")


@record
class Scores:
    """Quality of the probabilities of those labelled models that have one."""

    models: int = Field(ge=1, description="models with a label and a probability")
    roc_auc: float | None = Field(description="None when only clean or only poisoned models have a probability")
    cross_entropy: float = Field(ge=0, description="NIST's cross-entropy, lower is better")
    cross_entropy_half_width: float = Field(ge=0, description="half width of NIST's 95 % interval")
    brier: float = Field(ge=0, le=1, description="mean squared error, lower is better")


@record
class Summary:
    """A round before and after the protocol; every field from ``false_positives_before`` on is None without labels."""

    protocol: str = Field(description="how it was decided what to harden and what to clear")
    models: int = Field(ge=0, description="all models of the round")
    judged: int = Field(ge=0, description="models the first scan gave a verdict; only these are in rates")
    not_judged: int = Field(ge=0, description="models that never got a verdict")
    unfinished: int = Field(ge=0, description="flagged, then not judged again; counted as still flagged")
    labelled: int = Field(ge=0, description="models whose label is known, judged or not")
    labelled_judged: int = Field(ge=0, description="judged models whose label is known")
    flagged_before: int = Field(ge=0, description="models the first scan flagged")
    flagged_after: int = Field(ge=0, description="models flagged when the protocol ended")
    hardened: int = Field(ge=0, description="models with an accuracy before and after hardening")
    mean_accuracy_drop: float | None = Field(description="mean of before minus after over the hardened, as a fraction")
    seconds: float = Field(ge=0, description="sum over models")
    false_positives_before: Rate | None = Field(description="flagged by the first scan, of the clean")
    false_positives_after: Rate | None = Field(description="flagged at the end, of the clean")
    false_positives_removed: Rate | None = Field(description="cleared, of the false positives before")
    true_positives_before: Rate | None = Field(description="flagged by the first scan, of the poisoned")
    true_positives_after: Rate | None = Field(description="flagged at the end, of the poisoned")
    true_positives_lost: Rate | None = Field(description="cleared, of the true positives before")
    missed: Rate | None = Field(description="never flagged, of the poisoned")
    scores_before: Scores | None = Field(description="of the first scan's probabilities")
    scores_after: Scores | None = Field(description="of the protocol's probabilities")
    fitted_on: int | None = Field(
        default=None, ge=0, description="models the calibration was learned from; None where no model was calibrated"
    )


def summarise(rows: pd.DataFrame, *, protocol: str) -> Summary:
    """Count what became of a round.

    ``rows`` has one row per model with at least :data:`COLUMNS`; missing values are unknown. ``verdict`` is one of
    :data:`VERDICTS`; it decides what the protocol ended with, whatever ``flagged_after`` says. Raises RunDirectoryError
    when a column is missing, a model occurs twice, or a verdict is unknown or contradicts ``flagged_before``.
    """
    _check(rows)
    table = _states(rows.reset_index(drop=True))
    judged = table[table["judged"]]
    drop = _numbers(table, "accuracy_before") - _numbers(table, "accuracy_after")
    hardened = int(drop.notna().sum())
    return Summary(
        protocol=protocol,
        models=len(table),
        judged=len(judged),
        not_judged=len(table) - len(judged),
        unfinished=int((judged["verdict"] == "not judged").sum()),
        labelled=int(table["truth"].notna().sum()),
        labelled_judged=int(judged["truth"].notna().sum()),
        flagged_before=int(judged["before"].sum()),
        flagged_after=int(judged["after"].sum()),
        hardened=hardened,
        mean_accuracy_drop=float(drop.mean()) if hardened else None,
        seconds=float(_numbers(table, "seconds").sum()),
        **_rates(judged),
        scores_before=_scores(judged, _numbers(judged, "probability_before")),
        scores_after=_scores(judged, _probability_after(judged)),
        fitted_on=_fitted_on(table),
    )


def make_rate(count: int, total: int) -> Rate:
    """A :class:`Rate` with its interval.

    >>> make_rate(1, 4).value
    0.25
    """
    low, high = clopper_pearson(count, total)
    return Rate(count=count, total=total, value=count / total if total else None, low=low, high=high)


def _check(rows: pd.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise RunDirectoryError(f"results: no column {missing[0]!r}; run the round again to write them anew")
    twice = rows["model"][rows["model"].duplicated()]
    if len(twice):
        raise RunDirectoryError(f"results: {twice.iloc[0]} occurs twice; keep one row per model")
    for model, verdict, before in zip(rows["model"], rows["verdict"], _booleans(rows, "flagged_before"), strict=True):
        if verdict not in VERDICTS:
            known = ", ".join(VERDICTS)
            raise RunDirectoryError(f"results: {model} has verdict {verdict!r}; it must be one of {known}")
        if verdict != "not judged" and (pd.isna(before) or bool(before) == (verdict == "clean")):
            raise RunDirectoryError(f"results: {model} is {verdict!r} but flagged_before is {before}; judge it again")


def _states(rows: pd.DataFrame) -> pd.DataFrame:
    """Add judged, before, after (bool) and truth (bool or missing) to the rows."""
    before = _booleans(rows, "flagged_before").fillna(False).astype(bool)
    return rows.assign(
        # "not judged" after a silent first scan says nothing about the model: it must not pass for clean.
        judged=(rows["verdict"] != "not judged") | before,
        before=before,
        after=before & (rows["verdict"] != "cleared"),
        truth=_booleans(rows, "label"),
    )


def _rates(judged: pd.DataFrame) -> dict[str, Rate | None]:
    clean = judged[judged["truth"].eq(False).fillna(False)]
    poisoned = judged[judged["truth"].eq(True).fillna(False)]
    fp, tp = int(clean["before"].sum()), int(poisoned["before"].sum())
    fp_after, tp_after = int(clean["after"].sum()), int(poisoned["after"].sum())
    counts = {
        "false_positives_before": (fp, len(clean)),
        "false_positives_after": (fp_after, len(clean)),
        "false_positives_removed": (fp - fp_after, fp),
        "true_positives_before": (tp, len(poisoned)),
        "true_positives_after": (tp_after, len(poisoned)),
        "true_positives_lost": (tp - tp_after, tp),
        "missed": (len(poisoned) - tp, len(poisoned)),
    }
    known = bool(judged["truth"].notna().any())
    return {name: make_rate(*pair) if known else None for name, pair in counts.items()}


def _probability_after(judged: pd.DataFrame) -> pd.Series:
    # Where the protocol changed nothing, the first scan's probability is still the last word.
    unchanged = judged["verdict"].isin(["clean", "not judged"])
    after, before = _numbers(judged, "probability"), _numbers(judged, "probability_before")
    return after.where(after.notna() | ~unchanged, before)


def _scores(judged: pd.DataFrame, probability: pd.Series) -> Scores | None:
    known = probability.notna() & judged["truth"].notna()
    if not known.any():
        return None
    p, y = probability[known].to_numpy(float), judged["truth"][known].to_numpy(bool)
    return Scores(
        models=len(p),
        roc_auc=roc_auc(p, y),
        cross_entropy=cross_entropy(p, y),
        cross_entropy_half_width=cross_entropy_half_width(p, y),
        brier=brier(p, y),
    )


def _fitted_on(rows: pd.DataFrame) -> int | None:
    known = _booleans(rows, "fitted_on").dropna()
    return int(known.sum()) if len(known) else None


def _booleans(rows: pd.DataFrame, column: str) -> pd.Series:
    try:
        return rows[column].astype("boolean")
    except (TypeError, ValueError):
        raise RunDirectoryError(f"results: column {column!r} must hold only True, False or nothing") from None


def _numbers(rows: pd.DataFrame, column: str) -> pd.Series:
    try:
        return pd.to_numeric(rows[column]).astype("Float64").astype(float)
    except (TypeError, ValueError):
        raise RunDirectoryError(f"results: column {column!r} must hold only numbers or nothing") from None
