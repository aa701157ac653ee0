"""The rule that ships: found where it belongs, nowhere else, and learned again from the records that it came from."""

import json
import sys
from pathlib import Path

import pytest

from trojai_moth.core.records import to_dict, to_json
from trojai_moth.verdict.judge import SHIPPED, shipped_rule
from trojai_moth.verdict.learned_rule import read_rule
from trojai_moth.verdict.settings import EvidenceSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
learn_rule = pytest.importorskip("learn_rule")
score_rule = pytest.importorskip("score_rule")
check_rule = pytest.importorskip("check_rule")
model_sets = pytest.importorskip("model_sets")


@pytest.fixture(scope="module")
def shipped():
    return read_rule(SHIPPED)


def test_it_decides_with_the_settings_it_was_learned_with_only(shipped):
    usual = to_dict(EvidenceSettings())
    assert shipped_rule("neural-cleanse", "composed", usual) == shipped
    assert shipped_rule("k-arm", "composed", usual) is None
    assert shipped_rule("neural-cleanse", "examples", usual) is None
    assert shipped_rule("neural-cleanse", "composed", to_dict(EvidenceSettings(steps=300))) is None


def test_its_records_give_it_again_but_for_rounding():
    made = json.loads(to_json(learn_rule.learn()))
    assert list(check_rule.differences(made, json.loads(SHIPPED.read_text(encoding="utf-8")))) == []


def test_the_check_names_what_differs_and_lets_rounding_pass():
    known = {"a": [1.0, "x"], "b": None}
    assert list(check_rule.differences({"a": [1.0 + 1e-12, "x"], "b": None}, known)) == []
    found = list(check_rule.differences({"a": [1.001, "y"], "b": None}, known))
    assert [line.partition(":")[0] for line in found] == ["/a/0", "/a/1"]
    assert list(check_rule.differences({"a": [1.0], "b": None}, known)) and list(check_rule.differences({}, known))


def test_its_threshold_has_room_below_the_lowest_poisoned_model_that_it_was_learned_from(shipped):
    poisoned = [model.score for model in shipped.provenance.models if model.poisoned]
    assert shipped.threshold < min(poisoned) and len(poisoned) == shipped.retention.true_positives == 67
    assert shipped.metrics.lost.value == 0 and shipped.metrics.cleared.value == pytest.approx(60 / 68)


def test_it_was_learned_from_no_tested_model_no_twin_of_one_and_no_round_of_filters(shipped):
    groups = {model.group for model in shipped.provenance.models}
    assert not any("-filter" in group for group in groups)
    for record in [one for name in model_sets.TESTED for one in learn_rule.read_set(name)]:
        assert record["sha256"] not in shipped.fitted_files and record["twin_group"] not in groups


@pytest.mark.parametrize("name", ("third", "eighth", "start"))
def test_a_model_that_it_was_learned_from_is_not_scored(shipped, name):
    with pytest.raises(AssertionError, match="learned from it"):
        score_rule.scored(learn_rule.read_set(name), shipped)
