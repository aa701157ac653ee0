import json

import pytest
import torch
from click.testing import CliRunner
from fake_round import write_round

from trojai_moth.cli.main import main
from trojai_moth.core.records import read_record
from trojai_moth.eval.distance_bounds.bounds import ClassBounds

FEW = ["--set", "data.train_per_class=6", "--set", "data.held_per_class=6"]
QUICK = [*FEW, "--set", "bounds.steps=3", "--set", "bounds.images_per_class=2", "--set", "bounds.patterns=1"]
DISTANCE = [*FEW, "--set", "distance.steps=3", "--set", "distance.images_per_class=2", "--set", "distance.seeds=[1]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models, and distances of the first."""
    folder = tmp_path_factory.mktemp("bounds")
    write_round(folder / "round", models=2, per_class=2)
    result = call("distance", folder / "round" / "id-00000000", "--out", folder / "before.json", *DISTANCE)
    assert result.exit_code == 0, result.output
    return folder


def call(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    torch.set_flush_denormal(False)
    return result


def test_bounds_are_a_table_and_a_file(folder):
    model, out = folder / "round" / "id-00000000", folder / "bounds.json"
    result = call("bounds", model, "--before", folder / "before.json", "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    found = read_record(ClassBounds, out)
    assert len(found.pairs) == 6 and not found.hardened and found.settings.patterns == 1
    assert all(pair.similarity is not None and pair.leakage is not None for pair in found.pairs)
    assert f"At risk: {len(found.at_risk)} of 6 pairs" in result.stdout and "may be smaller" in result.stdout
    assert "note: 5 different images or fewer" in result.stdout
    signs = [pair.sign_pixels for pair in found.pairs]
    if None in signs:  # without trojai nothing is composed, and the record says so
        assert any("sign_pixels not measured" in note for note in found.notes)
    else:
        assert min(signs) >= 0 and max(signs) > 0  # three signs in three colours, some of them nearly the same


def test_a_surrogate_is_trained_and_measured(folder):
    pytest.importorskip("trojai", reason="composing needs trojai: pip install --no-deps trojai==0.2.23")
    short = {"epochs": 1, "attempts": 1, "easy_per_class": 2, "least_accuracy": 0}
    sets = [part for name, value in short.items() for part in ("--set", f"bounds.surrogate.{name}={value}")]
    model, out = folder / "round" / "id-00000000", folder / "surrogate.json"
    result = call(
        "bounds", model, "--before", folder / "before.json", "--surrogate", "--out", out, *QUICK, *sets,
        "--set", "bounds.success_bound=0.01",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = read_record(ClassBounds, out)
    assert found.settings.surrogate.epochs == 1 and "note: the surrogate is right about " in result.stdout
    # Whatever a network learns from so little, some pair turns within a bound that one image in a hundred reaches.
    assert any(pair.surrogate is not None for pair in found.pairs)


def test_a_surrogate_that_stays_inaccurate_is_a_note(folder, monkeypatch):
    monkeypatch.setattr("trojai_moth.eval.distance_bounds.measures.train_surrogate", lambda *_, **__: None)
    model = folder / "round" / "id-00000000"
    result = call("bounds", model, "--before", folder / "before.json", "--surrogate", *QUICK)
    assert result.exit_code == 0, result.output
    assert "note: surrogate not measured: none came to an accuracy of 90% in 2 attempts" in result.stdout


def test_distances_of_another_model_are_one_line(folder):
    result = call("bounds", folder / "round" / "id-00000001", "--before", folder / "before.json", *QUICK)
    assert result.exit_code == 2 and "before: holds distances of another model file" in result.stderr


def test_a_file_that_is_no_measurement_is_one_line(folder, tmp_path):
    (tmp_path / "no.json").write_text(json.dumps({"mean": 1}))
    result = call("bounds", folder / "round" / "id-00000000", "--before", tmp_path / "no.json", *QUICK)
    assert result.exit_code == 2 and "no.json:" in result.stderr and "Traceback" not in result.output
