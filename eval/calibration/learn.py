"""Learning from labelled models what a scanner's scores mean: a probability, a threshold, and how far to trust both.

Every model counts once, however many seeds it was scanned with, but the single scans are what is fitted, since one scan
is all that a user makes: the mean over seeds would be less noisy than what the calibration is used on.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from ... import __version__
from ...core.errors import SettingsError
from ...core.records import Field, fingerprint, record
from ...core.statistics import PROBABILITY_FLOOR
from ...rounds.data_settings import DataSettings
from ...scanners.calibration import (
    Calibration,
    CalibrationMetrics,
    Estimate,
    FittedModel,
    LeftOut,
    LogisticCurve,
    Method,
    MonotoneCurve,
    Provenance,
    Quality,
    settings_fingerprint,
)
from ..metrics import clopper_pearson, cross_entropy

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Curve = LogisticCurve | MonotoneCurve
# Weight of the fit against the ridge on the slope per standard deviation, scikit-learn's default. Without the ridge a
# scanner that makes no mistake on a few models would be given a step from 0 to 1.
RIDGE = 1.0


@record
class LearnSettings:
    """How a calibration is learned."""

    method: Method = Field(default="logistic", description="curve from score to probability: logistic or monotone")
    max_false_positive_rate: float | None = Field(
        default=None, gt=0, lt=1, description="flag as much as this rate allows; without it: best balanced accuracy"
    )
    folds: int = Field(default=5, ge=2, description="parts of the cross-fit; more where a part would lack a label")


@dataclass(frozen=True)
class ScoredModel:
    """A labelled model with what the scanner said of it, once per seed: scores, probabilities and flags."""

    model_id: str
    sha256: str
    group: str
    poisoned: bool
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    flags: tuple[bool, ...]


@dataclass(frozen=True)
class Learned:
    """Scores (M, S) of M models and S seeds with their labels (M,), and what is fitted to a part of them."""

    scores: Floats
    poisoned: Bools
    settings: LearnSettings

    @cached_property
    def curve(self) -> Curve:
        """Score to probability."""
        return fit_curve(self.scores, self.poisoned, self.settings.method)

    @cached_property
    def threshold(self) -> float:
        """Flagged above it."""
        limit = self.settings.max_false_positive_rate
        if limit is None:
            return balanced_threshold(self.scores, self.poisoned)
        return limited_threshold(self.scores[~self.poisoned], limit)[0]


@dataclass(frozen=True)
class Source:
    """Where the scores come from: round's folder name, seeds, scanner with its settings, images."""

    round: str
    seeds: tuple[int, ...]
    scanner: str
    scanner_settings: dict[str, Any]
    data: DataSettings


def learn(
    models: Sequence[ScoredModel], left_out: Sequence[LeftOut], source: Source, settings: LearnSettings
) -> Calibration:
    """Fit to all models what is kept, and to all folds but one in turn what the metrics are measured on."""
    models = sorted(models, key=lambda model: model.model_id)
    require_both(np.array([model.poisoned for model in models], dtype=bool))
    scores = np.array([model.scores for model in models], dtype=np.float64)
    poisoned = np.array([model.poisoned for model in models], dtype=bool)
    groups = [model.group for model in models]
    folds = assign_folds(groups, poisoned, settings.folds)
    probability, flags = cross_fit(scores, poisoned, folds, settings)
    metrics = measure(
        Evidence(np.array([m.probabilities for m in models]), scores, np.array([m.flags for m in models])),
        Evidence(probability, probability, flags),
        scores,
        poisoned,
        groups,
    )
    final, limit = Learned(scores, poisoned, settings), settings.max_false_positive_rate
    return Calibration(
        scanner=source.scanner,
        scanner_settings=source.scanner_settings,
        settings_sha256=settings_fingerprint(source.scanner, source.scanner_settings),
        data=source.data,
        method=settings.method,
        curve=final.curve,
        threshold=final.threshold,
        max_false_positive_rate=limit,
        false_positive_bound=limited_threshold(scores[~poisoned], limit)[1] if limit is not None else None,
        metrics=metrics,
        provenance=_provenance(models, left_out, source, folds),
    )


def require_both(poisoned: Bools) -> None:
    """SettingsError unless two models at least are clean and two poisoned: one to learn from and one to test on."""
    clean, bad = int((~poisoned).sum()), int(poisoned.sum())
    if min(clean, bad) < 2:
        raise SettingsError(
            f"calibrate: {clean} clean and {bad} poisoned models can be learned from; at least 2 of each are needed, "
            "so give a round with more labelled models"
        )


def cross_fit(
    scores: Floats, poisoned: Bools, folds: NDArray[np.int_], settings: LearnSettings
) -> tuple[Floats, Bools]:
    """Probabilities and flags (M, S) of every scan by what was fitted without that model's fold (M,)."""
    probability, flags = np.empty_like(scores), np.empty(scores.shape, dtype=bool)
    for fold in np.unique(folds):
        test = folds == fold
        fitted = Learned(scores[~test], poisoned[~test], settings)
        probability[test] = np.vectorize(fitted.curve.probability)(scores[test])
        flags[test] = scores[test] > fitted.threshold
    return probability, flags


def assign_folds(groups: Sequence[str], poisoned: Bools, folds: int) -> NDArray[np.int_]:
    """The fold (M,) in which each model is tested, by GroupKFold: no group is in two of them.

    Groups are dealt out by the hash of their name, so that an order of ids that goes with the labels cannot put one
    label into one fold. With as many folds as asked for, or else with more, up to one per group, each fold's rest
    holds both labels; SettingsError where that cannot be had.
    """
    names = sorted(set(groups), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    numbers = np.array([names.index(group) for group in groups])
    for count in range(min(folds, len(names)), len(names) + 1):
        if count < 2:
            continue
        found = np.empty(len(numbers), dtype=np.int_)
        for fold, (_, test) in enumerate(GroupKFold(n_splits=count).split(numbers, groups=numbers)):
            found[test] = fold
        if all(len(set(poisoned[found != fold].tolist())) == 2 for fold in range(count)):
            return found
    raise SettingsError(
        "calibrate: all clean or all poisoned models are of one group of twins, so none are left to test on; give a "
        "round with more groups"
    )


def fit_curve(scores: Floats, poisoned: Bools, method: Method) -> Curve:
    """The curve of this method for scores (M, S) and labels (M,)."""
    flat, labels = scores.ravel(), np.repeat(poisoned, scores.shape[1])
    if method == "monotone":
        floor = PROBABILITY_FLOOR
        line = IsotonicRegression(y_min=floor, y_max=1 - floor, out_of_bounds="clip").fit(flat, labels)
        return MonotoneCurve(
            scores=tuple(line.X_thresholds_.tolist()), probabilities=tuple(line.y_thresholds_.tolist())
        )
    middle, spread = float(flat.mean()), float(flat.std())
    if spread > 0:
        weight = np.full(len(flat), 1 / scores.shape[1])
        line = LogisticRegression(C=RIDGE).fit(((flat - middle) / spread)[:, None], labels, sample_weight=weight)
        slope, intercept = float(line.coef_[0, 0]) / spread, float(line.intercept_[0])
        if slope > 0:
            return LogisticCurve(slope=slope, intercept=intercept - slope * middle)
    # Scores that say nothing, or the wrong way round on these models, are worth no more than the share of poisoned.
    share = float(poisoned.mean())
    return LogisticCurve(slope=0.0, intercept=float(np.log(share / (1 - share))))


def balanced_threshold(scores: Floats, poisoned: Bools) -> float:
    """The threshold with the best mean of true positive and true negative rate over all scans.

    That criterion does not depend on the share of poisoned models, which in the field is unknown and in a round is
    whatever its makers chose. Thresholds lie half-way between neighbouring scores; of equally good ones the one in the
    widest gap is taken, then the highest.
    """
    flat, labels = scores.ravel(), np.repeat(poisoned, scores.shape[1])
    values = np.unique(flat)
    if len(values) == 1:
        return float(values[0])
    cuts, gaps = (values[:-1] + values[1:]) / 2, np.diff(values)
    # Flagging nothing, at the highest score, is a candidate too: a scanner that is wrong on average should not flag.
    cuts, gaps = np.append(cuts, values[-1]), np.append(gaps, 0.0)
    above = flat[None, :] > cuts[:, None]
    accuracy = (above[:, labels].mean(1) + (~above)[:, ~labels].mean(1)) / 2
    order = np.lexsort((cuts, gaps, np.round(accuracy, 12)))
    return float(cuts[order[-1]])


def limited_threshold(clean_scores: Floats, limit: float) -> tuple[float, float]:
    """The lowest threshold that keeps to a false positive rate, from clean models' scores (M, S), and what it keeps to.

    A further clean model of the same kind is flagged with a chance of at most (f + 1) / (M + 1), where f of the M are,
    whatever the scores' distribution (conformal risk control; Angelopoulos et al., 2024). Where M is too small for the
    limit, the threshold is the highest clean score, and the second value, 1 / (M + 1), says what that keeps to.
    """
    models, seeds = clean_scores.shape
    best = (float(clean_scores.max()), 1 / (models + 1))
    for value in np.unique(clean_scores)[::-1]:
        bound = (float((clean_scores > value).sum()) / seeds + 1) / (models + 1)
        if bound > limit:
            break
        best = (float(value), bound)
    return best


def _provenance(
    models: Sequence[ScoredModel], left_out: Sequence[LeftOut], source: Source, folds: NDArray[np.int_]
) -> Provenance:
    fitted = tuple(
        FittedModel(
            model_id=model.model_id,
            sha256=model.sha256,
            group=model.group,
            poisoned=model.poisoned,
            fold=int(fold),
            scores=model.scores,
        )
        for model, fold in zip(models, folds, strict=True)
    )
    bad = sum(model.poisoned for model in models)
    return Provenance(
        round=source.round,
        seeds=source.seeds,
        clean=len(models) - bad,
        poisoned=bad,
        folds=int(folds.max()) + 1,
        split_sha256=fingerprint(sorted([model.sha256, model.poisoned, model.fold] for model in fitted)),
        versions={
            "trojai-moth": __version__,
            "scikit-learn": str(sklearn.__version__),
            "numpy": np.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        models=fitted,
        left_out=tuple(sorted(left_out, key=lambda model: model.model_id)),
    )


# Twins are alike and scans of one model more so; only groups are independent draws, so these are drawn.
RESAMPLES = 1000
LEVEL = 0.95


class Evidence(NamedTuple):
    """What was said of M models with S seeds, each (M, S): probability, what to rank by, and whether it was flagged."""

    probability: Floats
    ranking: Floats
    flags: Bools


def measure(
    scanner: Evidence, learned: Evidence, scores: Floats, poisoned: Bools, groups: Sequence[str]
) -> CalibrationMetrics:
    """Both beside each other, for labels (M,) and groups (M,); ``scores`` (M, S) are the scanner's own."""
    draws = _draws(groups)
    costs = _costs(learned.probability, poisoned) - _costs(scanner.probability, poisoned)
    return CalibrationMetrics(
        scanner=_quality(scanner, poisoned, draws),
        learned=_quality(learned, poisoned, draws),
        cross_entropy_change=_interval(lambda rows: float(costs[rows].mean()), len(poisoned), draws),
        score_deviation=float(np.sqrt(scores.var(axis=1, ddof=1).mean())) if scores.shape[1] > 1 else None,
    )


def ranking_quality(ranking: Floats, poisoned: Bools) -> float | None:
    """ROC-AUC of values (N,) of any scale, ties count half; None if one label is absent.

    >>> ranking_quality(np.array([-3.0, 7.0]), np.array([False, True]))
    1.0
    """
    bad = int(poisoned.sum())
    pairs = bad * (len(poisoned) - bad)
    return float((rankdata(ranking)[poisoned].sum() - bad * (bad + 1) / 2) / pairs) if pairs else None


def _quality(evidence: Evidence, poisoned: Bools, draws: list[NDArray[np.int_]]) -> Quality:
    costs, seeds = _costs(evidence.probability, poisoned), evidence.flags.shape[1]
    errors = np.square(evidence.probability - poisoned[:, None])
    first = evidence.flags[:, 0]
    found, wrong = first[poisoned], first[~poisoned]
    same = (evidence.flags == evidence.flags[:, :1]).all(axis=1)

    def area(rows: NDArray[np.int_]) -> float | None:
        return ranking_quality(evidence.ranking[rows].ravel(), np.repeat(poisoned[rows], seeds))

    return Quality(
        cross_entropy=_interval(lambda rows: float(costs[rows].mean()), len(poisoned), draws),
        brier=_interval(lambda rows: float(errors[rows].mean()), len(poisoned), draws),
        roc_auc=_interval(area, len(poisoned), draws),
        true_positive_rate=_share(found),
        false_positive_rate=_share(wrong),
        balanced_accuracy=float((found.mean() + 1 - wrong.mean()) / 2),
        same_verdict=_share(same) if seeds > 1 else Estimate(value=None, low=None, high=None),
    )


def _costs(probability: Floats, poisoned: Bools) -> Floats:
    """NIST's cross-entropy of each scan (M, S)."""
    pairs = [[cross_entropy([p], [bad]) for p in row] for row, bad in zip(probability, poisoned, strict=True)]
    return np.array(pairs, dtype=np.float64)


def _share(hits: Bools) -> Estimate:
    low, high = clopper_pearson(int(hits.sum()), len(hits), level=LEVEL)
    return Estimate(value=float(hits.mean()), low=low, high=high)


def _draws(groups: Sequence[str]) -> list[NDArray[np.int_]]:
    """Rows of the models of as many groups as there are, drawn with replacement; the same ones for every figure."""
    names = sorted(set(groups))
    rows = [np.flatnonzero(np.array(groups) == name) for name in names]
    stream = np.random.default_rng(0)
    return [np.concatenate([rows[i] for i in stream.integers(len(rows), size=len(rows))]) for _ in range(RESAMPLES)]


def _interval(
    value: Callable[[NDArray[np.int_]], float | None], models: int, draws: list[NDArray[np.int_]]
) -> Estimate:
    """A figure of all models with its percentile interval over the draws in which it is defined."""
    drawn = [figure for figure in map(value, draws) if figure is not None]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail]) if drawn else (None, None)
    return Estimate(
        value=value(np.arange(models)),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
    )
