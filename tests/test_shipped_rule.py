"""The rule that ships: found where it belongs, nowhere else, and re-made by the command that its file came from."""

import sys
from pathlib import Path

import pytest

from trojai_moth.blind.rule import SHIPPED, read_rule, shipped_rule
from trojai_moth.blind.settings import EvidenceSettings
from trojai_moth.records import to_dict

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
blind_rule = pytest.importorskip("blind_rule")
blind_score = pytest.importorskip("blind_score")


def test_it_decides_with_the_settings_it_was_learned_with_only():
    usual = to_dict(EvidenceSettings())
    assert shipped_rule("neural-cleanse", "composed", usual) == read_rule(SHIPPED)
    assert shipped_rule("k-arm", "composed", usual) is None
    assert shipped_rule("neural-cleanse", "examples", usual) is None
    assert shipped_rule("neural-cleanse", "composed", to_dict(EvidenceSettings(steps=300))) is None


def test_the_committed_records_give_the_weights_that_ship():
    records = blind_rule.learned_from(blind_rule.RECORDS)
    made = blind_rule.fit_rule(blind_rule.labelled(records), blind_rule.SETTINGS, blind_rule.source("development"))
    shipped = read_rule(SHIPPED)
    assert made.features == shipped.features
    assert [term.weight for term in made.terms] == pytest.approx([term.weight for term in shipped.terms], rel=1e-3)
    assert made.threshold == pytest.approx(shipped.threshold, rel=1e-2)


def test_scored_models_had_no_part_in_it_and_the_record_counts_them():
    shipped = read_rule(SHIPPED)
    held = blind_score.read_records(blind_score.RECORDS / "scored")
    assert not {record["sha256"] for record in held} & shipped.fitted_files
    groups = {record["twin_group"] for record in held}
    assert not groups & {model.group for model in shipped.provenance.models}
    models = blind_score.score(held, shipped)
    known = [record for record in held if record["before"]["outcome"] == "flagged"]
    assert len(models) == len(known) and any(model.cleared_blind for model in models)


def test_a_model_it_was_learned_from_can_not_be_scored():
    records = blind_rule.learned_from(blind_rule.RECORDS)
    with pytest.raises(AssertionError, match="learned from it"):
        blind_score.score(records, read_rule(SHIPPED))
