import json
import shutil
from contextlib import nullcontext

import pytest
import torch
from click.testing import CliRunner
from fake_round import write_round
from PIL import Image
from safetensors.torch import save_file

from trojai_moth.cli import distance as command
from trojai_moth.cli.main import main
from trojai_moth.cli.model import open_model
from trojai_moth.core.records import read_record
from trojai_moth.triggers.distance_records import FAST, FAST_ERROR, DistanceMatrix

FEW = ["--set", "data.train_per_class=6", "--set", "data.held_per_class=6"]
QUICK = [*FEW, "--set", "distance.steps=60", "--set", "distance.images_per_class=4", "--set", "distance.seeds=[1]"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("distance") / "round", per_class=4) / "id-00000000"


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Run a command in the test's folder; output and exit code."""
    monkeypatch.chdir(tmp_path)
    yield lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
    torch.set_flush_denormal(False)


@pytest.fixture
def measured(call, model_dir, tmp_path):
    """Measure into a file in the test's folder; the record."""

    def measured(name, *options):
        result = call("distance", model_dir, "--out", name, *QUICK, *options)
        assert result.exit_code == 0, result.output
        return read_record(DistanceMatrix, tmp_path / name)

    return measured


@pytest.fixture
def refused(call):
    def refused(*arguments):
        result = call("distance", *arguments)
        assert result.exit_code == 2 and "Traceback" not in result.output
        return result.stderr.strip().splitlines()[-1]

    return refused


def test_pairs_picture_and_file(call, model_dir, tmp_path):
    result = call("distance", model_dir, "--out", "d.json", "--plot", "d.png", "--pairs", "0->1,2->1", *QUICK)
    assert result.exit_code == 0, result.output
    found = read_record(DistanceMatrix, tmp_path / "d.json")
    assert [(pair.victim, pair.target) for pair in found.pairs] == [(0, 1), (2, 1)] and found.distances[1][0] is None
    assert result.stdout.startswith("d.json: mean ") and f"; {found.censored} of 2 pairs censored" in result.stdout
    # Two of four examples are held back; the other two of four images are augmented copies of theirs. Of class 1, which
    # is no victim here, none are made.
    assert found.images == (4, 0, 4) and found.data.endswith("; held images; read as RGB, /255, crop 32 of 36")
    assert "warning: 5 different images or fewer of classes 0, 2 (fewest 2)" in result.stderr
    with Image.open(tmp_path / "d.png") as picture:
        assert picture.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.json", "d.png"]


def test_random_pairs_are_the_same_every_time(measured):
    one, two = (measured(f"{name}.json", "--pairs", "3", "--set", "distance.steps=2") for name in "ab")
    assert len(one.pairs) == 3 and one.pairs == two.pairs


def test_training_images_are_other_images(measured):
    held, train = (measured(f"{on}.json", "--on", on, "--set", "distance.steps=2") for on in ("held", "train"))
    for ours, theirs in zip(held.image_sha256, train.image_sha256, strict=True):
        assert len(ours) == len(theirs) == 4 and not set(ours) & set(theirs)


def test_fast_is_a_preset_that_settings_override(call, model_dir, tmp_path):
    options = (*FEW, "--fast", "--set", "distance.steps=2", "--pairs", "0->1")
    result = call("distance", model_dir, "--out", "f.json", *options)
    assert result.exit_code == 0 and f"--fast: {FAST_ERROR}" in result.stderr
    settings = read_record(DistanceMatrix, tmp_path / "f.json").settings
    assert settings.steps == 2 and settings.seeds == FAST["seeds"] and settings.stall_steps == FAST["stall_steps"]
    assert FAST_ERROR in " ".join(call("distance", "--help").output.split())


def write_weights(subject, path):
    """What hardening would leave: other weights and the name of the model that they were made from."""
    tensors = {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}
    tensors["classifier.1.weight"] *= 0.8
    save_file(tensors, path, {"source_sha256": subject.source_sha256})


def test_hardened_weights_are_measured_and_compared(call, measured, model_dir, tmp_path):
    opened = open_model(model_path=model_dir, data="examples", backgrounds=None, assignments=(), seed=0, device="cpu")
    write_weights(opened.opened.subject, tmp_path / "w.safetensors")
    before, after = measured("before.json"), measured("after.json", "--weights", "w.safetensors")
    assert before.image_sha256 == after.image_sha256 and before.source_sha256 == after.source_sha256
    assert before.weights_sha256 != after.weights_sha256
    result = call("distance", "--compare", "before.json", "after.json", "--out", "change", "--plot", "c.png")
    assert result.exit_code == 0, result.output
    change = json.loads((tmp_path / "change" / "comparison.json").read_text())
    gain = change["gain"]
    assert gain["pairs"] == 6 and f"\nmean distance: {gain['mean']['change']:+.0%} (" in result.stdout
    for words in (
        "geometric mean distance: ",
        "smallest distance: ",
        "95 % intervals over pairs",
        "note: searched for at most",
        "pairs that shrank: ",
        "smallest before:",
    ):
        assert words in result.stdout
    assert result.stdout.count("->") >= 6 and "censored: 0 before, 0 after" in result.stdout
    assert (tmp_path / "change" / "comparison.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_an_interrupted_measurement_goes_on(call, model_dir, tmp_path, monkeypatch):
    options = [*QUICK, "--set", "distance.rows_per_group=1", "--set", "distance.steps=3"]

    def interrupt(text):
        if text.startswith("3/6"):
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "shown_progress", lambda: nullcontext(interrupt))
    assert call("distance", model_dir, "--out", "d.json", *options).exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["d.partial.json"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    other = call("distance", model_dir, "--out", "d.json", *options, "--set", "distance.steps=4")
    assert other.exit_code == 2 and "d.partial.json: was left by" in other.stderr
    result = call("distance", model_dir, "--out", "d.json", *options, "-v")
    assert result.exit_code == 0 and "3/3 rows" in result.stderr and "/6" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["d.json"]
    assert len(read_record(DistanceMatrix, tmp_path / "d.json").pairs) == 6


def test_classes_without_held_images_need_the_training_images(refused, call, tmp_path):
    alone = write_round(tmp_path / "round", per_class=1) / "id-00000000"
    assert "--on train" in refused(alone, *QUICK)
    assert call("distance", alone, *QUICK, "--set", "distance.steps=2", "--on", "train").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a model to measure"),
        (["MODEL", "--pairs", "0->0"], "--pairs 0->0"),
        (["MODEL", "--pairs", "0"], "at least one pair"),
        (["MODEL", "--plot", "p.jpg"], "--plot p.jpg: must end in .png"),
        (["MODEL", "--out", "."], "--out .: is a folder"),
        (["MODEL", "--weights", "d.json"], "d.json: is cut short or damaged"),
        (["MODEL", "--set", "distance.nonsense=1"], "nonsense"),
        (["MODEL", "--compare", "d.json", "d.json"], "--compare: takes two finished measurements"),
        (["--fast", "--compare", "d.json", "d.json"], "nothing to measure (fast)"),
        (["--compare", "d.json", "d.json", "--out", "d.json"], "--out d.json: is a file"),
        (["--compare", "d.json", "broken.json"], "broken.json: not json"),
        (["--compare", "d.json", "other.json"], "d.json and other.json: not comparable: steps is"),
        (["--compare", "d.json", "missing.json"], "missing.json"),
    ],
)
def test_mistakes_are_one_line(refused, small_records, model_dir, tmp_path, arguments, words):
    for file in small_records.iterdir():
        shutil.copy(file, tmp_path)
    line = refused(*(model_dir if argument == "MODEL" else argument for argument in arguments))
    assert words.lower() in line.lower(), line


@pytest.fixture(scope="module")
def small_records(model_dir, tmp_path_factory):
    """A measurement, one with other settings, and a damaged one."""
    folder = tmp_path_factory.mktemp("records")
    for name, steps in (("d", 2), ("other", 3)):
        options = [*FEW, "--set", f"distance.steps={steps}", "--set", "distance.seeds=[1]", "--pairs", "0->1"]
        result = CliRunner().invoke(main, ["distance", str(model_dir), "--out", str(folder / f"{name}.json"), *options])
        assert result.exit_code == 0, result.output
    torch.set_flush_denormal(False)
    (folder / "broken.json").write_text("{")
    return folder


def test_how_images_are_read_and_how_many_are_right_is_said(call, model_dir):
    result = call("distance", model_dir, "--out", "d.json", "--pairs", "0->1", *QUICK, "--set", "distance.steps=2")
    said = next(line for line in result.stderr.splitlines() if "read as" in line)
    assert "id-00000000: read as RGB, /255, crop 32 of 36 (published logits reproduced within" in said
    assert said.endswith("100.0% of 12 images right")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mean", "0.5", "--std", "0.5,0.5,0.5"], "crop 32 of 36, 0.5 mean and std: error"),
        (["--mean", "0.4,0.5,0.6", "--std", "1"], "mean 0.4 0.5 0.6, std 1 1 1"),
        (["--mean", "0.5"], "data.mean and data.std (--mean, --std): the std is missing; give both"),
        (["--mean", "0.5", "--std", "0"], "std is above 0"),
        (["--mean", "120", "--std", "60"], "they are of channels in [0, 1]"),
        (["--mean", "a,b,c"], "write one number, or one for each channel with commas between"),
        (["--expect-accuracy", "93"], "93.0 is not in the range 0<=x<=1"),
    ],
)
def test_a_mean_and_std_that_do_not_fit_are_refused(refused, model_dir, options, words):
    assert words in refused(model_dir, *options)


def test_classes_that_changed_places_are_named_also_where_one_pair_is_asked_for(refused, model_dir, tmp_path):
    for path in (model_dir / "clean_example_data").iterdir():
        label = {"0": "1", "1": "0", "2": "2"}[path.name[6]]
        (tmp_path / "swapped" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "swapped" / label)
    assert "the model takes 0 -> 1 -> 0" in refused(model_dir, "--data", "swapped", "--pairs", "0->2")


def test_an_expected_accuracy_is_asked_for(call, refused, model_dir, tmp_path):
    for label in range(3):  # a third of the images are of other classes
        for number in range(6):
            source = model_dir / "clean_example_data" / f"class_{label}_example_{number % 4}.png"
            target = tmp_path / "mixed" / str((label + (number >= 4)) % 3) / f"{label}_{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    quick = ("--data", "mixed", *QUICK, "--set", "distance.steps=2", "--out", "m.json")
    assert "66.7% of 18 images right" in call("distance", model_dir, *quick).stderr
    assert "where 95.0% is expected" in refused(model_dir, *quick, "--expect-accuracy", "0.95")
