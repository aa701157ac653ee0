"""Choosing a rule's features and fitting their weights to candidate pairs; no feature is used against its sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import RobustScaler

from ...core.errors import SettingsError
from ...core.records import Field, record
from ...verdict.features import FEATURES
from ...verdict.learned_rule import MOST_FEATURES, STANDARD_LIMIT, Term
from .blind_runs import LabelledModel
from .learn import assign_folds

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# A feature that is missing for most pairs of one label would speak for the other label by its absence.
LEAST_MEASURED = 0.5


@record
class WeightSettings:
    """How features are chosen and weighted."""

    features: tuple[str, ...] = Field(default=tuple(FEATURES), min_length=1, description="those to choose from")
    most_features: int = Field(default=MOST_FEATURES, ge=1, le=MOST_FEATURES, description="most that are chosen")
    least_gain: float = Field(
        default=0.01, ge=0, description="by which a further feature must lower the log loss out of fold, in nats"
    )
    inner_folds: int = Field(default=4, ge=2, description="parts of the cross-fit that chooses")
    strength: float = Field(default=0.3, gt=0, description="of the fit against the ridge while features are chosen (C)")
    strengths: tuple[float, ...] = Field(
        default=(0.03, 0.1, 0.3, 1.0), min_length=1, description="those that the final one is chosen from"
    )

    def __post_init__(self) -> None:
        """ValueError for a feature that does not exist."""
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown:
            raise ValueError(f"{unknown[0]!r:.40} is no feature; there are {', '.join(FEATURES)}")


@dataclass(frozen=True)
class Rows:
    """Candidate pairs to fit to: x (N, F), nan where not measured; injected (N,); weight (N,); twin groups (N,)."""

    x: Floats
    injected: Bools
    weight: Floats
    groups: tuple[str, ...]

    def take(self, wanted: Bools) -> Rows:
        """The rows (N,) that are wanted."""
        groups = tuple(group for group, one in zip(self.groups, wanted, strict=True) if one)
        return Rows(self.x[wanted], self.injected[wanted], self.weight[wanted], groups)


@dataclass(frozen=True)
class Weights:
    """What was fitted: score = intercept + sum over terms, in log odds."""

    terms: tuple[Term, ...]
    intercept: float


def make_rows(models: Sequence[LabelledModel], features: Sequence[str]) -> Rows:
    """Injected candidates of poisoned models and all candidates of clean ones; the others say neither.

    A poisoned model's other candidates may be natural or share in its backdoor. Every model weighs 1, so that one with
    ten candidates says no more than one with a single one.
    """
    rows, injected, weight, groups = [], [], [], []
    for model in models:
        pairs = model.right_pairs if model.poisoned else model.evidence.candidates
        for pair in pairs:
            values = [getattr(pair, name) for name in features]
            rows.append([math.nan if value is None else float(value) for value in values])
            injected.append(model.poisoned)
            weight.append(1 / len(pairs))
            groups.append(model.twin_group)
    x = np.array(rows, dtype=np.float64).reshape(len(rows), len(features))
    x[~np.isfinite(x)] = np.nan
    return Rows(x, np.array(injected, dtype=bool), np.array(weight, dtype=np.float64), tuple(groups))


def fit_weights(models: Sequence[LabelledModel], settings: WeightSettings) -> Weights:
    """Choose features and the ridge by log loss out of fold, twins together, and fit their weights to all ``models``.

    Features are added one at a time, the best one first, while that pays. Without candidates of both labels in at least
    two parts nothing can be chosen, and the rule has no terms.
    """
    rows = make_rows(models, settings.features)
    try:
        folds = assign_folds(rows.groups, rows.injected, settings.inner_folds)
    except SettingsError:
        return Weights((), _base(rows))
    chosen = _forward(rows, folds, settings)
    losses = [_loss(rows, folds, chosen, strength, settings) for strength in settings.strengths]
    return fit_terms(rows, chosen, settings.strengths[int(np.argmin(losses))], settings.features)


def fit_terms(rows: Rows, columns: Sequence[int], strength: float, names: Sequence[str]) -> Weights:
    """L2 logistic regression on the standardised columns; what is against its sign is dropped, and the rest refitted.

    Standardised: less the middle between the two labels' medians, so that a value's side is the label that it is like;
    divided by the normal-consistent range between the quartiles of all, cut at +-4; what was not measured is 0.
    """
    left = [column for column in columns if _measured_share(rows.x[:, [column]], rows.injected).all()]
    while left and len(set(rows.injected.tolist())) > 1:
        scaler = RobustScaler(with_centering=False, unit_variance=True).fit(rows.x[:, left])
        centre = np.mean([np.nanmedian(rows.x[rows.injected == label][:, left], axis=0) for label in (0, 1)], axis=0)
        z = np.nan_to_num(((rows.x[:, left] - centre) / scaler.scale_).clip(-STANDARD_LIMIT, STANDARD_LIMIT))
        line = LogisticRegression(C=strength, max_iter=1000).fit(z, rows.injected, sample_weight=rows.weight)
        wrong = [coefficient * FEATURES[names[c]].sign for c, coefficient in zip(left, line.coef_[0], strict=True)]
        if min(wrong) >= 0:
            parts = zip(left, centre, scaler.scale_, line.coef_[0], strict=True)
            terms = [
                Term(feature=names[column], centre=float(middle), scale=float(scale), weight=float(weight))
                for column, middle, scale, weight in parts
                if weight
            ]
            return Weights(tuple(terms), float(line.intercept_[0]))
        del left[int(np.argmin(wrong))]
    return Weights((), _base(rows))


def _forward(rows: Rows, folds: NDArray[np.int_], settings: WeightSettings) -> tuple[int, ...]:
    chosen: tuple[int, ...] = ()
    lowest = _loss(rows, folds, chosen, settings.strength, settings)
    open_ = _usable(rows)
    while open_ and len(chosen) < settings.most_features:
        losses = [_loss(rows, folds, (*chosen, column), settings.strength, settings) for column in open_]
        best = int(np.argmin(losses))
        if lowest - losses[best] < settings.least_gain:
            break
        chosen, lowest = (*chosen, open_.pop(best)), losses[best]
    return chosen


def _loss(
    rows: Rows, folds: NDArray[np.int_], columns: tuple[int, ...], strength: float, settings: WeightSettings
) -> float:
    """Weighted log loss of all rows by fits without their fold, in nats."""
    total = 0.0
    for fold in np.unique(folds):
        test = rows.take(folds == fold)
        weights = fit_terms(rows.take(folds != fold), columns, strength, settings.features)
        margin = np.where(test.injected, 1, -1) * _scores(test, weights, settings.features)
        total += float(test.weight @ np.logaddexp(0, -margin))
    return total / float(rows.weight.sum())


def _scores(rows: Rows, weights: Weights, names: Sequence[str]) -> Floats:
    total = np.full(len(rows.injected), weights.intercept)
    for term in weights.terms:
        z = (rows.x[:, names.index(term.feature)] - term.centre) / term.scale
        total += term.weight * np.nan_to_num(z.clip(-STANDARD_LIMIT, STANDARD_LIMIT))
    return total


def _usable(rows: Rows) -> list[int]:
    usable: list[int] = np.flatnonzero(_measured_share(rows.x, rows.injected) >= LEAST_MEASURED).tolist()
    return usable


def _measured_share(x: Floats, injected: Bools) -> Floats:
    """The share of values that are measured, of the label that has fewer (F,), for x (N, F) and labels (N,)."""
    parts = [np.isfinite(x[injected == label]) for label in (False, True)]
    shares = [part.mean(axis=0) if len(part) else np.zeros(x.shape[1]) for part in parts]
    return np.asarray(np.min(shares, axis=0), dtype=np.float64)


def _base(rows: Rows) -> float:
    """The log odds of the share that is injected, one counted on either side."""
    injected = float(rows.weight[rows.injected].sum())
    return math.log((injected + 1) / (float(rows.weight.sum()) - injected + 1))
