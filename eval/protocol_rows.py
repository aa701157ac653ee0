"""The rows of the blind protocol side by side: scanner, oracle, naive hardening, blind rule, threshold-only controls.

A false positive is clean and flagged by the first scan, a true positive poisoned and flagged by it. Cleared
is what has its flag taken back; what failed or could not be judged is not cleared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy.stats import binomtest

from ..core.records import Field, record
from .metrics import Interval, cross_entropy, group_bootstrap, roc_auc
from .summary import Rate, make_rate


@record
class ScoredModel:
    """One flagged, labelled model. size: smallest of its candidates in pixels; held_success: largest of any of them.

    cleared_naive: the second scan no longer flags it; None where it was not hardened. right_pair: an injected pair is
    among the candidates. probability: of the blind verdict, None where there is none. conditions: what the counts are
    split by, as architecture or images per class.
    """

    model_id: str
    twin_group: str
    poisoned: bool
    cleared_naive: bool | None
    cleared_blind: bool
    probability: float | None = None
    size: float | None = None
    held_success: float | None = None
    right_pair: bool = False
    censored: float | None = Field(default=None, ge=0, le=1, description="share of distances without a trigger")
    seconds: float = 0.0
    conditions: dict[str, str] = Field(default_factory=dict)


@record
class Split:
    """The blind rule's counts under one condition, e.g. architecture, resnet18."""

    condition: str
    value: str
    false_positives_cleared: Rate
    true_positives_lost: Rate


@record
class Row:
    """What one way of deciding makes of the flagged models; against: exact McNemar test of the blind rule beside it."""

    name: str
    false_positives_cleared: Rate
    true_positives_lost: Rate
    threshold: float | None = None
    p_value: float | None = Field(default=None, description="of rule and control clearing equally many clean models")


@record
class Evaluation:
    """All rows, and the quality of the blind probabilities over the models that have one."""

    models: int
    fitted_on: tuple[str, ...]
    rows: tuple[Row, ...]
    right_pairs: Rate
    roc_auc: float | None
    cross_entropy: float | None
    roc_auc_interval: Interval | None = Field(description="95 %, bootstrap over groups of twins; so is the next")
    cross_entropy_interval: Interval | None
    splits: tuple[Split, ...]
    loss_bound: float = Field(description="the true loss that this count of true positives can exclude, at 95 %")
    censored: float | None = Field(default=None, description="mean share of distances for which no trigger was found")
    seconds: float


def evaluate(models: Sequence[ScoredModel], fitted_on: Sequence[str] = ()) -> Evaluation:
    """Count. ``fitted_on`` are models that a rule was learned from: they must not be among ``models``.

    Without any model that was hardened there are no rows of the oracle and of naive hardening.
    """
    clean = [model for model in models if not model.poisoned]
    poisoned = [model for model in models if model.poisoned]
    lost = sum(model.cleared_blind for model in poisoned)
    oracle = _row("oracle: clean ones hardened", clean, poisoned, lambda m: bool(m.cleared_naive) and not m.poisoned)
    blind = _row("blind rule", clean, poisoned, lambda m: m.cleared_blind)
    hardened = any(model.cleared_naive is not None for model in models)
    rows = [
        _row("scanner alone", clean, poisoned, lambda _: False),
        *([oracle] if hardened else []),
        *([_row("naive: all hardened", clean, poisoned, lambda m: bool(m.cleared_naive))] if hardened else []),
        blind,
        _control("size alone, at equal loss", clean, poisoned, lost, lambda m: _or(m.size, math.inf)),
        _control("held-out success alone, at equal loss", clean, poisoned, lost, lambda m: -_or(m.held_success, 0.0)),
    ]
    known = [model for model in models if model.probability is not None]
    p, y = [model.probability or 0.0 for model in known], [model.poisoned for model in known]
    intervals = group_bootstrap(p, y, [model.twin_group for model in known])
    return Evaluation(
        models=len(models),
        fitted_on=tuple(fitted_on),
        rows=tuple(rows),
        right_pairs=make_rate(sum(model.right_pair for model in poisoned), len(poisoned)),
        roc_auc=roc_auc(p, y) if known else None,
        cross_entropy=cross_entropy(p, y) if known else None,
        roc_auc_interval=intervals["roc_auc"],
        cross_entropy_interval=intervals["cross_entropy"],
        splits=split_by_conditions(models),
        loss_bound=blind.true_positives_lost.high,
        censored=_mean([model.censored for model in models if model.censored is not None]),
        seconds=sum(model.seconds for model in models),
    )


def split_by_conditions(models: Sequence[ScoredModel]) -> tuple[Split, ...]:
    """The blind rule under every value of every condition, in order; a model without a condition is in none of it."""
    found = sorted({item for model in models for item in model.conditions.items()})
    splits = []
    for condition, value in found:
        own = [model for model in models if model.conditions.get(condition) == value]
        rates = [
            make_rate(sum(model.cleared_blind for model in part), len(part))
            for part in ([m for m in own if not m.poisoned], [m for m in own if m.poisoned])
        ]
        splits.append(
            Split(condition=condition, value=value, false_positives_cleared=rates[0], true_positives_lost=rates[1])
        )
    return tuple(splits)


def _row(
    name: str, clean: Sequence[ScoredModel], poisoned: Sequence[ScoredModel], cleared: Callable[[ScoredModel], bool]
) -> Row:
    counts = [make_rate(sum(map(cleared, models)), len(models)) for models in (clean, poisoned)]
    return Row(name=name, false_positives_cleared=counts[0], true_positives_lost=counts[1])


def _control(
    name: str, clean: Sequence[ScoredModel], poisoned: Sequence[ScoredModel], lost: int,
    natural: Callable[[ScoredModel], float],
) -> Row:  # fmt: skip
    """Clear what looks more natural by one number than all but ``lost`` of the true positives do.

    Ties are kept, so that it never loses more than the rule does; chosen on the very models it is counted on, which
    favours the control.
    """
    ranked = sorted((natural(model) for model in poisoned), reverse=True)
    bound = ranked[lost] if lost < len(ranked) else -math.inf
    row = _row(name, clean, poisoned, lambda model: natural(model) > bound)
    only_rule = sum(model.cleared_blind and not natural(model) > bound for model in clean)
    only_control = sum(natural(model) > bound and not model.cleared_blind for model in clean)
    return Row(**{**vars(row), "threshold": _finite(abs(bound)), "p_value": mcnemar(only_rule, only_control)})


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test from the counts of models that only one of two ways clears; 1 without any.

    >>> round(mcnemar(8, 1), 4)
    0.0391
    """
    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
