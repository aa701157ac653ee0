import os
import re

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


def unusable(caplog, root):
    """The labels that there are, and the one line about those that cannot be used."""
    with caplog.at_level("WARNING", logger="trojai_moth"):
        labels = read_labels(root)
    (line,) = caplog.messages
    assert "\n" not in line
    return labels, line


def test_disagreement_names_both_files_and_the_model(tmp_path, caplog):
    metadata = write(tmp_path / "METADATA.csv", "model_name,poisoned\nid-1,True\nid-2,True\n")
    truth = write(tmp_path / "models/id-1/ground_truth.csv", "0\n")
    labels, line = unusable(caplog, tmp_path)
    assert labels == {"id-2": True}
    assert str(metadata) in line and str(truth) in line and "id-1" in line


def test_disagreement_of_two_ground_truths(tmp_path, caplog):
    write(tmp_path / "models/id-1/ground_truth.csv", "0\n")
    write(tmp_path / "groundtruth/id-1/ground_truth.csv", "1\n")
    labels, line = unusable(caplog, tmp_path)
    assert labels == {} and "groundtruth" in line


def test_a_model_listed_twice_with_two_labels(tmp_path, caplog):
    write(tmp_path / "METADATA.csv", "model_name,poisoned\nid-1,True\nid-1,False\nid-1,True\nid-2,0\n")
    labels, line = unusable(caplog, tmp_path)
    assert labels == {"id-2": False} and "id-1" in line


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("METADATA.csv", "model,poisoned\nid-1,True\n", "METADATA.csv: no column model_name"),
        ("METADATA.csv", "", "METADATA.csv: no column model_name"),
        ("METADATA.csv", "model_name,poisoned,Poisoned\nid-1,True,False\n", "more than one column poisoned"),
    ],
)
def test_a_table_that_can_not_be_understood_is_refused(tmp_path, name, text, message):
    write(tmp_path / name, text)
    with pytest.raises(MothError, match=message):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("METADATA.csv", "model_name,poisoned\nid-1,maybe\n", "METADATA.csv row 2: .*'maybe'"),
        ("id-1/ground_truth.csv", "poisoned\n", "ground_truth.csv: .*'poisoned'"),
        ("id-1/ground_truth.csv", "0\n1\n", "without a header"),
        ("id-1/ground_truth.csv", "2\n", "'2'"),
        ("id-1/ground_truth.csv", "x" * 2000, "cannot be read .larger than 1000 bytes"),
    ],
)
def test_a_label_that_can_not_be_understood_is_its_models_alone(tmp_path, caplog, name, text, message):
    write(tmp_path / name, text)
    write(tmp_path / "id-2/ground_truth.csv", "\ufeff1\r\n\r\n")
    labels, line = unusable(caplog, tmp_path)
    assert labels == {"id-2": True}
    assert "id-1" in line and re.search(message, line)


def test_many_such_labels_are_one_line(tmp_path, caplog):
    rows = "".join(f"id-{number},maybe\n" for number in range(1000))
    write(tmp_path / "METADATA.csv", f"model_name,poisoned\n{rows}")
    labels, line = unusable(caplog, tmp_path)
    assert labels == {} and "997 more" in line and len(line) < 1000


def test_a_ground_truth_that_leads_elsewhere_is_not_read(tmp_path, caplog):
    secret = write(tmp_path / "secret", "1")
    (tmp_path / "round/id-1").mkdir(parents=True)
    (tmp_path / "round/id-1/ground_truth.csv").symlink_to(secret)
    labels, line = unusable(caplog, tmp_path / "round")
    assert labels == {} and "a link that leads out" in line


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "METADATA.csv").write_bytes(b"\xff\xfe\x00\x81")  # UTF-16, by its first two
    with pytest.raises(MothError, match="no column model_name"):
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
