"""What a verdict about patches may not clear: a network whose trigger may be another one."""

from __future__ import annotations

from dataclasses import replace

from ..core.records import fingerprint, from_dict
from ..core.statistics import logistic
from .explanation import sentence
from .features import BlindEvidence
from .filter_evidence import FILTERS, FilterCheckSettings, FilterEvidence
from .records import Contribution, Verdict


def _how(found: FilterEvidence, settings: FilterCheckSettings) -> str:
    if found.unexplained:
        return "far more than to copies of it that were retrained from clean images"
    if found.single_class_score(settings) > found.filter_margin_gap(settings):
        return "and spares the other classes"
    return "far more surely than to clean networks of these classes"


def keep_if_filter_trigger(verdict: Verdict, evidence: BlindEvidence) -> Verdict:
    """``verdict``, but what it clears is kept where a known filter is a trigger, not judged where that is not known.

    Evidence that says nothing of filters, as that of older runs, changes nothing.
    """
    found = evidence.filter
    if not verdict.cleared or (found is None and FILTERS not in evidence.skipped):
        return verdict
    settings = from_dict(FilterCheckSettings, evidence.settings.get(FILTERS, {}), source="evidence settings")
    changed = replace(verdict, rule=FILTERS, rule_sha256=fingerprint(settings), threshold=settings.odds, missing=())
    if found is None:
        reason = f"not judged: known photo filters could not be tried ({evidence.skipped[FILTERS]})"
        return replace(changed, outcome="not judged", reason=reason, probability=None, score=None, threshold=None)
    suspicion = found.suspicion(settings)
    if suspicion < settings.odds:
        return verdict
    shown = found.unexplained or found
    probability = max(verdict.probability or 0.0, logistic(suspicion - settings.odds))
    part = Contribution(
        feature="filter_odds",
        value=suspicion,
        contribution=suspicion - settings.odds,
        words=f"the photo filter {shown.filter} does it, {_how(found, settings)}",
    )
    return replace(
        changed,
        outcome="kept",
        probability=probability,
        score=suspicion,
        pair=(shown.victim, shown.target),
        decided_by=(part,),
        reason=sentence("kept", (shown.victim, shown.target), probability, (part,)),
    )
