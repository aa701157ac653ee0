"""The rule that ships: found where it belongs, nowhere else, and re-made by the command that its file came from."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trojai_moth.core.records import to_dict
from trojai_moth.triggers.stamps import weakest_point
from trojai_moth.verdict.judge import SHIPPED, shipped_rule
from trojai_moth.verdict.learned_rule import read_rule
from trojai_moth.verdict.settings import EvidenceSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
blind_rule = pytest.importorskip("blind_rule")
blind_score = pytest.importorskip("blind_score")
blind_tested = pytest.importorskip("blind_tested")


def test_it_decides_with_the_settings_it_was_learned_with_only():
    usual = to_dict(EvidenceSettings())
    assert shipped_rule("neural-cleanse", "composed", usual) == read_rule(SHIPPED)
    assert shipped_rule("k-arm", "composed", usual) is None
    assert shipped_rule("neural-cleanse", "examples", usual) is None
    assert shipped_rule("neural-cleanse", "composed", to_dict(EvidenceSettings(steps=300))) is None


@pytest.fixture(scope="module")
def shipped():
    return read_rule(SHIPPED)


def test_what_ships_is_what_the_tenth_set_tested(shipped):
    assert shipped == read_rule(blind_tested.BREADTH)
    assert set(shipped.features) == set(blind_rule.BREADTH_FEATURES)


def test_its_threshold_has_room_below_the_lowest_poisoned_model_that_it_was_learned_from(shipped):
    poisoned = [model.score for model in shipped.provenance.models if model.poisoned]
    assert shipped.threshold < min(poisoned) and len(poisoned) == shipped.retention.true_positives == 67
    assert shipped.metrics.lost.value == 0 and shipped.metrics.cleared.value == pytest.approx(60 / 68)
    assert not any("-filter" in model.group for model in shipped.provenance.models)


def test_clean_models_of_rounds_with_filters_are_cleared_though_none_was_learned_from(shipped):
    records = [one for half in blind_rule.BROAD for one in blind_score.read_records(blind_rule.STAMP_RESULTS / half)]
    unseen = [one for one in records if blind_rule.has_filters(one) and not one["poisoned"]]
    models = blind_score.score(list(map(blind_score.blind_to_filters, unseen)), shipped)
    assert (sum(model.cleared_blind for model in models), len(models)) == (40, 41)


def test_the_rule_before_aims_at_no_true_positive_lost_and_is_learned_from_all_sets_of_stamps():
    before = read_rule(blind_tested.FOUR)
    made = before.provenance
    poisoned = [model.score for model in made.models if model.poisoned]
    below = [model.score for model in made.models if not model.poisoned and model.score < min(poisoned)]
    assert before.threshold == pytest.approx((min(poisoned) + max(below)) / 2)
    assert before.retention.bound == 1 / (before.retention.true_positives + 1)
    assert {one.round.partition("/")[0] for one in made.rounds} == set(blind_rule.FOUR_SETS)
    assert {model.group.partition("-")[0] for model in made.models} == set(blind_rule.FOUR_SETS)
    assert not any("-filter" in model.group for model in made.models)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("first-stamps", blind_tested.STAMPS),
        ("four-stamps", blind_tested.FOUR),
        ("first-conviction", blind_tested.CONVICTION),
        ("second-conviction", blind_tested.CONVICTION_THREE),
        ("third-conviction", blind_tested.CONVICTION_FOUR),
        ("conviction", blind_tested.CONVICTION_FIVE),
        ("breadth", blind_tested.BREADTH),
    ],
    ids=["first", "four", "conviction", "conviction-three", "conviction-four", "conviction-five", "breadth"],
)
def test_the_rules_of_stamps_that_were_tested_are_made_again_from_their_records(name, file):
    how = blind_rule.STAMP_RULES[name]
    made, tested = blind_rule.from_stamps(blind_rule.STAMP_RESULTS, how), read_rule(file)
    assert [term.weight for term in made.terms] == pytest.approx([term.weight for term in tested.terms], rel=1e-3)
    assert made.threshold == pytest.approx(tested.threshold, rel=1e-2, abs=1e-3)
    assert {one.round.partition("/")[0] for one in tested.provenance.rounds} == set(how.sets)


def test_its_feature_is_what_the_records_say_of_every_pair():
    for half in (*blind_rule.FOUR_SETS, *blind_rule.FIVE_CONVINCED):
        for record in blind_score.read_records(blind_rule.STAMP_RESULTS / half):
            for pair in record.get("evidence", {}).get("candidates", ()):
                found = weakest_point(pair["stamp_success"], pair["removal_success"], pair["stamp_gap"])
                assert pair["stamp_weakest"] == pytest.approx(found, rel=1e-6)


def test_the_fresh_set_tested_the_second_rule():
    tested = read_rule(blind_tested.BOTH)
    assert {model.group.partition("-")[0] for model in tested.provenance.models} == set(blind_rule.LEARNED)
    held = blind_score.read_records(blind_score.RECORDS / "fresh")
    models = blind_score.score(held, tested)
    lost, cleared = (sum(m.cleared_blind for m in models if m.poisoned is bad) for bad in (True, False))
    assert (lost, cleared) == (2, 1)


def test_the_report_holds_figures_of_rules_that_were_chosen_without_the_models_judged():
    report = json.loads((blind_rule.RECORDS.parents[1] / "blind_rule.json").read_text(encoding="utf-8"))
    assert report["candidates"] == {name: list(features) for name, features in blind_rule.CANDIDATES.items()}
    assert set(report["candidates"][report["shipped"]]) >= set(read_rule(blind_tested.BOTH).features)
    parts = report["leave_one_architecture_out"].values()
    assert len(parts) == 3 and sum(part["true_positives_lost"]["total"] for part in parts) == 31
    cleared = report["nested"]["cleared_by_chosen"]
    tested = read_rule(blind_tested.BOTH).provenance.models
    assert set(cleared) == {model.model_id for model in tested}
    lost = [model.model_id for model in tested if model.poisoned and cleared[model.model_id]]
    assert report["nested"]["rules"]["chosen"]["true_positives_lost"]["count"] == len(lost)


def test_choosing_puts_safety_first():
    def rule(lost, cleared):
        return SimpleNamespace(
            metrics=SimpleNamespace(lost=SimpleNamespace(value=lost), cleared=SimpleNamespace(value=cleared))
        )

    safe = {"growth": rule(0.1, 0.4), "contrast": rule(0.2, 0.9), "contrast, rank": rule(0.1, 0.4)}
    assert blind_rule.choose(safe) == "contrast, rank"


def test_scored_models_had_no_part_in_the_first_rule_and_the_record_counts_them():
    first = read_rule(blind_tested.DEVELOPMENT)
    held = blind_score.read_records(blind_score.RECORDS / "scored")
    assert not {record["sha256"] for record in held} & first.fitted_files
    groups = {record["twin_group"] for record in held}
    assert not groups & {model.group for model in first.provenance.models}
    models = blind_score.score(held, first)
    known = [record for record in held if record["before"]["outcome"] == "flagged"]
    assert len(models) == len(known) and sum(model.cleared_blind for model in models if not model.poisoned) == 10


@pytest.mark.parametrize("half", ["development", "scored", "fresh"])
def test_a_model_it_was_learned_from_can_not_be_scored(half):
    third = read_rule(blind_rule.RECORDS.parents[1] / "blind_rule_all.json")
    records = blind_score.read_records(blind_score.RECORDS / half)
    with pytest.raises(AssertionError, match="learned from it"):
        blind_score.score(records, third)


@pytest.mark.parametrize("half", ("third", "eighth", "start"))
def test_nor_one_that_the_shipped_rule_was_learned_from(shipped, half):
    records = blind_score.read_records(blind_rule.STAMP_RESULTS / half)
    with pytest.raises(AssertionError, match="learned from it"):
        blind_score.score(records, shipped)
