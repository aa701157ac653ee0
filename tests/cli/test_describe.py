"""Networks of one's own on the command line: described, and then taken by every command."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from described_models import CODE, NAMES, write_images, write_model

from trojai_moth.cli.main import main

NETWORK = ("--architecture", "toy_networks:Planted")
FEW = ("--set", "data.train_per_class=6", "--set", "data.held_per_class=4")
QUICK = ("--set", "scanner.steps=60", "--set", "scanner.screen_steps=60", "--set", "scanner.precision=fp32")
_SIZE = ("mode=pairwise", "rule=size", "pair_bound=200")
BY_SIZE = tuple(part for one in _SIZE for part in ("--set", f"scanner.{one}"))
MOTH = ("--set", "hardener.rounds=1", "--set", "hardener.precision=fp32")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A clean and a backdoored network with images beside them, and their code."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "toy_networks.py").write_text(CODE)
    write_images(folder / "zoo" / "images")
    write_model(folder / "zoo" / "good")
    write_model(folder / "zoo" / "bad", door=40.0)
    return folder


@pytest.fixture
def call(home, monkeypatch):
    monkeypatch.chdir(home)

    def run(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        torch.set_flush_denormal(False)
        return result

    return run


@pytest.fixture
def described(call, home):
    for name in ("good", "bad"):
        if not (home / "zoo" / name / "model.json").exists():
            result = call("describe", f"zoo/{name}/planted.th", *NETWORK, "--data", "zoo/images")
            assert result.exit_code == 0, result.output
    return home / "zoo"


def test_what_is_written_is_what_was_found_out(described):
    said = json.loads((described / "good" / "model.json").read_text())
    assert said == {
        "architecture": "toy_networks:Planted", "weights": "planted.th", "classes": 3, "class_names": list(NAMES),
        "channels": 1, "size": [16, 24], "images": "../images", "accuracy": 1.0,
    }  # fmt: skip


def test_code_is_imported_where_the_user_names_it_and_not_otherwise(described, call):
    result = call("scan", "zoo/good", *FEW, *QUICK)
    assert result.exit_code == 2 and "name it on the command line" in result.output
    assert "toy_networks:Planted" in result.output and "Traceback" not in result.output


def test_a_scan_finds_the_backdoor_of_one_and_none_of_the_other(described, call):
    result = call("scan", "zoo/bad", *NETWORK, *FEW, *QUICK, *BY_SIZE)
    assert result.exit_code == 1, result.output
    assert "->dog" in result.stdout and "of several outputs, probabilities (their logarithm is taken)" in result.stderr
    result = call("scan", "zoo/good", *NETWORK, *FEW, *QUICK)
    assert result.exit_code == 0, result.output


def test_weights_alone_with_images_elsewhere(described, call):
    result = call("scan", "zoo/good/planted.th", *NETWORK, "--data", "zoo/images", *FEW, *QUICK)
    assert result.exit_code == 0, result.output
    result = call("scan", "zoo/good/planted.th", "--data", "zoo/images")
    assert result.exit_code == 2 and "name its network with --architecture" in result.output


def test_distances_hardening_and_the_card_with_names(described, call):
    result = call("harden", "zoo/good", *NETWORK, *FEW, *MOTH, "--out", "hard.safetensors")
    assert result.exit_code == 0, result.output
    settings = ("--set", "distance.steps=150", "--set", "distance.seeds=[1]")
    result = call("distance", "zoo/good", *NETWORK, *FEW, *settings, "--out", "before.json")
    assert result.exit_code == 0 and any(f"smallest {name}->" in result.stdout for name in NAMES), result.output
    found = json.loads((described.parent / "before.json").read_text())
    assert found["channels"] == 1 and found["mean_l1"] == found["mean"]
    pytest.importorskip("huggingface_hub")
    bounds = ("--set", "bounds.steps=20", "--set", "bounds.patterns=1", "--set", "bounds.images_per_class=4")
    result = call("card", "zoo/good", *NETWORK, *FEW, *settings, *bounds, "--weights", "hard.safetensors")
    assert result.exit_code == 0, result.output
    text = (described / "good" / "README.md").read_text()
    assert "(owl)" in text and "16 x 24 input" in text
    result = call(
        "card", "verify", "zoo/good/README.md", "zoo/good", *NETWORK, "--weights", "hard.safetensors", "--pairs", 1
    )
    assert result.exit_code == 0, result.output
    result = call("bounds", "zoo/good", *NETWORK, *FEW, *bounds, "--before", "before.json")
    assert result.exit_code == 0 and "->owl" in result.stdout, result.output


def test_a_folder_of_such_folders_is_a_round(described, call):
    """A flag of which no rule knows the kind stays, and the table says so."""
    result = call("rescan", "zoo", "--out", "run", *NETWORK, *FEW, *QUICK, *MOTH, *BY_SIZE)
    assert result.exit_code == 1, result.output
    assert "not judged: no rule" in result.stdout and "->dog" in result.stdout
    rows = pd.read_csv("run/results.csv").set_index("model")
    assert rows.loc["bad", "verdict"] == "not judged" and rows.loc["bad", "rule"] == "none"
    assert "no rule fits" in rows.loc["bad", "reason"] and rows.loc["good", "verdict"] == "clean"
    assert rows.loc["bad", "pair_before"].endswith("->dog")
    result = call("report", "run")
    assert result.exit_code == 0, result.output
    assert call("export", "run").exit_code == 0
    result = call("doctor", "zoo", *NETWORK, "--workers", 1)
    assert result.exit_code == 0 and "2 can be judged" in result.output, result.output


def test_workers_may_import_what_the_user_named(described, call):
    result = call("rescan", "zoo", "--out", "by-workers", *NETWORK, *FEW, *QUICK, "--workers", 1)
    assert pd.read_csv("by-workers/results.csv")["flagged_before"].notna().all(), result.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "toy_networks:Missing"}, "toy_networks:Missing"),
        ({"classes": 4}, "4"),
        ({"images": "../../elsewhere"}, "lie outside of the model's folder"),
        ({"weights": "other.th"}, "are no file of this folder"),
        ({"size": [16, 0]}, "size"),
        ({"wieghts": "planted.th"}, "wieghts"),
        ({"accuracy": 2}, "accuracy"),
        ({"class_names": ["cat", "cat", "owl"]}, "two class_names are the same"),
        ({"mean": [0.1]}, "std"),
    ],
)
def test_a_description_that_cannot_be_is_one_line(described, call, tmp_path, change, words):
    folder = tmp_path / "model"
    write_model(folder)
    said = json.loads((described / "good" / "model.json").read_text())
    del said["images"]
    (folder / "model.json").write_text(json.dumps({**said, **change}))
    result = call(
        "scan", folder, *NETWORK, "--architecture", "toy_networks:Missing", "--data", "zoo/images", *FEW, *QUICK
    )
    lines = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert result.exit_code == 2 and words in lines[-1] and "Traceback" not in result.output


def test_images_of_other_classes_are_refused_before_hours_are_spent(described, call, tmp_path):
    for name, other in zip(NAMES, ("dog", "owl", "cat"), strict=True):
        (tmp_path / other).symlink_to(described / "images" / name)
    result = call("describe", "zoo/good/planted.th", *NETWORK, "--data", tmp_path, "--dry-run")
    assert result.exit_code == 2 and "order" in result.output


def test_describing_needs_to_know_the_network(call, home, tmp_path):
    write_model(tmp_path / "new")
    result = call("describe", tmp_path / "new", "--data", "zoo/images")
    assert result.exit_code == 2 and "name it with --architecture" in result.output
    assert not (tmp_path / "new" / "model.json").exists()


def test_on_a_terminal_it_asks_for_what_is_not_given(call, described, monkeypatch):
    monkeypatch.setattr("trojai_moth.cli.describe._on_terminal", lambda: True)
    answers = "toy_networks:Planted\nzoo/images\n"
    result = CliRunner().invoke(main, ["describe", "zoo/good/planted.th", "--dry-run"], input=answers)
    assert result.exit_code == 0, result.output
    assert "Network (torchvision, timm, or package.module:factory) of planted.th" in result.output
    assert '"accuracy": 1.0' in result.output and '"images": "../images"' in result.output


def test_arrays_say_the_names_and_the_order(call, described, tmp_path):
    """An .npz of grey images, and a file with other names than its own."""
    shown = sorted((described / "images" / "cat").iterdir())
    from PIL import Image

    x = np.stack([np.asarray(Image.open(path.parents[1] / name / path.name)) for name in NAMES for path in shown])
    np.savez(tmp_path / "images.npz", x=x, y=np.repeat(np.arange(3), len(shown)))
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    result = call("describe", "zoo/good/planted.th", *NETWORK, "--data", tmp_path / "images.npz", "--labels",
                  tmp_path / "names.txt", "--dry-run")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["class_names"] == ["one", "two", "three"]
