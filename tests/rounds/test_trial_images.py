"""Models without example images: how they read images is found on images of a folder, or composed of their signs."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from fake_round import write_model

from trojai_moth.cli.main import main
from trojai_moth.core.errors import SettingsError, UnreadableModelError
from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.model_check import ModelCheck, check_model
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.preprocessing import PreprocessingChoice
from trojai_moth.rounds.reading import read_case
from trojai_moth.rounds.samples import collect_samples
from trojai_moth.runs.journal import ScanRecord

CPU = torch.device("cpu")
QUICK = ["--set", "scanner.screen_steps=2", "--set", "scanner.steps=2", "--set", "data.train_per_class=4"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model without example images, and the images that it knows, in a folder of its own."""
    root = tmp_path_factory.mktemp("trial")
    model = write_model(root / "round" / "id-00000000", per_class=4)
    (model / "clean-example-logits.csv").unlink()
    shutil.move(model / "clean_example_data", root / "images")
    return model, root / "images"


def of_folder(path, source="folder"):
    return DataSettings(source=source, folder=str(path), train_per_class=4, held_per_class=2)


def opened(model, data=None):
    return open_folder(read_case(model), CPU, data)


@pytest.mark.parametrize("data", [None, DataSettings(), DataSettings(source="examples+examples")])
def test_without_any_images_the_refusal_says_what_would_do(made, data):
    with pytest.raises(UnreadableModelError, match="--data composed or --data FOLDER") as caught:
        opened(made[0], data)
    assert str(caught.value).startswith(str(made[0] / "clean_example_data"))


def test_no_signs_no_composed_images(made, tmp_path):
    model = shutil.copytree(made[0], tmp_path / "id-00000000")
    shutil.rmtree(model / "foregrounds")
    (model / "clean_example_data").mkdir()
    with pytest.raises(UnreadableModelError, match=r"classes with --data FOLDER$"):
        opened(model, DataSettings(source="composed"))


@pytest.mark.parametrize("source", ["folder", "examples+folder", "folder+composed"])
def test_images_of_a_folder_tell_how_a_model_reads(made, source):
    model, images = made
    found = opened(model, of_folder(images, source))
    assert found.convention.chosen.words == "RGB, /255, crop 32 of 36" and found.convention.accuracy == 1.0
    assert found.convention.by == "accuracy" and found.convention.images_of == f"images of {images}"
    assert found.check == f"no example images; accuracy on images of {images} 1.000"
    assert from_dict(PreprocessingChoice, to_dict(found.convention)) == found.convention
    assert len(found.examples) == 0 and found.raw.shape == (0, 3, 36, 36) and found.names == ()


def test_what_is_read_otherwise_is_found_too(made, tmp_path):
    """The images' channels change places, so that the model must be found to read BGR."""
    from PIL import Image

    model, images = made
    for path in images.glob("*.png"):
        red, green, blue = Image.open(path).split()
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.merge("RGB", (blue, green, red)).save(tmp_path / "images" / path.name)
    assert opened(model, of_folder(tmp_path / "images")).subject.preprocessing.colours == "BGR"


def test_images_that_the_model_does_not_know_are_refused_with_all_figures(made, tmp_path):
    model, images = made
    for path in images.glob("*.png"):
        label, number = path.name[6], int(path.stem.rpartition("_")[2])
        shutil.copy(path, tmp_path / path.name.replace(f"class_{label}", f"class_{(int(label) + 1 + number % 2) % 3}"))
    with pytest.raises(UnreadableModelError, match="are these images of the model's classes, in their order") as caught:
        opened(model, of_folder(tmp_path))
    assert str(caught.value).count("accuracy") >= 12 and str(tmp_path) in str(caught.value)


def test_classes_that_are_all_shifted_are_named(made, tmp_path):
    model, images = made
    for path in images.glob("*.png"):
        shutil.copy(path, tmp_path / path.name.replace(f"class_{path.name[6]}", f"class_{(int(path.name[6]) + 1) % 3}"))
    order = "not in the model's order: it takes 0 -> 2 -> 1 -> 0, by which 100% are right, read as RGB"
    with pytest.raises(UnreadableModelError, match=order) as caught:
        opened(model, of_folder(tmp_path))
    assert str(tmp_path) in str(caught.value) and "--mean" not in str(caught.value)


def test_one_class_is_not_enough(made, tmp_path):
    for path in made[1].glob("class_0_*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(SettingsError, match="images of one class alone"):
        opened(made[0], of_folder(tmp_path))


def test_without_a_configuration_the_images_say_the_size(made, tmp_path):
    model, images = made
    bare = shutil.copytree(model, tmp_path / "id-00000000")
    (bare / "config.json").unlink()
    assert opened(bare, of_folder(images)).subject.preprocessing.stored_size == 36


def test_a_mixture_goes_on_without_the_examples(made):
    model, images = made
    case, data = read_case(model), of_folder(images, "examples+folder")
    samples = collect_samples(case, open_folder(case, CPU, data), data, 0)
    assert samples.description.startswith("folder, 4-4 per class") and len(samples.train) == 12


def test_composed_images_tell_too(extra_data, tmp_path):
    pytest.importorskip("trojai", reason="composing needs trojai: pip install --no-deps trojai==0.2.23")
    model = shutil.copytree(extra_data / "pilot-round" / "id-00000004", tmp_path / "id-00000004")
    shutil.rmtree(model / "clean_example_data")
    found = opened(model, DataSettings(source="composed"))
    assert found.convention.chosen.words == "RGB, /255, crop 64 of 72" and found.convention.accuracy > 0.9
    assert found.check.startswith("no example images; accuracy on images composed of foregrounds/ ")


def test_doctor_says_what_is_missing_and_what_mends_it(made, tmp_path):
    model, images = made
    call = ["doctor", str(model), "--workers", "1", "--no-estimate", "--data", "examples"]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 2 and "BROKEN" in result.output and "--data FOLDER" in result.output
    assert "Missing: example images (1)." in result.output and "where there are foregrounds" in result.output
    result = CliRunner().invoke(main, [*call, "--data", str(images)])
    assert result.exit_code == 0 and f"accuracy 100.0% of 12 images of {images}" in result.output
    assert "missing: published logits, example images" in result.output
    result = CliRunner().invoke(main, [*call, "--data", str(images), "--json"])
    found = from_dict(ModelCheck, json.loads(result.output.splitlines()[0])["model"])
    assert found.usable and found.examples == 0 and found.convention.images_of == f"images of {images}"


def test_doctor_tries_the_images_that_a_scan_would_use(made, tmp_path):
    """This model knows its examples; the folder's images are none, which a scan would find out too late."""
    for label in "01":
        (tmp_path / "images" / label).mkdir(parents=True)
        (tmp_path / "images" / label / "x.png").write_bytes(b"no image")
    model = shutil.copytree(made[0], tmp_path / "id-00000000")
    shutil.copytree(made[1], model / "clean_example_data")
    case = read_case(model)
    assert check_model(case).usable
    assert "not a readable image" in check_model(case, of_folder(tmp_path / "images")).problem


def test_a_run_writes_down_what_the_model_was_tried_on(made, tmp_path):
    model, images = made
    result = CliRunner().invoke(
        main,
        ["rescan", str(model), "--out", str(tmp_path / "run"), "--data", str(images), "--verdict", "naive", *QUICK,
         "--set", "hardener.rounds=1"],
    )  # fmt: skip
    assert result.exit_code in (0, 1), result.output
    record = from_dict(ScanRecord, json.loads((tmp_path / "run/journal/id-00000000.before.json").read_text()))
    assert record.convention.images_of == f"images of {images}" and record.check.startswith("no example images")
