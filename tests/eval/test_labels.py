import os

import pytest

from trojai_moth.core.errors import MothError
from trojai_moth.eval.labels import read_labels


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_metadata_in_any_case_and_spelling(tmp_path):
    write(
        tmp_path / "METADATA.csv",
        "architecture,Model_Name,POISONED\nx,id-5,FALSE\nx,id-1,True\nx,id-2,0\nx,id-3,1\nx,id-4,false\nx,id-6,1.0\n",
    )
    labels = read_labels(tmp_path)
    assert labels == {"id-1": True, "id-2": False, "id-3": True, "id-4": False, "id-5": False, "id-6": True}
    assert list(labels) == sorted(labels)


def test_a_byte_order_mark_and_short_rows_do_no_harm(tmp_path):
    write(tmp_path / "METADATA.csv", "\ufeffmodel_name,poisoned\nid-1,True\n\nid-2\n")
    assert read_labels(tmp_path) == {"id-1": True}


@pytest.mark.parametrize("folder", ["", "models/", "groundtruth/"])
def test_ground_truth_of_each_layout(tmp_path, folder):
    write(tmp_path / f"{folder}id-00000001/ground_truth.csv", "1")
    write(tmp_path / f"{folder}id-00000002/ground_truth.csv", "0\n")
    assert read_labels(tmp_path) == {"id-00000001": True, "id-00000002": False}


def test_both_sources_fill_each_other(tmp_path):
    write(tmp_path / "METADATA.csv", "model_name,poisoned\nid-1,True\nid-2,\n")
    write(tmp_path / "id-1/ground_truth.csv", "1\n")
    write(tmp_path / "id-2/ground_truth.csv", "0\n")
    write(tmp_path / "id-3/ground_truth.csv", "1\n")
    assert read_labels(tmp_path) == {"id-1": True, "id-2": False, "id-3": True}


def test_missing_labels_are_absent_not_clean(tmp_path):
    write(tmp_path / "METADATA.csv", "model_name,poisoned\nid-1,\nid-2,nan\n")
    write(tmp_path / "id-3/ground_truth.csv", "\n")
    (tmp_path / "id-4").mkdir()
    assert read_labels(tmp_path) == {}


def test_metadata_without_labels(tmp_path):
    write(tmp_path / "METADATA.csv", "model_name,architecture\nid-1,resnet18\n")
    assert read_labels(tmp_path) == {}


def test_no_label_files_at_all(tmp_path):
    assert read_labels(tmp_path) == {}


def test_disagreement_names_both_files_and_the_model(tmp_path):
    metadata = write(tmp_path / "METADATA.csv", "model_name,poisoned\nid-1,True\n")
    truth = write(tmp_path / "models/id-1/ground_truth.csv", "0\n")
    with pytest.raises(MothError) as caught:
        read_labels(tmp_path)
    message = str(caught.value)
    assert str(metadata) in message and str(truth) in message and "id-1" in message
    assert "\n" not in message


def test_disagreement_of_two_ground_truths(tmp_path):
    write(tmp_path / "models/id-1/ground_truth.csv", "0\n")
    write(tmp_path / "groundtruth/id-1/ground_truth.csv", "1\n")
    with pytest.raises(MothError, match="groundtruth"):
        read_labels(tmp_path)


def test_a_model_listed_twice_with_two_labels(tmp_path):
    write(tmp_path / "METADATA.csv", "model_name,poisoned\nid-1,True\nid-1,False\n")
    with pytest.raises(MothError, match="id-1"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("METADATA.csv", "model_name,poisoned\nid-1,maybe\n", "METADATA.csv row 2: .*'maybe'"),
        ("METADATA.csv", "model,poisoned\nid-1,True\n", "METADATA.csv: no column model_name"),
        ("METADATA.csv", "", "METADATA.csv: no column model_name"),
        ("METADATA.csv", "model_name,poisoned,Poisoned\nid-1,True,False\n", "more than one column poisoned"),
        ("id-1/ground_truth.csv", "poisoned\n", "ground_truth.csv: .*'poisoned'"),
        ("id-1/ground_truth.csv", "0\n1\n", "single 0 or 1"),
        ("id-1/ground_truth.csv", "2\n", "'2'"),
    ],
)
def test_what_can_not_be_understood_is_refused(tmp_path, name, text, message):
    write(tmp_path / name, text)
    with pytest.raises(MothError, match=message):
        read_labels(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "METADATA.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(MothError, match="cannot be read as CSV"):
        read_labels(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "id-1").mkdir()
    os.mkfifo(tmp_path / "id-1/ground_truth.csv")
    assert read_labels(tmp_path) == {}


def test_one_model_folder_is_a_round_of_one(tmp_path):
    folder = tmp_path / "id-00000009"
    folder.mkdir()
    (folder / "ground_truth.csv").write_text("1")
    assert read_labels(folder) == {"id-00000009": True}
