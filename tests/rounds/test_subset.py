import csv
from pathlib import Path

import pytest

from trojai_moth.core.errors import SettingsError, UnreadableModelError
from trojai_moth.rounds.model_folder import SkippedModel
from trojai_moth.rounds.subset import check_query, choose, published_subsets, query

IDS = [f"id-{number:08d}" for number in range(6)]
CASES = [SkippedModel(model_id=model_id, reason="") for model_id in [*IDS, "extra"]]


@pytest.fixture
def root(tmp_path):
    with (tmp_path / "METADATA.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model_name", "poisoned", "model_architecture", "number_classes", "acc", "odd name"])
        for number, model_id in enumerate(IDS):
            architecture = "resnet18" if number % 2 else "vgg11bn"
            writer.writerow([model_id, number > 3, architecture, 10 + number, 0.9 + number / 100, "x"])
    return tmp_path


def chosen(root, subset):
    return [case.model_id for case in choose(CASES, subset, root)]


def test_without_a_subset_there_is_everything(root):
    assert chosen(root, None) == [case.model_id for case in CASES]


@pytest.mark.parametrize("subset", ["id-00000001,id-00000004", "4, 1", "1 4", "id-00000004 1,"])
def test_ids(root, subset):
    assert chosen(root, subset) == [IDS[1], IDS[4]]


def test_names_that_are_no_ids_if_they_are_there(root):
    assert chosen(root, "extra,2") == [IDS[2], "extra"]


def test_a_file_of_ids(root, tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("# the interesting ones\nid-00000002  # and why\n\n5,3\n")
    assert chosen(root, str(path)) == [IDS[2], IDS[3], IDS[5]]


@pytest.mark.parametrize(("content", "words"), [("", "not a model id"), ("id-x", "'id-x' is not"), (b"\xff", "read")])
def test_files_that_are_no_lists(root, tmp_path, content, words):
    path = tmp_path / "bad.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=words):
        chosen(root, str(path))


def test_ids_that_are_not_there_are_named(root):
    with pytest.raises(SettingsError, match="not in the round: id-00000007, id-00000008, id-00000009 and 1 more"):
        chosen(root, "1,7,8,9,10")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("number_classes > 12", [3, 4, 5]),
        ("poisoned == True", [4, 5]),
        ("not poisoned and model_architecture == 'resnet18'", [1, 3]),
        ("model_architecture in ['resnet18'] & number_classes <= 11", [1]),
        ("12 <= number_classes < 14 or acc > 0.945", [2, 3, 5]),
        ("model_name == 'id-00000003'", [3]),
        ("number_classes != -1 and model_architecture not in ('vgg11bn',)", [1, 3, 5]),
    ],
)
def test_queries_over_metadata(root, text, numbers):
    assert chosen(root, text) == [IDS[number] for number in numbers]


HOSTILE = [
    "@__import__('os').system('touch {}')",
    "__import__('os').system('touch {}')",
    "model_name.str.len() > 3",
    "model_name.__class__ == 1",
    "acc.__init__.__globals__ == 1",
    "eval('1') == 1",
    "acc @ acc",
    "[open('{}', 'w') for x in acc] == 1",
    "(lambda: open('{}', 'w'))() == 1",
    "acc[0] == 1",
    "`odd name` == 'x'",
    "acc == f'{{open(chr(47))}}'",
    "acc := 3",
    "'x' * 999999999 == model_name",
    "9 ** 9 ** 9 ** 9 > acc",
    "acc > 0; import os",
    "acc = 1",
    "acc > 0\nos = 1",
    "os == 1",
    "index == 0",
    "acc > 0 if 1 else 2",
    "(" * 900 + "acc" + ")" * 900,
    "acc > " + "0" * 1000,
    "await acc",
    "acc > 0 and *acc",
    "acc is None",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_queries_that_are_more_than_comparisons_run_nothing(root, text, monkeypatch):
    trap = root / "it_ran"
    monkeypatch.setattr("pandas.DataFrame.query", lambda *a, **k: pytest.fail("it was asked"))
    with pytest.raises(SettingsError) as caught:
        chosen(root, text.format(trap))
    assert not trap.exists() and str(caught.value).isprintable()


def test_harmless_queries_that_make_no_sense(root):
    for text in ("acc > 'x'", "5 > 4", "acc", "'text'"):
        with pytest.raises(SettingsError, match="--subset"):
            chosen(root, text)
    with pytest.raises(SettingsError, match="none of the round's 7 models"):
        chosen(root, "number_classes > 99")
    check_query("acc > 0.1", {"acc"})


def test_a_query_needs_metadata(tmp_path):
    with pytest.raises(SettingsError, match=r"METADATA\.csv, which a query asks, is missing"):
        query(tmp_path / "METADATA.csv", "acc > 0")
    (tmp_path / "METADATA.csv").write_text("name\nx\n")
    with pytest.raises(UnreadableModelError, match="no column model_name"):
        query(tmp_path / "METADATA.csv", "name == 'x'")


def test_the_published_lists(root):
    known = published_subsets()
    assert {name: len(ids) for name, ids in known.items()} == {"moth-false-positives": 32, "natural-filters": 49}
    for ids in known.values():
        assert list(ids) == sorted(set(ids)) and all(len(model_id) == len("id-00000000") for model_id in ids)
    assert chosen(root, "moth-false-positives") == [IDS[1]]
    with pytest.raises(SettingsError, match="none of the round's 7 models is in it"):
        chosen(root, "natural-filters")


def test_a_file_called_like_a_list_does_not_hide_it(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("moth-false-positives").write_text("id-00000002")
    assert chosen(root, "moth-false-positives") == [IDS[1]]
