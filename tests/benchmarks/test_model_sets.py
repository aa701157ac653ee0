"""The sets that the rule was learned from and tested on: what they promise, and that the records are of them."""

import json
import lzma
import sys
from collections import Counter
from pathlib import Path

import pytest

from trojai_moth.core.records import from_dict
from trojai_moth.synthesis.settings import MakeRoundSettings
from trojai_moth.verdict.features import BlindEvidence

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
model_sets = pytest.importorskip("model_sets")
set_records = pytest.importorskip("set_records")

MODELS = {
    "polygon": 20, "confirm": 24, "third": 40, "fourth": 38, "fifth": 36, "sixth": 39, "seventh": 29, "eighth": 37,
    "ninth": 32, "start": 4, "tenth": 20, "eleventh": 23, "twelfth": 20,
}  # fmt: skip


def rounds(name):
    made = model_sets.SETS[name]
    return {stratum: made.settings(stratum) for stratum in made.strata}


@pytest.mark.parametrize("name", model_sets.SETS)
def test_every_record_is_of_a_round_of_its_set_and_its_evidence_can_be_read(name):
    records = set_records.read_set(name)
    assert len({(one["stratum"], one["model_id"]) for one in records}) == len(records) == MODELS[name]
    settings = rounds(name)
    for record in records:
        made = from_dict(MakeRoundSettings, record["round"], source=record["model_id"])
        assert record["set"] == name and made == settings[record["stratum"]]
        from_dict(BlindEvidence, record["evidence"], source=record["model_id"])
        assert bool(record["injected_pairs"]) is record["poisoned"]


def test_no_seed_and_no_model_file_is_used_twice():
    seeds = [made.seed for name in model_sets.SETS for made in rounds(name).values()]
    assert len(set(seeds)) == len(seeds)
    files = Counter(record["sha256"] for name in model_sets.SETS for record in set_records.read_set(name))
    assert max(files.values()) == 1


@pytest.mark.parametrize("name", ("eighth", "ninth", *model_sets.TESTED))
def test_the_later_sets_are_trained_as_round_4_was(name):
    made = rounds(name).values()
    assert {one.training for one in made} == {"adversarial"} and {one.colour_jitter for one in made} == {0.1}
    assert {round(255 * one.adversarial_eps) for one in made} <= {4, 8, 16}
    assert {one.adversarial_ratio for one in made} <= {0.1, 0.3}


def test_the_eighth_set_has_all_conditions_of_both_triggers_and_the_ninth_filters_only():
    made = rounds("eighth").values()
    assert {one.condition for one in made if one.trigger == "polygon"} == {"none", "class", "spatial", "spectral"}
    assert {one.condition for one in made if one.trigger == "filter"} == {"none", "class", "spectral"}
    assert {one.trigger for one in rounds("ninth").values()} == {"filter"}


def test_most_tested_models_were_poisoned_from_their_first_step():
    """Published models are; the sets before, but for the one that is called start, share a clean start."""
    at_once = {name: {stratum for stratum, made in rounds(name).items() if not made.shared_start} for name in MODELS}
    assert at_once["start"] == set(model_sets.SETS["start"].strata) and at_once["ninth"] == set()
    flagged = [
        one for name in model_sets.TESTED for one in set_records.read_set(name)
        if one["poisoned"] and one["before"]["outcome"] == "flagged"
    ]  # fmt: skip
    assert len(flagged) == 24 and sum(one["stratum"] in at_once[one["set"]] for one in flagged) == 17


def test_records_are_written_alike_whatever_their_order(tmp_path):
    records = set_records.read_set("start")
    for number, order in enumerate((records, records[::-1])):
        set_records.write_records(tmp_path / f"{number}.jsonl.xz", order)
    first, second = ((tmp_path / f"{number}.jsonl.xz").read_bytes() for number in (0, 1))
    assert first == second and set_records.read_records(tmp_path / "0.jsonl.xz") == records
    assert [json.loads(line) for line in lzma.decompress(first).splitlines()] == list(records)
