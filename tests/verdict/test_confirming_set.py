"""What the records say of the confirming sets follows from them and the rule that they tested, which has seen none."""

import json
import sys
from pathlib import Path

import pytest

from trojai_moth.core.records import to_dict
from trojai_moth.verdict.filter_evidence import FilterSettings
from trojai_moth.verdict.judge import SHIPPED
from trojai_moth.verdict.learned_rule import read_rule

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
blind_score = pytest.importorskip("blind_score")
blind_tested = pytest.importorskip("blind_tested")


MODELS = {
    "confirm": 24, "second": 29, "third": 40, "fourth": 38, "fifth": 36, "sixth": 39, "seventh": 29, "eighth": 37,
    "ninth": 32, "tenth": 20, "eleventh": 23, "twelfth": 20,
}  # fmt: skip
# What a set's own rule and filters cleared, poisoned as it was.
LOST = {
    "sixth": "filter-class id-00000005", "seventh": "filter id-00000000", "eighth": "filter-class id-00000004",
    "ninth": "filter id-00000011",
}  # fmt: skip
RULES = {half: rule for half, (rule, _) in blind_tested.CONFIRMING.items()}


@pytest.fixture(scope="module", params=MODELS)
def half(request):
    return request.param


@pytest.fixture(scope="module")
def held(half):
    return blind_score.read_records(blind_score.STAMP_RESULTS / half)


def test_the_record_is_of_the_tested_rule_and_counts_the_same(half, held):
    saved = json.loads((blind_score.RECORDS.parent / f"blind_{half}.json").read_text(encoding="utf-8"))
    rule = read_rule(RULES[half])
    assert saved["rule_sha256"] == rule.identity and saved["models"] == len(held) == MODELS[half]
    models = blind_score.score(held, rule)
    by_label = {bad: [m.cleared_blind for m in models if m.poisoned is bad] for bad in (True, False)}
    row = next(row for row in saved["evaluation"]["rows"] if row["name"] == "blind rule")
    for bad, name in ((True, "true_positives_lost"), (False, "false_positives_cleared")):
        assert (sum(by_label[bad]), len(by_label[bad])) == (row[name]["count"], row[name]["total"])


def test_no_model_or_twin_of_it_was_learned_from(half, held):
    rule = read_rule(RULES[half])
    assert not {record["sha256"] for record in held} & rule.fitted_files
    assert not {record["twin_group"] for record in held} & {model.group for model in rule.provenance.models}


def test_stamps_with_conviction_lost_no_polygon_of_the_fourth_set_and_filters_two_of_theirs():
    held = blind_score.read_records(blind_score.STAMP_RESULTS / "fourth")
    rule = read_rule(blind_tested.CONVICTION)
    lost = [one.model_id for one in blind_score.score(held, rule) if one.poisoned and one.cleared_blind]
    assert [name.split()[1] for name in lost] == ["filter-class", "filter"]
    blind = blind_score.score(list(map(blind_score.blind_to_filters, held)), rule)
    assert {one.model_id.split()[1] for one in blind if one.poisoned and one.cleared_blind} == {
        "filter-class",
        "filter",
    }
    assert sum(one.cleared_blind for one in blind if not one.poisoned) == 15


def test_without_filters_those_with_filter_triggers_would_have_been_cleared():
    held = blind_score.read_records(blind_score.STAMP_RESULTS / "second")
    rule = read_rule(blind_tested.STAMPS)
    lost = [one.model_id for one in blind_score.score(list(map(blind_score.blind_to_filters, held)), rule)
            if one.poisoned and one.cleared_blind]  # fmt: skip
    assert [name.split()[1] for name in lost] == ["filter", "filter", "plain"]
    assert not any(one.poisoned and one.cleared_blind for one in blind_score.score(held, rule))


def test_what_shipped_until_the_tenth_set_is_what_the_third_tested_and_lost_none():
    held = blind_score.read_records(blind_score.STAMP_RESULTS / "third")
    asked = [record["evidence"]["settings"]["filters"] for record in held if record.get("evidence")]
    usual = to_dict(FilterSettings())
    assert asked and all(usual | one == usual | {"rare": 0.0} for one in asked)  # what is new only keeps more
    scored = blind_score.score(held, read_rule(RULES["third"]))
    assert not any(one.poisoned and one.cleared_blind for one in scored)


@pytest.mark.parametrize(("half", "model"), LOST.items())
def test_each_of_the_last_four_sets_lost_one_model_with_a_filter(half, model):
    held = blind_score.read_records(blind_score.STAMP_RESULTS / half)
    scored = blind_score.score(held, read_rule(RULES[half]))
    assert [one.model_id for one in scored if one.poisoned and one.cleared_blind] == [f"{half} {model}"]


def test_the_tenth_set_cleared_all_and_lost_none_where_the_rule_before_it_cleared_two_less():
    held = blind_score.read_records(blind_score.STAMP_RESULTS / "tenth")
    clean = {f"tenth {one['stratum']} {one['model_id']}" for one in held if not one["poisoned"]}
    flagged = {f"tenth {one['stratum']} {one['model_id']}" for one in held if one["before"]["outcome"] == "flagged"}
    cleared = [
        {one.model_id for one in blind_score.score(held, read_rule(file)) if one.cleared_blind}
        for file in (blind_tested.FOUR, blind_tested.BREADTH)
    ]
    assert cleared[1] == clean & flagged and [len(models) for models in cleared] == [7, 9]


def test_what_ships_keeps_all_poisoned_models_of_the_sets_that_it_was_frozen_before():
    saved = json.loads((blind_score.RECORDS.parent / "blind_shipped.json").read_text(encoding="utf-8"))
    found = blind_score.since(blind_score.STAMP_RESULTS, "shipped")
    assert saved["rule_sha256"] == found["rule_sha256"] == read_rule(SHIPPED).identity
    for one in (saved["by_set"], found["by_set"]):
        assert {half: (by["cleared"], by["lost"]) for half, by in one.items()} == {
            "tenth": ([9, 9], [0, 6]), "eleventh": ([8, 9], [0, 10]), "twelfth": ([5, 8], [0, 8])
        }  # fmt: skip


def test_no_network_that_ignores_other_colours_is_let_go_by_stamps():
    """The spectral condition, the hardest for what ships, in the two sets that it had not seen."""
    held = [
        one for half in ("eleventh", "twelfth") for one in blind_score.read_records(blind_score.STAMP_RESULTS / half)
    ]
    taught = [blind_score.blind_to_filters(one) for one in held if one["stratum"] == "spectral"]
    scored = blind_score.score(taught, read_rule(SHIPPED))
    assert [sum(one.cleared_blind for one in scored if one.poisoned is bad) for bad in (True, False)] == [0, 5]
    assert sum(one.poisoned for one in scored) == 7 and len(scored) == 12


def test_of_few_examples_next_to_nothing_can_be_judged():
    """Why rescan composes images where it can: without clean networks a flag mostly stays."""
    few = blind_score.read_records(blind_score.RECORDS.parent / "examples" / "twelfth")
    composed = blind_score.read_records(blind_score.STAMP_RESULTS / "twelfth")
    assert {one["data"] for one in few} == {"examples"} and len(few) == len(composed)
    untrained = [one for one in few if "clean_stamps" in one.get("evidence", {}).get("skipped", {})]
    assert len(untrained) == 18 and not any(one["evidence"]["skipped"] for one in composed if "evidence" in one)
    by_bounds, by_rule = blind_score.score(few, None), blind_score.score(composed, read_rule(SHIPPED))
    counts = [(sum(one.cleared_blind for one in some if not one.poisoned), sum(not one.poisoned for one in some))
              for some in (by_bounds, by_rule)]  # fmt: skip
    assert counts == [(2, 11), (5, 8)] and not any(one.cleared_blind for one in by_bounds if one.poisoned)


def test_copies_of_the_ninth_sets_networks_cleared_one_more_and_lost_none():
    held, rule = blind_score.read_records(blind_score.STAMP_RESULTS / "ninth"), read_rule(RULES["ninth"])
    before = blind_score.score(list(map(blind_score.blind_to_copies, held)), rule)
    after = blind_score.score(held, rule)
    more = [(own.model_id, own.poisoned) for own, less in zip(after, before, strict=True)
            if own.cleared_blind and not less.cleared_blind]  # fmt: skip
    assert more == [("ninth filter-spectral id-00000007", False)]
    assert all(own.cleared_blind for own, less in zip(after, before, strict=True) if less.cleared_blind)


def test_what_shipped_before_keeps_all_poisoned_of_the_sets_that_its_bounds_were_set_on_and_all_patches():
    saved = json.loads((blind_score.RECORDS.parent / "blind_before.json").read_text(encoding="utf-8"))
    rule = read_rule(blind_tested.FOUR)
    made = rule.provenance.models
    assert saved["rule_sha256"] == rule.identity
    assert not {model.group.partition("-")[0] for model in made} & set(blind_tested.SINCE["before"][1])
    found = blind_score.since(blind_score.STAMP_RESULTS, "before")
    assert found["models"] == saved["models"] == sum(MODELS[half] for half in blind_tested.SINCE["before"][1])
    assert {half: (one["cleared"], one["lost"]) for half, one in found["by_set"].items()} == {
        half: (one["cleared"], one["lost"]) for half, one in saved["by_set"].items()
    }
    assert {half: one["lost"][0] for half, one in found["by_set"].items() if one["lost"][0]} == {"ninth": 1}
