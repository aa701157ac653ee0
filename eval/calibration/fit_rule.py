"""Learning the blind rule from labelled evidence, with everything that is said of it measured out of fold.

The choice of features, the ridge, the weights and their standardisation are all fitted anew without each fold, so that
no model's score, and nothing that is set on scores, comes from a rule that has seen the model or its twin.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray

from ... import __version__
from ...core.errors import SettingsError
from ...core.records import Field, record
from ...scanners.calibration import Estimate, LeftOut, LogisticCurve
from ...verdict.judge import judge, score_pairs
from ...verdict.learned_rule import LearnedRule, Retention, RuleMetrics, RuleModel, RuleProvenance, RuleRound
from ...verdict.records import Verdict
from ..metrics import clopper_pearson, cross_entropy
from .blind_runs import BlindRun, LabelledModel
from .learn import assign_folds, fit_curve, ranking_quality
from .rule_weights import WeightSettings, fit_weights, make_rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int_]


@record
class RuleSettings:
    """How a rule is learned."""

    tolerate_loss: float = Field(default=0.02, ge=0, lt=1, description="share of true positives that may be lost")
    tail_loss: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="share of true positives below the threshold if their scores are normal; none: not asked",
    )
    folds: int = Field(default=5, ge=2, description="parts of the cross-fit; more where a part would lack a label")
    weights: WeightSettings = Field(default_factory=WeightSettings)


@dataclass(frozen=True)
class RuleSource:
    """What the evidence was made with."""

    scanner: str
    data: str
    rounds: tuple[RuleRound, ...]


UNKNOWN_SOURCE = RuleSource(scanner="", data="", rounds=())


def learn_rule(runs: Sequence[BlindRun], settings: RuleSettings | None = None) -> LearnedRule:
    """The rule of all runs' models; SettingsError where they were made with different scanners or kinds of images."""
    for what in ("scanner", "data"):
        found = sorted({str(getattr(run, what)) for run in runs})
        if len(found) != 1:
            raise SettingsError(
                f"calibrate-rule: the runs have {len(found)} different values of --{what} ({', '.join(found)}); "
                "give at least one run, and learn one rule for each"
            )
    source = RuleSource(runs[0].scanner, runs[0].data, tuple(run.source for run in runs))
    return fit_rule([model for run in runs for model in run.models], settings, source)


def fit_rule(
    models: Sequence[LabelledModel], settings: RuleSettings | None = None, source: RuleSource = UNKNOWN_SOURCE
) -> LearnedRule:
    """The rule fitted to all models, with threshold, probability and metrics from scores out of fold.

    Weights are fitted to candidates (see :func:`~trojai_moth.eval.calibration.rule_weights.make_rows`); a model's score
    is the largest of its candidates'. The threshold is set by split conformal prediction on the true positives' scores,
    of a model that was scanned several times the smallest. The probability is a logistic curve fitted to all models'
    scores (Platt, 1999). Both use scores by the folds' weights, while the final weights are fitted to a little more, so
    the promise of the threshold holds nearly, not exactly. The order of ``models`` does not matter. SettingsError when
    fewer than two clean or two poisoned models can be learned from, or all of one label are twins.
    """
    settings = settings or RuleSettings()
    _require_gathered(models, settings.weights.features)
    models, left_out = _usable(models)
    poisoned = np.array([model.poisoned for model in models], dtype=bool)
    _require_both(poisoned)
    try:
        folds = assign_folds([model.twin_group for model in models], poisoned, settings.folds)
    except SettingsError as error:
        raise SettingsError(str(error).replace("calibrate:", "calibrate-rule:")) from None
    tested = _cross_fit(models, folds, settings.weights)
    judged = tested.judged
    _require_both(poisoned[judged])
    final = fit_weights(models, settings.weights)
    return LearnedRule(
        version=__version__,
        scanner=source.scanner,
        data=source.data,
        evidence_settings=_common_settings(models),
        terms=final.terms,
        intercept=final.intercept,
        curve=_curve(tested.scores[judged], poisoned[judged]),
        retention=_retention(models, tested.scores, judged, settings),
        metrics=_metrics(models, tested, poisoned, settings),
        provenance=_provenance(models, left_out, tested, source, settings),
    )


def judge_out_of_fold(
    models: Sequence[LabelledModel], folds: Sequence[int], settings: RuleSettings | None = None
) -> list[Verdict]:
    """Each model's verdict by a rule that was learned from the models of the other folds (M,), in their order.

    Everything is learned anew, threshold and probability too. Folds are the caller's: of twin groups, see
    :func:`~trojai_moth.eval.calibration.learn.assign_folds`, or of architectures; a fold may not split twins, or the
    rule has seen what it judges. SettingsError where the rest of a fold is too little to learn from.
    """
    numbers = np.array(folds)
    verdicts: dict[int, Verdict] = {}
    for fold in np.unique(numbers):
        rule = fit_rule([model for model, own in zip(models, numbers, strict=True) if own != fold], settings)
        for position in np.flatnonzero(numbers == fold).tolist():
            verdicts[position] = judge(models[position].evidence, rule)
    return [verdicts[position] for position in range(len(models))]


def _usable(models: Sequence[LabelledModel]) -> tuple[list[LabelledModel], list[LeftOut]]:
    """The models to learn from in an order of their own, and the others.

    A file that occurs under two names is learned from under one, or it would be tested on itself.
    """
    ordered = sorted(models, key=lambda m: (m.twin_group, m.model_id, m.sha256, m.evidence.seed))
    groups: dict[str, str] = {}
    kept, left_out = [], []
    for model in ordered:
        if not model.evidence.candidates:
            left_out.append(LeftOut(model_id=model.model_id, reason="no pair could be measured"))
        elif groups.setdefault(model.sha256, model.twin_group) != model.twin_group:
            reason = f"its file is the same as one of {groups[model.sha256]}"
            left_out.append(LeftOut(model_id=model.model_id, reason=reason))
        else:
            kept.append(model)
    return kept, left_out


def _require_gathered(models: Sequence[LabelledModel], features: Sequence[str]) -> None:
    """A number that a cascade left out of some models only would tell which models those are."""
    cut = [model.model_id for model in models if not set(features).isdisjoint(model.evidence.left_open)]
    if cut:
        raise SettingsError(
            f"calibrate-rule: the evidence on {len(cut)} of {len(models)} models ({cut[0]} first) holds only what "
            "another rule used; make the runs anew with --set evidence.complete=true"
        )


def _common_settings(models: Sequence[LabelledModel]) -> dict[str, object]:
    first, *rest = [model.evidence.settings for model in models]
    return {key: value for key, value in first.items() if all(key in more and more[key] == value for more in rest)}


def _require_both(poisoned: Bools) -> None:
    clean, bad = int((~poisoned).sum()), int(poisoned.sum())
    if min(clean, bad) < 2:
        raise SettingsError(
            f"calibrate-rule: {clean} clean and {bad} poisoned flagged models can be learned from; at least 2 of each "
            "are needed, so give runs with more of them"
        )


@dataclass(frozen=True)
class _OutOfFold:
    """What rules that were fitted without a model's fold say of it.

    scores (M,): nan where too much is missing everywhere; complete (M,): no candidate lacks so much that the model may
    not be cleared; folds (M,).
    """

    scores: Floats
    complete: Bools
    folds: Ints

    @property
    def judged(self) -> Bools:
        """Whether there is a score (M,)."""
        return np.isfinite(self.scores)


def _cross_fit(models: Sequence[LabelledModel], folds: Ints, settings: WeightSettings) -> _OutOfFold:
    scores, complete = np.full(len(models), np.nan), np.zeros(len(models), dtype=bool)
    for fold in np.unique(folds):
        fitted = fit_weights([m for m, own in zip(models, folds, strict=True) if own != fold], settings)
        for position in np.flatnonzero(folds == fold).tolist():
            pairs = score_pairs(models[position].evidence.candidates, fitted.terms, fitted.intercept)
            scores[position] = max((pair.score for pair in pairs if pair.enough), default=np.nan)
            complete[position] = all(pair.enough for pair in pairs)
    return _OutOfFold(scores, complete, folds)


def _lowest_scores(models: Sequence[LabelledModel], scores: Floats, wanted: Bools | None = None) -> list[float]:
    """One score for each poisoned file: the scans of one model are no independent draws."""
    lowest: dict[str, float] = {}
    for position, (model, score) in enumerate(zip(models, scores.tolist(), strict=True)):
        if model.poisoned and np.isfinite(score) and (wanted is None or wanted[position]):
            lowest[model.sha256] = min(score, lowest.get(model.sha256, score))
    return sorted(lowest.values())


def _retention(models: Sequence[LabelledModel], scores: Floats, wanted: Bools, settings: RuleSettings) -> Retention:
    """Set on the wanted models' scores, all of them numbers."""
    clean = [
        score for model, score, one in zip(models, scores.tolist(), wanted, strict=True) if one and not model.poisoned
    ]
    bad = _lowest_scores(models, scores, wanted)
    found = with_room(retention_threshold(bad, settings.tolerate_loss), clean)
    return found if settings.tail_loss is None else with_tail(found, bad, settings.tail_loss)


def _curve(scores: Floats, poisoned: Bools) -> LogisticCurve:
    curve = fit_curve(scores[:, None], poisoned, "logistic")
    assert isinstance(curve, LogisticCurve)
    return curve


def _metrics(
    models: Sequence[LabelledModel], tested: _OutOfFold, poisoned: Bools, settings: RuleSettings
) -> RuleMetrics:
    """Of each fold by threshold and curve from the other folds' scores."""
    scores, judged, folds = tested.scores, tested.judged, tested.folds
    cleared, probability = np.zeros(len(models), dtype=bool), np.full(len(models), np.nan)
    for fold in np.unique(folds):
        own, rest = judged & (folds == fold), judged & (folds != fold)
        if not own.any() or len(set(poisoned[rest].tolist())) < 2:
            continue
        kept_by = _retention(models, scores, rest, settings)
        cleared[own] = tested.complete[own] & (scores[own] < kept_by.threshold)
        probability[own] = np.vectorize(_curve(scores[rest], poisoned[rest]).probability)(scores[own])
    known = np.isfinite(probability)
    return RuleMetrics(
        roc_auc=ranking_quality(scores[judged], poisoned[judged]),
        cross_entropy=cross_entropy(probability[known], poisoned[known]) if known.any() else None,
        cleared=_share(cleared[~poisoned]),
        lost=_share(cleared[poisoned]),
        unjudged=int((~judged).sum()),
    )


def _share(hits: Bools) -> Estimate:
    low, high = clopper_pearson(int(hits.sum()), len(hits))
    return Estimate(value=float(hits.mean()), low=low, high=high)


def _provenance(
    models: Sequence[LabelledModel],
    left_out: Sequence[LeftOut],
    tested: _OutOfFold,
    source: RuleSource,
    settings: RuleSettings,
) -> RuleProvenance:
    fitted = tuple(
        RuleModel(
            model_id=model.model_id,
            sha256=model.sha256,
            group=model.twin_group,
            poisoned=model.poisoned,
            right_pair=bool(model.right_pairs),
            fold=int(fold),
            score=float(score) if np.isfinite(score) else None,
        )
        for model, fold, score in zip(models, tested.folds, tested.scores, strict=True)
    )
    bad = sum(model.poisoned for model in models)
    return RuleProvenance(
        rounds=source.rounds,
        clean=len(models) - bad,
        poisoned=bad,
        right_pairs=sum(model.right_pair for model in fitted),
        candidates=len(make_rows(models, settings.weights.features).injected),
        folds=int(tested.folds.max()) + 1,
        versions={
            "trojai-moth": __version__,
            "scikit-learn": str(sklearn.__version__),
            "numpy": np.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        models=fitted,
        left_out=tuple(left_out),
    )


# Products such as 0.29 * 100 come out a little below the whole number that they are.
_ROUNDING = 1e-9


def retention_threshold(tp_scores: Sequence[float], tolerate_loss: float) -> Retention:
    """The k-th smallest of n true positives' scores (n,), k = floor(tolerate_loss * (n + 1)); cleared is what is below.

    A further true positive, exchangeable with these, scores below it with a chance of at most k / (n + 1), since each
    of n + 1 ranks is as likely (split conformal prediction; Vovk et al., 2005). Where k is 0, n is too small for what
    was asked: the threshold is the smallest score, and the bound 1 / (n + 1) says what that keeps to. The scores must
    come from rules that were not fitted to their models. SettingsError without scores, for one that is no number, and
    for a tolerate_loss outside of [0, 1).

    >>> retention_threshold([3.0, 1.0, 2.0], 0.5).threshold
    2.0
    """
    if not 0 <= tolerate_loss < 1:
        raise SettingsError(f"tolerate_loss is {tolerate_loss}; a share from 0 to below 1 is needed")
    scores = sorted(tp_scores)
    if not scores or not all(map(math.isfinite, scores)):
        raise SettingsError("a threshold needs the score of at least one true positive, and every score a number")
    k = math.floor(tolerate_loss * (len(scores) + 1) + _ROUNDING)
    return Retention(
        threshold=scores[max(k, 1) - 1],
        tolerate_loss=tolerate_loss,
        true_positives=len(scores),
        k=k,
        bound=max(k, 1) / (len(scores) + 1),
    )


def with_room(found: Retention, clean_scores: Sequence[float]) -> Retention:
    """The same with its threshold halfway down to the next clean model's score, where there is one below.

    Any threshold between the two says the same of the models that it is set on, and the lower it is the fewer true
    positives are lost, so that the promise holds all the more.

    >>> with_room(retention_threshold([2.0, 3.0], 0.02), [1.0, 0.0, 2.5]).threshold
    1.5
    """
    below = [score for score in clean_scores if score < found.threshold]
    return replace(found, threshold=(found.threshold + max(below)) / 2) if below else found


def with_tail(found: Retention, tp_scores: Sequence[float], share: float) -> Retention:
    """The same with its threshold no higher than where a normal distribution of these scores (n,) has ``share`` below.

    For few true positives: below the lowest of n scores a share of about 1 / (n + 1) is to be expected, and that they
    are about normal says more of it than they do. Only ever lowers the threshold, so that the promise holds. The same
    where fewer than two scores are given. SettingsError for a share outside of (0, 0.5].

    >>> with_tail(retention_threshold([1.0, 2.0, 3.0], 0.02), [1.0, 2.0, 3.0], 0.01).threshold < 0
    True
    """
    if not 0 < share <= 0.5:
        raise SettingsError(f"tail_loss is {share}; a share above 0 and at most 0.5 is needed")
    if len(tp_scores) < 2:
        return found
    tail = NormalDist.from_samples(tp_scores)
    lowest = tail.inv_cdf(share) if tail.stdev > 0 else tail.mean
    return replace(found, threshold=min(found.threshold, lowest))
