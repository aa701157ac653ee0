"""Learning what a rule's next one is: asked only about pairs that the first keeps, and learned from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..blind.learned import LearnedRule
from ..blind.rule import judge, kept_pairs
from .blind_runs import LabelledModel
from .fit_rule import UNKNOWN_SOURCE, RuleSettings, RuleSource, fit_rule


def fit_next(
    first: LearnedRule,
    models: Sequence[LabelledModel],
    settings: RuleSettings | None = None,
    source: RuleSource = UNKNOWN_SOURCE,
) -> LearnedRule:
    """``first`` with a next rule, learned as ``fit_rule`` does from the models that it keeps for their patches.

    ``models`` should be others than it was learned from: among its own it keeps fewer clean ones than it will of new
    ones. Raises what ``fit_rule`` does.
    """
    return replace(first, then=fit_rule(kept_by(first, models), settings, source))


def kept_by(rule: LearnedRule, models: Sequence[LabelledModel]) -> list[LabelledModel]:
    """The models that ``rule`` keeps, by itself and without known filters, with the candidates that it keeps."""
    alone, found = replace(rule, then=None), []
    for model in models:
        patches = replace(model.evidence, filter=None, skipped={})
        if judge(patches, alone).outcome == "kept":
            kept = tuple(kept_pairs(patches.candidates, alone, patches.left_open))
            found.append(replace(model, evidence=replace(patches, candidates=kept)))
    return found
