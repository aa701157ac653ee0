"""Conditions from METADATA.csv: a clean twin stands under the trigger condition of its group."""

import pytest

from trojai_moth.core.errors import MothError
from trojai_moth.eval.scored_runs import read_conditions
from trojai_moth.rounds.metadata import METADATA_FILE

COLUMNS = "model_name,number_classes,triggers_0_type,triggers_0_condition,twin_group,lookalike_pairs"


def write(folder, *rows):
    (folder / METADATA_FILE).write_text("\n".join([COLUMNS, *rows]) + "\n", encoding="utf-8")
    return read_conditions(folder)


def test_both_twins_stand_under_the_trigger_condition_of_the_poisoned_one(tmp_path):
    found = write(tmp_path, "id-0,5,polygon,spatial,7,1-2 3-4", "id-1,5,None,None,7,1-2 3-4", "id-2,6,polygon,None,8,")
    same = {"classes": "5", "trigger condition": "spatial", "look-alike pairs": "2"}
    assert found["id-0"] == same and found["id-1"] == same
    assert found["id-2"] == {"classes": "6", "trigger condition": "none", "look-alike pairs": "0"}


def test_without_twins_every_model_stands_under_its_own_condition(tmp_path):
    (tmp_path / METADATA_FILE).write_text(
        "model_name,triggers_0_type,triggers_0_condition\nid-0,polygon,class\nid-1,None,None\nid-2,polygon,spatial\n"
    )
    found = {model: known.get("trigger condition") for model, known in read_conditions(tmp_path).items()}
    assert found == {"id-0": "class", "id-1": None, "id-2": "spatial"}


def test_without_the_file_nothing_is_known_and_a_broken_one_is_named(tmp_path):
    assert read_conditions(tmp_path) == {}
    (tmp_path / METADATA_FILE).write_bytes(b"\xff\xfemodel_name\n")
    with pytest.raises(MothError, match=METADATA_FILE):
        read_conditions(tmp_path)
