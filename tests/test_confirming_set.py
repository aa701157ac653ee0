"""What the record says of the confirming set follows from its records and the rule that ships, which has seen none."""

import json
import sys
from pathlib import Path

import pytest

from trojai_moth.blind.rule import SHIPPED, read_rule
from trojai_moth.calibration import fingerprint

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
blind_score = pytest.importorskip("blind_score")


@pytest.fixture(scope="module")
def held():
    return blind_score.read_records(blind_score.STAMP_RESULTS / "confirm")


def test_the_record_is_of_the_rule_that_ships_and_counts_the_same(held):
    saved = json.loads((blind_score.RECORDS.parent / "blind_confirm.json").read_text(encoding="utf-8"))
    rule = read_rule(SHIPPED)
    assert saved["rule_sha256"] == fingerprint(rule) and saved["models"] == len(held) == 24
    models = blind_score.score(held, rule)
    by_label = {bad: [m.cleared_blind for m in models if m.poisoned is bad] for bad in (True, False)}
    row = next(row for row in saved["evaluation"]["rows"] if row["name"] == "blind rule")
    for bad, name in ((True, "true_positives_lost"), (False, "false_positives_cleared")):
        assert (sum(by_label[bad]), len(by_label[bad])) == (row[name]["count"], row[name]["total"])


def test_no_model_or_twin_of_it_was_learned_from(held):
    made = read_rule(SHIPPED).provenance.models
    assert not {record["sha256"] for record in held} & {model.sha256 for model in made}
    assert not {record["twin_group"] for record in held} & {model.group for model in made}
