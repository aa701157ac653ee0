"""What is left out cannot change a verdict, and nothing is left out that could."""

import random
from dataclasses import replace

import pytest
from learned_rules import evidence, learned, pair

from trojai_moth.core.records import from_json, to_json
from trojai_moth.verdict.features import ALWAYS, FEATURES, STAGES, PairFeatures, stages_for, wanted_features
from trojai_moth.verdict.judge import judge, question, score_bounds, settle
from trojai_moth.verdict.learned_rule import Term
from trojai_moth.verdict.threshold_rule import FALLBACK_BOUNDS

ORDER = [name for given in STAGES.values() for name in given]
CLEAN = learned(terms=[Term(feature="clean_conviction", centre=-1.0, scale=1.0, weight=-1.5)], threshold=-0.4)


def a_value(name, draw):
    """Missing at times, and at times at the end of its range."""
    if draw.random() < 0.2:
        return None
    low, high = max(FEATURES[name].low, -5.0), min(FEATURES[name].high, 5.0)
    return draw.choice([low, high, draw.uniform(low, high)])


def a_rule(draw):
    names = draw.sample(ORDER, draw.randint(1, 6))
    terms = [
        Term(
            feature=name, centre=draw.uniform(-1, 1), scale=draw.uniform(0.2, 2),
            weight=draw.uniform(0.1, 3) * FEATURES[name].sign,
        )
        for name in names
    ]  # fmt: skip
    return learned(terms=terms, threshold=draw.uniform(-3, 3), intercept=draw.uniform(-1, 1))


def pairs(values):
    return [pair(0, number, **one) for number, one in enumerate(values, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_settled_stays_whatever_the_rest_shows(seed):
    """Random rules and evidence, cut at every feature in turn, beside the verdict on all of it."""
    draw, outcomes = random.Random(seed), []
    for _ in range(120):
        rule, bounds = (
            (a_rule(draw), FALLBACK_BOUNDS)
            if draw.random() < 0.8
            else (None, replace(FALLBACK_BOUNDS, success=draw.choice([0.2, 0.8])))
        )
        asked = question(rule, bounds)
        full = [{name: a_value(name, draw) for name in ORDER} for _ in range(draw.randint(1, 3))]
        verdict = judge(evidence(*pairs(full)), rule, fallback=bounds)
        for at in range(len(ORDER)):
            unknown = frozenset(ORDER[at:]) & asked.features
            cut = pairs(dict(one, **dict.fromkeys(unknown)) for one in full)
            outcome = asked.settled(cut, unknown) if unknown else None
            if outcome is None:
                continue
            known = judge(evidence(*cut, left_open=tuple(unknown)), rule, fallback=bounds)
            assert outcome == verdict.outcome == known.outcome
            change = verdict.score - known.score
            assert rule is None or (change > -1e-9 if outcome == "kept" else change < 1e-9)
            outcomes.append(outcome)
    assert outcomes.count("kept") > 10 and outcomes.count("cleared") > 5


def test_a_flag_that_stays_is_looked_into_until_it_is_surely_injected():
    terms = [Term(feature=name, centre=0, scale=1, weight=w) for name, w in (("stamp_peak", 3), ("stamp_gap", 0.5))]
    asked, rest = (
        question(learned(terms=terms, threshold=-20.0)),
        frozenset({"stamp_gap"}),
    )  # moves it by 2 at most
    assert asked.settled([pair(stamp_peak=1.0)], rest) is None
    assert asked.settled([pair(stamp_peak=2.0)], rest) == "kept"
    assert asked.settled([pair(stamp_peak=1.0)], frozenset()) == "kept"


def test_one_bound_settles_a_pair():
    asked, rest = question(None), frozenset({"stamp_gap"})
    natural, open_ = pair(stamp_success=0.1, removal_success=0.0), {"stamp_success": 0.9, "stamp_breadth": 0.5}
    assert asked.settled([natural], rest) == "cleared"
    assert asked.settled([natural, pair(**open_, removal_success=0.0)], rest) is None
    assert asked.settled([pair(**open_, removal_success=0.9)], rest) == "cleared"
    assert asked.settled([natural, pair(**open_, removal_success=0.0, stamp_gap=2.0)], frozenset()) == "kept"
    assert asked.settled([], frozenset()) is None


def test_a_part_that_may_turn_out_missing_settles_nothing_by_itself():
    """Without its only feature a pair has too little to be judged by, so that no bound on it decides."""
    bounds = [score_bounds(pair(), CLEAN.terms, 99.0, {"clean_conviction"})]
    assert bounds[0].low > 90 and not bounds[0].enough and settle(bounds, 0.0) is None


def test_evidence_that_was_cut_short_for_another_rule_is_not_judged():
    cut = evidence(pair(stamp_peak=0.9), left_open=("clean_conviction",))
    verdict = judge(cut, CLEAN)
    assert verdict.outcome == "not judged" and "evidence.complete=true" in verdict.reason
    assert from_json(type(cut), to_json(cut)) == cut


def test_only_the_stages_of_the_rule_and_what_they_stand_on_are_run():
    of_size = learned(terms=[Term(feature="log_size", centre=1.0, scale=1.0, weight=-1.0)])
    of_stamps = learned(terms=[Term(feature="stamp_peak", centre=1.0, scale=1.0, weight=1.0)])
    wanted = [wanted_features(question(rule)) for rule in (of_size, of_stamps, CLEAN, None)]
    every = ["before", "stamps", "clean_stamps"]
    assert [stages_for(features) for features in wanted] == [every[:1], every[:2], every, every]
    assert wanted[2] == ALWAYS | {"clean_conviction"} and wanted_features(None) == set(ORDER)


def test_every_feature_belongs_to_one_stage():
    assert sorted(ORDER) == sorted(FEATURES)
    assert set(FEATURES) | {"size", "victim", "target"} == set(PairFeatures.__dataclass_fields__)
