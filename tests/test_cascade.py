"""What a cascade leaves out can not change a verdict, and nothing is left out that could."""

import random

import pytest

from trojai_moth.blind.bounds import RANGES, score_bounds, settle
from trojai_moth.blind.choice import ChosenPairs
from trojai_moth.blind.fallback import FallbackBounds
from trojai_moth.blind.features import FEATURES, PairFeatures
from trojai_moth.blind.learned import Term
from trojai_moth.blind.rule import cascade, judge
from trojai_moth.blind.settings import EvidenceSettings
from trojai_moth.blind.stages import ALWAYS, OPTIONAL, STAGES, features_for, pairs_for, stages_for, unasked
from trojai_moth.records import from_json, to_json

from .learned_rules import evidence, learned, pair

ORDER = [name for given in STAGES.values() for name in given]
CONTRAST = learned(terms=[Term(feature="burst_contrast", centre=-1.0, scale=1.0, weight=-1.5)], threshold=-0.4)
CHOSEN = ChosenPairs(candidates=((0, 1), (2, 3)), withheld=((4, 5),), trained=((1, 4),))


def a_value(name, draw):
    """Missing at times, and at times at the end of its range."""
    if draw.random() < 0.2:
        return None
    low, high = RANGES.get(name, (-5.0, 5.0))
    return draw.choice([low, high, draw.uniform(low, high)])


def a_rule(draw):
    names = draw.sample(ORDER, draw.randint(1, 6))
    terms = [
        Term(
            feature=name, centre=draw.uniform(-1, 1), scale=draw.uniform(0.2, 2),
            weight=draw.uniform(0.1, 3) * (FEATURES[name].sign or draw.choice([-1, 1])),
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
            (a_rule(draw), None) if draw.random() < 0.8 else (None, FallbackBounds(success=draw.choice([0.2, 0.8])))
        )
        asked = cascade(rule, bounds)
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
    terms = [
        Term(feature=name, centre=0, scale=1, weight=w) for name, w in (("stamp_peak", 2), ("growth_residual", 0.5))
    ]
    asked, rest = (
        cascade(learned(terms=terms, threshold=-20.0)),
        frozenset({"growth_residual"}),
    )  # moves it by 2 at most
    assert asked.settled([pair(stamp_peak=1.0)], rest) is None
    assert asked.settled([pair(stamp_peak=2.5)], rest) == "kept"
    assert asked.settled([pair(stamp_peak=1.0)], frozenset()) == "kept"


def test_one_bound_settles_a_pair():
    asked, rest = cascade(None), frozenset({"stamp_gap"})
    natural, open_ = pair(stamp_success=0.1, removal_success=0.0), {"stamp_success": 0.9, "stamp_breadth": 0.5}
    assert asked.settled([natural], rest) == "cleared"
    assert asked.settled([natural, pair(**open_, removal_success=0.0)], rest) is None
    assert asked.settled([pair(**open_, removal_success=0.9)], rest) == "cleared"
    assert asked.settled([natural, pair(**open_, removal_success=0.0, stamp_gap=2.0)], frozenset()) == "kept"
    assert asked.settled([], frozenset()) is None


def test_a_part_that_may_turn_out_missing_settles_nothing_by_itself():
    """Without its only feature a pair has too little to be judged by, so that no bound on it decides."""
    sure = CONTRAST.terms
    bounds = [score_bounds(pair(), sure, 99.0, {"burst_contrast"})]
    assert bounds[0].low > 90 and not bounds[0].enough and settle(bounds, 0.0) is None


def test_evidence_that_was_cut_short_for_another_rule_is_not_judged():
    cut = evidence(pair(rank_jump=0.9), left_open=("burst_contrast",))
    verdict = judge(cut, CONTRAST)
    assert verdict.outcome == "not judged" and "evidence.complete=true" in verdict.reason
    assert from_json(type(cut), to_json(cut)) == cut


def test_only_the_stages_of_the_rule_and_what_they_stand_on_are_run():
    settings = EvidenceSettings()
    assert stages_for(cascade(CONTRAST), settings) == ["before", "withheld", "burst"]
    assert stages_for(cascade(None), settings) == ["before", "stamps", "clean_stamps"]
    assert features_for(cascade(CONTRAST), settings) == ALWAYS | {"burst_contrast"}
    every = stages_for(None, settings)
    assert every == [stage for stage in STAGES if stage not in OPTIONAL]
    assert stages_for(None, EvidenceSettings(surrogate=True)) == [*every[:6], "surrogate", *every[6:]]


def test_only_the_pairs_that_a_feature_compares_are_measured():
    assert pairs_for(frozenset({"burst_contrast"}), CHOSEN) == CHOSEN.candidates
    assert pairs_for(frozenset({"asymmetry"}), CHOSEN) == (*CHOSEN.candidates, (1, 0), (3, 2))
    assert pairs_for(frozenset({"rank_jump", "burst_contrast"}), CHOSEN) == CHOSEN.measured


def test_every_feature_belongs_to_one_stage():
    assert sorted(ORDER) == sorted(set(ORDER)) and set(ORDER) | set(unasked()) == set(FEATURES)
    assert set(FEATURES) | {"size", "victim", "target"} == set(PairFeatures.__dataclass_fields__)
