import json

import pytest

from trojai_moth.core.errors import SettingsError
from trojai_moth.rounds.class_names import class_names, read_names, said
from trojai_moth.rounds.config_file import CaseConfig
from trojai_moth.rounds.model_folder import ModelFolder

THREE = ("stop", "give way", "no entry")


def written(folder, content):
    path = folder / "names"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "stop\ngive way\n\nno entry",
        "\ufeffstop\r\n  give way \r\nno entry\r\n",
        json.dumps(THREE),
        json.dumps({"2": "no entry", "0": "stop", "1": "give way"}),
    ],
)
def test_names_are_read_from_lines_and_json(tmp_path, content):
    assert read_names(written(tmp_path, content), 3) == THREE


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("stop\ngive way", "2 names for 3 classes"),
        ('["a", "b", 3]', "a name is not text"),
        ('["a", "b", " "]', "or empty"),
        ('{"1": "a", "2": "b", "3": "c"}', "keys must be 0 to 2"),
        ('{"0": "a"', "not class names"),
        ("[" * 100_000, "not class names"),
        (b"\xff\xfe\x00", "not class names"),
        (b"a" * (1 << 20) + b"bc", "larger than 1 MiB"),
    ],
)
def test_files_that_do_not_name_every_class_are_refused(tmp_path, content, words):
    path = written(tmp_path, content)
    with pytest.raises(SettingsError, match=words) as caught:
        read_names(path, 3)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(SettingsError):
        read_names(tmp_path / "nothing", 3)


def test_what_moves_a_cursor_or_is_too_long_is_no_name(tmp_path):
    first, second = read_names(written(tmp_path, json.dumps(["a\x1b[31m\nb", "x" * 200])), 2)
    assert first == "a [31m b" and second == "x" * 77 + "..."


def test_signs_name_classes_in_their_order(tmp_path):
    case = ModelFolder("id-0", tmp_path, CaseConfig())
    assert class_names(case, 2) == ("0", "1")
    (tmp_path / "foregrounds").mkdir()
    for name in ("3-1.png", "10-2.png"):
        (tmp_path / "foregrounds" / name).touch()
    assert class_names(case, 2) == ("10-2", "3-1")
    assert class_names(case, 3) == ("0", "1", "2")  # a sign is missing, and nothing says which
    assert class_names(case, 3, written(tmp_path, json.dumps(THREE))) == THREE


def test_a_class_in_words():
    assert said(1, ("0", "1")) == "class 1" and said(1, THREE) == "class 1 (give way)"
