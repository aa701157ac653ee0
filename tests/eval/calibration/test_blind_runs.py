"""Runs whose journal is written by hand, read with the truth of a tiny round."""

import json
import shutil

import pytest
from fake_round import write_round
from learned_rules import evidence, pair, write_run

from trojai_moth.core.errors import MothError
from trojai_moth.eval.calibration.blind_runs import injected_pairs, open_blind_run, read_blind_run
from trojai_moth.rounds.reading import read_case

IDS = [f"id-{number:08d}" for number in range(3)]
CANDIDATES = (pair(0, 1, held_success=0.9), pair(2, 1, held_success=0.2))


@pytest.fixture
def round_dir(tmp_path):
    root = write_round(tmp_path / "round", models=3, poisoned=[1, 2], per_class=1)
    tell(root / IDS[1], [{"source_class": 0, "target_class": 1}])
    lines = (root / "METADATA.csv").read_text().splitlines()
    groups = ["twin_group", "7", "7", ""]
    (root / "METADATA.csv").write_text("".join(f"{a},{b}\n" for a, b in zip(lines, groups, strict=True)))
    return root


def tell(directory, triggers):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"triggers": triggers}))


def make_run(root, round_dir, flagged=IDS):
    found = {model_id: evidence(*CANDIDATES) if model_id in flagged else None for model_id in IDS}
    return write_run(root, round_dir, found)


def test_evidence_comes_with_its_truth(tmp_path, round_dir):
    clean, poisoned = read_blind_run(make_run(tmp_path / "run", round_dir, IDS[:2]), round_dir)
    assert (clean.model_id, poisoned.model_id) == (IDS[0], IDS[1])
    assert not clean.poisoned and clean.injected_pairs == () and clean.right_pairs == ()
    assert poisoned.poisoned and poisoned.injected_pairs == ((0, 1),) and poisoned.right_pairs == CANDIDATES[:1]
    assert clean.twin_group == poisoned.twin_group == "round twins 7"
    assert clean.evidence == evidence(*CANDIDATES) and clean.architecture == "squeezenetv1_1"


def test_the_run_says_what_it_was_made_with(tmp_path, round_dir):
    run = open_blind_run(make_run(tmp_path / "run", round_dir), round_dir)
    assert (run.scanner, run.data, run.source.round, run.source.seed) == ("k-arm", "composed", "round", 3)
    assert run.source.version == "0.1" and len(run.models) == 3
    assert run.models[2].twin_group == f"round {IDS[2]}"  # without a group it is its own


def test_models_without_a_label_are_left_out(tmp_path, round_dir):
    run_dir = make_run(tmp_path / "run", round_dir)
    (round_dir / "METADATA.csv").write_text("model_name\n")
    (round_dir / IDS[0] / "ground_truth.csv").unlink()
    assert [model.model_id for model in read_blind_run(run_dir, round_dir)] == IDS[1:]


def test_pairs_of_several_triggers_and_of_several_victims(round_dir):
    case = read_case(round_dir / IDS[1])
    tell(case.directory, [{"source_class": [2, 0], "target_class": 1}, {"source_class": 1, "target_class": 0}])
    assert injected_pairs(case) == ((0, 1), (1, 0), (2, 1))
    for nothing in (None, "x", [None], [{}], [{"source_class": 1, "target_class": 1}]):
        tell(case.directory, nothing)
        assert injected_pairs(case) == ()


def test_pairs_come_from_the_images_where_the_config_names_no_victim(round_dir):
    case = read_case(round_dir / IDS[1])
    tell(case.directory, [{"source_class": None, "target_class": 2}])
    case.poisoned_examples.mkdir()
    shutil.copy(next(case.examples.iterdir()), case.poisoned_examples / "class_1_trigger_0_example_0.png")
    assert injected_pairs(case) == ((1, 2),)


def test_the_truth_of_another_round_is_refused(tmp_path, round_dir):
    run_dir = make_run(tmp_path / "run", round_dir)
    other = shutil.copytree(round_dir, tmp_path / "other")
    (other / IDS[1] / "model.pt").write_bytes(b"another")
    with pytest.raises(MothError, match=r"model\.pt is not the file that .*run scanned as id-00000001"):
        read_blind_run(run_dir, other)
    shutil.rmtree(other / IDS[1])
    with pytest.raises(MothError, match="give the run's round"):
        read_blind_run(run_dir, other)


def test_what_is_no_run_is_refused(tmp_path, round_dir):
    with pytest.raises(MothError, match="not a run directory"):
        read_blind_run(tmp_path / "nothing", round_dir)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "ground_truth.csv").write_text("maybe"),
        lambda folder: tell(folder, []) or (folder / "poisoned_example_data").symlink_to("/"),
    ],
)
def test_one_models_files_do_not_keep_the_others_from_being_counted(tmp_path, round_dir, spoil, caplog):
    run_dir = make_run(tmp_path / "run", round_dir)
    spoil(round_dir / IDS[2])
    with caplog.at_level("WARNING", logger="trojai_moth"):
        found = [model.model_id for model in read_blind_run(run_dir, round_dir)]
    assert (found == IDS[:2] and IDS[2] in caplog.text) or (found == IDS and not caplog.text)
