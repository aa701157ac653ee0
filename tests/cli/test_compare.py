import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from fake_hardener import Scale, named
from fake_round import STORED, write_model
from fake_scanner import Entry, install
from PIL import Image

from trojai_moth.cli.compare import comparison_table
from trojai_moth.cli.main import main
from trojai_moth.core.records import read_record
from trojai_moth.eval.comparison import ABLATION, Comparison, Row

FAST = ["data.train_per_class=3", "data.held_per_class=2", "distance.steps=4", "distance.success_bound=0.1",
        "robustness.steps=1"]  # fmt: skip


def sets(*assignments):
    return [part for text in assignments for part in ("--set", text)]


@pytest.fixture(scope="module")
def clean_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("compare") / "id-00000000", per_class=2)


@pytest.fixture
def poisoned_dir(clean_dir, tmp_path):
    """The same folder with two poisoned example images, one of which the model takes for the target."""
    folder = shutil.copytree(clean_dir, tmp_path / "round" / "id-00000000")
    config = json.loads((folder / "config.json").read_text())
    config["triggers"] = [{"trigger_number": 0, "source_class": 0, "target_class": 2}]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "poisoned_example_data").mkdir()
    for label, name in ((2, 0), (1, 1)):  # the first looks like the target, the second like another class
        source = folder / "clean_example_data" / f"class_{label}_example_0.png"
        shutil.copy(source, folder / "poisoned_example_data" / f"class_0_trigger_0_example_{name}.png")
    return folder


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Run a command with three fake hardeners installed: moth and still change nothing, flat ruins the model."""
    monkeypatch.chdir(tmp_path)
    entries = [Entry(named(name), name=name) for name in ("moth", "flat", "still")]
    install(monkeypatch, *entries, group="trojai_moth.hardeners")
    Scale.calls.clear()

    def call(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    yield call
    torch.set_flush_denormal(False)


def test_the_table_has_every_installed_hardener_and_moth_last(call, clean_dir, tmp_path):
    result = call("compare", clean_dir, *sets(*FAST, "flat.factor=-1"))
    assert result.exit_code == 0, result.output
    out = tmp_path / "id-00000000-comparison"
    assert {path.name for path in out.iterdir()} == {
        "comparison.json", "comparison.csv", "comparison.png", "run.json", "journal", "weights",
    }  # fmt: skip
    comparison = read_record(Comparison, out / "comparison.json")
    assert [row.method for row in comparison.table] == ["original", "flat", "still", "moth"]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[:5]] == ["method", "original", "flat", "still", "moth"]
    assert "attack" not in lines[0] and "poisoned" not in result.stdout
    table = pd.read_csv(out / "comparison.csv")
    assert table["accuracy_loss"][1] > 0.3 and table["accuracy_loss"][2] == table["mean_change"][2] == 0
    assert table["attack_before"].isna().all() and (out / "weights" / "flat.safetensors").exists()
    assert comparison.settings.distance.steps == 4 and "4 steps" in result.stdout
    again = call("compare", clean_dir, *sets(*FAST, "flat.factor=-1"))
    assert again.stdout == result.stdout and len(Scale.calls) == 3


def test_the_ablation_leaves_out_one_part_of_moth_at_a_time(call, clean_dir):
    result = call("compare", clean_dir, "--methods", "still", "--ablation", "--out", "out", *sets(*FAST))
    assert result.exit_code == 0, result.output
    assert [(name, without) for name, without, _ in Scale.calls] == [("still", ())] + [
        ("moth", (part,)) for part in ABLATION
    ]
    assert all(f"moth without {part} " in result.stdout for part in ABLATION)


def test_settings_for_all_methods_and_for_one(call, clean_dir, tmp_path):
    options = sets(*FAST, "hardener.factor=0.9", "moth.factor=0.8")
    assert call("compare", clean_dir, "--methods", "still,moth", "--out", "out", *options).exit_code == 0
    entries = json.loads((tmp_path / "out" / "comparison.json").read_text())["entries"]
    assert [entry["settings"].get("factor") for entry in entries] == [None, 0.9, 0.8]


def test_a_failure_is_said_and_the_others_go_on(call, clean_dir):
    result = call("compare", clean_dir, "--methods", "flat,still", "--out", "o", *sets(*FAST, "flat.error=no [room]"))
    assert result.exit_code == 0 and "flat failed: RuntimeError: no [room]" in result.stdout
    assert any(line.split() == ["flat", "failed"] for line in result.stdout.splitlines())


def test_attack_success_is_in_every_row_of_a_poisoned_model(call, poisoned_dir, tmp_path):
    result = call("compare", poisoned_dir, "--methods", "still,flat", "--out", "out", *sets(*FAST, "flat.factor=-1"))
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table["attack_before"].tolist() == [0.5] * 3 and table["attack_after"].tolist()[1] == 0.5
    assert table["attack_after"][2] != 0.5
    assert "50% -> 50%" in result.stdout and "share of 2 poisoned example images" in result.stdout


def test_an_injected_pair_without_any_trigger_left_is_said_so():
    row = Row(method="moth", accuracy=1.0, attack_before=0.9, attack_after=0.0, injected_before_pixels=9.24)
    table = comparison_table((replace(row, attack_after=None), row, Row(method="pgd", failure="x")))
    *_, attack, injected = (list(column.cells) for column in table.columns)
    assert attack == ["90%", "90% -> 0%", ""] and injected == ["9.2", "9.2 -> none", ""]


def test_an_interruption_says_how_to_go_on(call, clean_dir, tmp_path):
    result = call("compare", clean_dir, "--methods", "still,flat", "--out", "out", *sets(*FAST, "flat.error=interrupt"))
    assert result.exit_code == 2 and "out is usable, and the same command goes on there" in result.stderr
    assert (tmp_path / "out" / "journal" / "id-00000000.still.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "nonsense"], ["--hardener nonsense: not installed", "flat, moth, still"]),
        (["--set", "hardener.nonsense=1"], ["--set hardener.nonsense", "none of the compared methods"]),
        (["--set", "moth.nonsense=1"], ["hardener moth: nonsense"]),
        (["--set", "distance.nonsense=1"], ["--set: distance.nonsense"]),
        (["--set", "scanner.steps=1"], ["one of distance, judge, robustness, hardener, flat, still, moth, data"]),
        (["--methods", ","], ["--methods ,: names no hardener"]),
        (["--out", "full"], ["full", "not empty"]),
    ],
)
def test_mistakes_are_one_line(call, clean_dir, tmp_path, options, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    result = call("compare", clean_dir, *options)
    assert result.exit_code == 2 and "Traceback" not in result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ") and all(word in line for word in words), line
    assert not (tmp_path / "id-00000000-comparison").exists()


class TestHarden:
    def test_prints_attack_success_and_keeps_it_out_of_the_trace(self, call, poisoned_dir, tmp_path):
        options = sets("data.train_per_class=3", "data.held_per_class=2")
        result = call("harden", poisoned_dir, "--hardener", "still", "--out", "w.safetensors", *options)
        assert result.exit_code == 0, result.output
        assert "attack success 50% -> 50% on 2 poisoned example images" in result.stdout
        assert "poison" not in (tmp_path / "w.json").read_text() + (tmp_path / "w.safetensors").read_bytes().decode(
            "latin1"
        )

    def test_says_nothing_of_a_clean_model(self, call, clean_dir):
        options = sets("data.train_per_class=3", "data.held_per_class=2")
        result = call("harden", clean_dir, "--hardener", "still", "--out", "w.safetensors", *options)
        assert result.exit_code == 0 and "attack" not in result.stdout

    def test_poisoned_images_that_can_not_be_read_do_not_stop_it(self, call, poisoned_dir, tmp_path):
        wide = Image.fromarray(np.zeros((STORED, STORED + 1, 3), dtype=np.uint8))
        wide.save(poisoned_dir / "poisoned_example_data" / "class_1_trigger_0_example_0.png")
        options = sets("data.train_per_class=3", "data.held_per_class=2")
        result = call("harden", poisoned_dir, "--hardener", "still", "--out", "w.safetensors", *options)
        assert result.exit_code == 0 and (tmp_path / "w.safetensors").exists()
        assert "attack success not measured: " in result.stdout and "37 x 36 pixels" in result.stdout
