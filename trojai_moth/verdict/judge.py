"""Clearing or keeping the flag on a model from its evidence alone, by a learned rule or, without one, by bounds.

Either goes by patches, so what it would clear is kept where a known photo filter is found to be a trigger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from ..core.errors import SettingsError
from ..core.records import fingerprint, from_dict
from ..core.statistics import logistic
from ..triggers.stamps import StampBounds
from ..triggers.trigger import Pair
from .explanation import CUT_SHORT, failed_words, missing_words, open_words, sentence
from .features import FEATURES, STAGES, BlindEvidence, PairFeatures, Question
from .filter_evidence import FILTERS, FilterCheckSettings, FilterEvidence
from .learned_rule import LearnedRule, Term, contributions, read_rule
from .records import Contribution, Outcome, Verdict, measured, strongest
from .threshold_rule import FALLBACK_BOUNDS, NO_CANDIDATES, bounds_question, judge_by_bounds
from .threshold_rule import NAME as BOUNDS

NAME: Final = "learned rule"
# Said of every verdict by bounds, whose safety nobody measured there.
BY_BOUNDS: Final = "by fixed bounds, since no learned rule fits"
NO_RULE_NAME: Final = "none"
NO_RULE: Final = (
    "no rule fits: none was learned with networks and images like these, so the flag stays; learn one with "
    "calibrate-rule and give it with --rule"
)
# Learned by benchmarks/learn_rule.py; what from stands in the file.
SHIPPED: Final = Path(__file__).parent / "default_rule.json"
# A flag that is kept for what is known so far is looked into further while its probability could be smaller than this.
SURE: Final = 0.9
# A pair that lacks a larger share of the rule's features says too little to be cleared by it.
MOST_MISSING: Final = 0.5
# Sums in another order differ in their last digits.
_ROUNDING: Final = 1e-9


class Scored(NamedTuple):
    """A pair with its score, what its features said, and which of the rule's features it lacks."""

    pair: Pair
    score: float
    parts: tuple[Contribution, ...]
    missing: tuple[str, ...]
    enough: bool


class ScoreBounds(NamedTuple):
    """The smallest and largest score that a pair can come to; enough: even if all that is unknown stays missing."""

    low: float
    high: float
    enough: bool


def shipped_rule(scanner: str, data: str, evidence_settings: Mapping[str, object]) -> LearnedRule | None:
    """The rule that comes with the package; None for a scanner, images or settings that it was not learned with."""
    rule = read_rule(SHIPPED)
    try:
        rule.check(scanner, data, evidence_settings)
    except SettingsError:
        return None
    return rule


def judge(
    evidence: BlindEvidence,
    rule: LearnedRule | None = None,
    *,
    sha256: str | None = None,
    fallback: StampBounds = FALLBACK_BOUNDS,
) -> Verdict:
    """The verdict on a flagged model; without a rule by the bounds ``fallback``.

    A model's score is the largest of its candidates' scores, and it is cleared when that is below the rule's
    threshold. A feature that was not measured adds nothing, but where its stage failed it could have been anything. A
    model without candidates, or one that would be cleared although a candidate lacks more than half of the rule's
    features, is not judged, so that its flag stays. Where a cascade left features open, or a stage failed, the
    outcome is that of the full evidence, and score and probability are the bound that decided: at least so much where
    kept, at most so much where cleared; where they could change it, as in evidence that was cut short for another
    rule, the model is not judged. ``sha256`` of the model's file: a rule that was learned from it says so. What would
    be cleared is kept where a known photo filter is found to be a trigger (verdict/judge.py).
    """
    if rule is None:
        found = keep_if_filter_trigger(judge_by_bounds(evidence, fallback), evidence)
        told = found.rule == BOUNDS and found.outcome != "not judged"
        return replace(found, reason=f"{found.reason}; {BY_BOUNDS}") if told else found
    return keep_if_filter_trigger(_judge_by_rule(evidence, rule, sha256), evidence)


def _judge_by_rule(evidence: BlindEvidence, rule: LearnedRule, sha256: str | None) -> Verdict:
    known = sha256 is not None and sha256 in rule.fitted_files
    identity = rule.identity
    unknown = (set(evidence.left_open) | _failed(evidence)) & set(rule.features)
    if unknown:
        return _judge_unfinished(evidence, rule, unknown, identity, known)
    scored = score_pairs(evidence.candidates, rule.terms, rule.intercept)
    top = _most_suspicious(scored)
    lacking = [pair for pair in scored if not pair.enough]
    if top is not None and (top.score >= rule.threshold or not lacking):
        return _judged(top, rule, identity, known)
    found = lacking[0] if lacking else None
    reason = missing_words(found.pair, found.missing, evidence.skipped) if found else NO_CANDIDATES
    return Verdict(
        outcome="not judged",
        pair=found.pair if found else None,
        missing=found.missing if found else (),
        reason=reason,
        rule=NAME,
        rule_sha256=identity,
        fitted_on=known,
    )


def left_alone() -> Verdict:
    """The verdict on a flagged network of which no rule says what natural triggers look like: its flag stays.

    The bounds were set on rounds with polygons of one colour. Others' backdoors, such as a grid on any class, lie
    beyond all of them and would be cleared.
    """
    return Verdict(outcome="not judged", reason=NO_RULE, rule=NO_RULE_NAME, rule_sha256="")


def question(rule: LearnedRule | None, fallback: StampBounds = FALLBACK_BOUNDS) -> Question:
    """What the rule asks of the evidence, or without one the bounds."""
    if rule is None:
        return bounds_question(fallback)

    def settled(pairs: Sequence[PairFeatures], unknown: frozenset[str]) -> Outcome | None:
        bounds = [score_bounds(pair, rule.terms, rule.intercept, unknown) for pair in pairs]
        outcome = settle(bounds, rule.threshold)
        if unknown and outcome == "kept":
            least = max(bound.low for bound in bounds if bound.enough)
            return outcome if rule.curve.probability(least) >= SURE else None
        return outcome

    return Question(features=frozenset(rule.features), settled=settled)


def score_bounds(pair: PairFeatures, terms: Sequence[Term], intercept: float, unknown: Collection[str]) -> ScoreBounds:
    """What is still possible for one pair while some features are ``unknown``; what is missing for good adds nothing.

    An unknown feature adds no more than the ends of its range do, after the cut at +-4, and nothing if it is missing.
    """
    low = high = intercept
    lacking = 0
    for term in terms:
        value, meaning = getattr(pair, term.feature), FEATURES[term.feature]
        if term.feature in unknown:
            parts = [0.0, *(term.weight * term.cut(end) for end in (meaning.low, meaning.high))]
            low, high, lacking = low + min(parts), high + max(parts), lacking + 1
        elif measured(value):
            part = term.weight * term.standardised(value)
            low, high = low + part, high + part
        else:
            lacking += 1
    return ScoreBounds(low, high, lacking <= MOST_MISSING * len(terms))


def settle(bounds: Sequence[ScoreBounds], threshold: float) -> Outcome | None:
    """Kept if a pair must score so much, cleared if none can, None while it is open; no pairs settle nothing.

    >>> settle([ScoreBounds(1.0, 3.0, True), ScoreBounds(-9.0, 9.0, False)], 0.0)
    'kept'
    """
    if any(pair.enough and pair.low - _ROUNDING >= threshold for pair in bounds):
        return "kept"
    if bounds and all(pair.enough and pair.high + _ROUNDING < threshold for pair in bounds):
        return "cleared"
    return None


def score_pairs(pairs: Sequence[PairFeatures], terms: Sequence[Term], intercept: float) -> list[Scored]:
    """Every candidate with its score: intercept + sum of weight * (value - centre) / scale, in log odds."""
    scored = []
    for pair in pairs:
        parts = contributions(terms, pair)
        heard = {part.feature for part in parts}
        missing = tuple(term.feature for term in terms if term.feature not in heard)
        score = intercept + sum(part.contribution for part in parts)
        enough = len(missing) <= MOST_MISSING * len(terms)
        scored.append(Scored((pair.victim, pair.target), score, parts, missing, enough))
    return scored


def _failed(evidence: BlindEvidence) -> set[str]:
    """What stages that failed would have given, where a candidate lacks it."""
    given = {name for stage, names in STAGES.items() if stage in evidence.skipped for name in names}
    return {name for name in given if not all(measured(getattr(pair, name)) for pair in evidence.candidates)}


def _most_suspicious(scored: Sequence[Scored]) -> Scored | None:
    return max((pair for pair in scored if pair.enough), key=lambda pair: pair.score, default=None)


def _judge_unfinished(
    evidence: BlindEvidence, rule: LearnedRule, unknown: Set[str], identity: str, known: bool
) -> Verdict:
    """By what the unknown features can no longer change; not judged if they could."""
    bounds = [score_bounds(pair, rule.terms, rule.intercept, unknown) for pair in evidence.candidates]
    outcome = settle(bounds, rule.threshold)
    if outcome is None:
        reason = CUT_SHORT if set(evidence.left_open) & unknown else failed_words(sorted(unknown), evidence.skipped)
        return Verdict(outcome="not judged", reason=reason, rule=NAME, rule_sha256=identity, fitted_on=known)
    low = outcome == "kept"
    scored = score_pairs(evidence.candidates, rule.terms, rule.intercept)
    ranked = [
        pair._replace(score=bound.low if low else bound.high, enough=bound.enough)
        for pair, bound in zip(scored, bounds, strict=True)
    ]
    top = max((pair for pair in ranked if pair.enough), key=lambda pair: pair.score)
    verdict = _judged(top, rule, identity, known)
    return replace(verdict, outcome=outcome, reason=verdict.reason + open_words(sorted(unknown)))


def _judged(top: Scored, rule: LearnedRule, identity: str, known: bool) -> Verdict:
    outcome: Outcome = "kept" if top.score >= rule.threshold else "cleared"
    probability, parts = rule.curve.probability(top.score), strongest(top.parts)
    return Verdict(
        outcome=outcome,
        probability=probability,
        score=top.score,
        threshold=rule.threshold,
        pair=top.pair,
        decided_by=parts,
        missing=top.missing,
        reason=sentence(outcome, top.pair, probability, parts),
        rule=NAME,
        rule_sha256=identity,
        fitted_on=known,
    )


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
