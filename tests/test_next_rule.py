"""A rule that is followed by another: what each is asked, who has the last word, and what a cascade may leave out."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trojai_moth.blind.gather import FAR_OUTSIDE
from trojai_moth.blind.learned import Term, read_rule
from trojai_moth.blind.rule import cascade, judge, refuse_learned
from trojai_moth.calibration import fingerprint
from trojai_moth.errors import SettingsError
from trojai_moth.eval.fit_next import fit_next, kept_by
from trojai_moth.eval.fit_rule import RuleSettings
from trojai_moth.eval.rule_weights import WeightSettings
from trojai_moth.files import write_text
from trojai_moth.records import to_dict, to_json

from .learned_rules import evidence, learned, pair
from .test_fit_rule import drawn_models, labelled

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
FIRST = learned(terms=(Term(feature="held_success", centre=0.5, scale=0.25, weight=1.0),))
SECOND = learned(terms=(Term(feature="conviction_gap", centre=1.0, scale=0.5, weight=2.0),), threshold=-1.0, slope=2.0)
BOTH = replace(FIRST, then=SECOND)
GAP = "conviction_gap"


def outcome(*pairs, **facts):
    return judge(evidence(*pairs, **facts), BOTH).outcome


def test_what_the_first_clears_is_cleared_whatever_the_next_would_say():
    assert judge(evidence(pair(held_success=0.4, conviction_gap=2.0)), BOTH) == replace(
        judge(evidence(pair(held_success=0.4)), FIRST), rule_sha256=BOTH.identity
    )


def test_the_next_is_asked_about_the_pairs_that_the_first_keeps_and_no_others():
    natural, injected = pair(held_success=0.9, **{GAP: 0.6}), pair(held_success=0.9, **{GAP: 0.8})
    elsewhere = pair(0, 1, held_success=0.1, **{GAP: 2.0})
    assert outcome(natural, elsewhere) == "cleared" and outcome(injected, elsewhere) == "kept"
    assert outcome(natural, replace(injected, victim=1)) == "kept"


def test_the_last_word_names_its_own_numbers_and_both_reasons():
    found = judge(evidence(pair(held_success=0.9, **{GAP: 0.6})), BOTH)
    assert (found.score, found.threshold, found.rule_sha256) == (pytest.approx(-1.6), -1.0, BOTH.identity)
    assert found.probability == SECOND.curve.probability(-1.6)
    assert [part.feature for part in found.decided_by] == [GAP, "held_success"]
    assert (
        found.reason.startswith("cleared: 4->2 looks natural")
        and "hardly more than it does clean networks" in found.reason
    )
    assert "although its trigger works on images it was not made for" in found.reason


def test_where_the_next_can_not_judge_the_first_keeps():
    assert judge(evidence(pair(held_success=0.9)), BOTH) == replace(
        judge(evidence(pair(held_success=0.9)), FIRST), rule_sha256=BOTH.identity
    )
    assert outcome(pair(held_success=0.9, **{GAP: 0.1}), left_open=(GAP,)) == "kept"
    # Kept whatever the open one would show: the next says no more than a bound.
    weak = Term(feature="jitter_success", centre=0.5, scale=9.0, weight=0.1)
    both = replace(BOTH, then=replace(SECOND, terms=(*SECOND.terms, weak)))
    found = judge(evidence(pair(held_success=0.9, **{GAP: 2.0}), left_open=("jitter_success",)), both)
    assert found == replace(judge(evidence(pair(held_success=0.9)), FIRST), rule_sha256=both.identity)
    # One of two kept pairs was measured, and is natural: the other one may be injected.
    assert outcome(pair(held_success=0.9, **{GAP: 0.1}), pair(0, 1, held_success=0.9)) == "kept"


def test_what_the_first_has_not_seen_of_a_pair_leaves_it_to_the_next():
    half_seen = [pair(0, 1, held_success=0.9, **{GAP: 0.1}), pair(2, 3, **{GAP: 2.0})]
    whole = replace(BOTH, terms=(*FIRST.terms, Term(feature="jitter_success", centre=0.5, scale=0.5, weight=0.1)))
    assert judge(evidence(*half_seen, left_open=("jitter_success", "held_success")), whole).outcome != "cleared"


@pytest.mark.parametrize(
    ("pairs", "unknown", "expected"),
    [
        ([pair(held_success=0.1)], {GAP}, "cleared"),
        ([pair(held_success=0.9)], {GAP}, None),
        ([pair(held_success=0.9, **{GAP: 0.1})], set(), "cleared"),
        ([pair(held_success=0.9, **{GAP: 2.0})], set(), "kept"),
        ([pair(held_success=0.9)], set(), None),
        ([pair(held_success=0.9, **{GAP: 0.1}), pair(0, 1, **{GAP: 2.0})], {"held_success"}, None),
        ([pair(held_success=0.9, **{GAP: 2.0}), pair(0, 1, held_success=0.1)], set(), "kept"),
    ],
)
def test_a_cascade_goes_on_to_the_next_only_for_what_is_kept(pairs, unknown, expected):
    asked = cascade(BOTH)
    assert asked.features == {"held_success", GAP}
    assert asked.settled(pairs, frozenset(unknown)) == expected


def test_a_rule_without_a_next_one_has_the_name_it_always_had():
    before = {name: value for name, value in to_dict(FIRST).items() if name != "then"}
    assert FIRST.identity == fingerprint(before) != BOTH.identity != replace(BOTH, then=FIRST).identity


def test_both_are_read_checked_and_refused(tmp_path):
    write_text(tmp_path / "rule.json", to_json(BOTH))
    assert read_rule(tmp_path / "rule.json") == BOTH
    other = replace(FIRST, then=replace(SECOND, scanner="k-arm"))
    BOTH.check("neural-cleanse", "composed")
    with pytest.raises(SettingsError, match="--scanner 'k-arm'"):
        other.check("neural-cleanse", "composed")
    late = replace(SECOND.provenance.models[0], sha256="late")
    seen = replace(FIRST, then=replace(SECOND, provenance=replace(SECOND.provenance, models=(late,))))
    with pytest.raises(SettingsError, match="learned from 1 of these 1 models"):
        refuse_learned(seen, [("id-3", "late")])


def test_the_next_is_learned_from_what_the_first_keeps_alone():
    models = []
    for number, model in enumerate(drawn_models()):
        first, *rest = model.evidence.candidates
        tested = replace(first, held_success=0.9, **{GAP: 1.5 + number / 50 if model.poisoned else 0.4 + number / 50})
        others = [replace(one, held_success=0.1, **{GAP: 5.0}) for one in rest]
        models.append(replace(model, evidence=replace(model.evidence, candidates=(tested, *others))))
    cleared = labelled(90, False, evidence(pair(held_success=0.1, **{GAP: 9.0})))
    assert [len(model.evidence.candidates) for model in kept_by(FIRST, [*models, cleared])] == [1] * len(models)
    made = fit_next(FIRST, [*models, cleared], RuleSettings(weights=WeightSettings(features=(GAP,))))
    assert replace(made, then=None) == FIRST and made.then.features == (GAP,)
    assert made.then.provenance.clean == 12 == made.then.provenance.poisoned
    assert all(judge(model.evidence, made).outcome == ("kept" if model.poisoned else "cleared") for model in models)


def test_both_rules_that_the_tenth_set_tested_are_made_again_from_their_records():
    blind_next, blind_score = (pytest.importorskip(name) for name in ("blind_next", "blind_score"))
    made, tested = blind_next.both_rules(), read_rule(blind_score.NEXT)
    assert tested.then is not None and set(tested.then.features) == set(blind_next.FEATURES)
    assert [term.weight for term in made.then.terms] == pytest.approx(
        [term.weight for term in tested.then.terms], rel=1e-3
    )
    assert made.then.threshold == pytest.approx(tested.then.threshold, rel=1e-2)
    first, before = replace(tested, then=None), read_rule(blind_score.FOUR)
    assert blind_next.LOWEST > FAR_OUTSIDE and first.threshold < before.threshold and first.terms == before.terms
    assert not before.fitted_files & {model.sha256 for model in tested.then.provenance.models}
