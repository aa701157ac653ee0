"""What the committed figures say of the sets that tested the shipped rule follows from their records."""

import json
import sys
from pathlib import Path

import pytest

from trojai_moth.core.records import to_dict
from trojai_moth.verdict.judge import SHIPPED
from trojai_moth.verdict.learned_rule import read_rule

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
score_rule = pytest.importorskip("score_rule")
stamps_scanner = pytest.importorskip("stamps_scanner")
check_rule = pytest.importorskip("check_rule")
learn_rule = pytest.importorskip("learn_rule")


@pytest.fixture(scope="module")
def saved():
    return json.loads(score_rule.RESULT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shipped():
    return read_rule(SHIPPED)


@pytest.fixture(scope="module")
def held():
    return [record for name in score_rule.TESTED for record in score_rule.read_set(name)]


def counts(models):
    return [score_rule.counted(models, lambda one, bad=bad: one.poisoned is bad) for bad in (False, True)]


def test_every_verdict_is_the_committed_one(saved, shipped, held):
    assert saved["rule_sha256"] == shipped.identity and saved["tested"]["models"] == len(held) == 63
    made = json.loads(json.dumps([to_dict(model) for model in score_rule.scored(held, shipped)]))
    assert list(check_rule.differences(made, saved["verdicts"])) == []
    verdicts = [(one["poisoned"], one["cleared_blind"]) for one in saved["verdicts"]]
    row = next(row for row in saved["tested"]["evaluation"]["rows"] if row["name"] == "blind rule")
    for bad, name in ((False, "false_positives_cleared"), (True, "true_positives_lost")):
        own = [cleared for poisoned, cleared in verdicts if poisoned is bad]
        assert (row[name]["count"], row[name]["total"]) == (sum(own), len(own)) == ((0, 24) if bad else (22, 26))


def test_without_the_check_for_filters_all_six_that_were_taught_one_are_lost(saved, shipped, held):
    blind = [score_rule.blind_to_filters(record) for record in held]
    found = score_rule.by_trigger(blind, shipped)
    assert found == saved["without_filters"]
    assert found == {"cleared": [25, 26], "lost with a polygon": [0, 18], "lost with a filter": [6, 6]}


def test_no_network_that_ignores_other_colours_is_let_go_by_stamps(shipped, held):
    """The spectral condition, the hardest for this rule, in the two sets that have it."""
    taught = [score_rule.blind_to_filters(record) for record in held if record["stratum"] == "spectral"]
    assert counts(score_rule.scored(taught, shipped)) == [[5, 5], [0, 7]]


def test_rounds_with_filters_that_it_was_not_learned_from(saved, shipped):
    found = score_rule.filter_rounds_by_stamps(shipped)
    assert found == saved["filter_rounds_by_stamps"] and found["cleared"] == [40, 41]
    assert counts(score_rule.scored(score_rule.read_set("ninth"), shipped)) == [[8, 11], [2, 9]]
    row = next(row for row in saved["ninth"]["rows"] if row["name"] == "blind rule")
    assert [row[name]["count"] for name in ("false_positives_cleared", "true_positives_lost")] == [8, 2]


def test_of_few_examples_next_to_nothing_can_be_judged(saved, shipped, held):
    """Why rescan composes images where it can: without clean networks a flag mostly stays."""
    few = score_rule.read_set("twelfth-examples")
    composed = [record for record in held if record["set"] == "twelfth"]
    assert {one["data"] for one in few} == {"examples"} and len(few) == len(composed)
    untrained = [one for one in few if "clean_stamps" in one["evidence"]["skipped"]]
    assert len(untrained) == 18 and not any(one["evidence"]["skipped"] for one in composed)
    assert counts(score_rule.scored(few, None)) == [[2, 11], [0, 8]]
    assert counts(score_rule.scored(few, shipped)) == [[0, 11], [0, 8]]
    assert counts(score_rule.scored(composed, shipped)) == [[5, 8], [0, 8]]
    for name in ("rule", "bounds"):
        found = score_rule.short(score_rule.scored(few, shipped if name == "rule" else None))
        assert list(check_rule.differences(found, saved["examples"][name])) == []


def test_naive_hardening_loses_half_and_what_a_verdict_costs(saved):
    for name in score_rule.HARDENED:
        records = score_rule.read_set(name)
        assert score_rule.naive(records) == saved["naive"][name]
        assert score_rule.cost(records) == pytest.approx(saved["cost"][name])
    assert saved["naive"]["confirm"] == {"cleared": [5, 11], "lost": [6, 12]}
    assert saved["naive"]["twelfth"] == {"cleared": [5, 8], "lost": [5, 8]}


def test_what_the_scanner_of_stamps_goes_by():
    file = score_rule.RESULT.with_name("scanners_stamps.json")
    found = {name: stamps_scanner.figures(score_rule.read_set(name)) for name in stamps_scanner.SETS}
    assert list(check_rule.differences(found, json.loads(file.read_text(encoding="utf-8")))) == []
    unseen = found["confirm"]["stamps"]
    assert unseen["true_positives"] == [12, 12] and unseen["false_positives"] == [2, 12]
