"""The rounds' layouts beside round 4's: where models lie, what their files are called, what is missing."""

import json
import shutil

import pytest
import torch
from fake_round import write_metadata, write_model, write_round

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.images import list_examples, read_label
from trojai_moth.eval.labels import errata_lines, read_labels, read_published_labels
from trojai_moth.rounds.config_file import CaseConfig, read_config, read_config_text
from trojai_moth.rounds.model_folder import ModelFolder, find_names
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_case, read_round

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("layouts") / "id-00000000", per_class=2)


@pytest.fixture
def folder(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "id-00000000")


def recast(folder, **changes):
    path = folder / "config.json"
    data = {**json.loads(path.read_text()), **changes}
    data = {key: value for key, value in data.items() if value is not ...}
    path.write_text(json.dumps(data))
    return data


def accuracy(folder):
    opened = open_folder(read_case(folder), CPU)
    return opened.subject.accuracy(opened.examples.x, opened.examples.y)


@pytest.mark.parametrize("name", ["example_data", "clean-example-data", "example-data", "clean_example_data"])
def test_example_folders_by_any_name(folder, name):
    (folder / "clean_example_data").rename(folder / name)
    assert read_case(folder).examples.name == name and accuracy(folder) == 1.0


def test_a_name_that_says_clean_goes_before_one_that_does_not():
    assert find_names(["example_data", "clean-example-data"]).examples == "clean-example-data"
    assert find_names([]).examples == "clean_example_data"  # what messages then ask for
    assert find_names(["poisoned-example-data", "example-logits.csv"]).poisoned_examples == "poisoned-example-data"


def test_no_examples_are_said_with_what_would_be_one(folder):
    shutil.rmtree(folder / "clean_example_data")
    with pytest.raises(
        UnreadableModelError, match=r"no images named class_C.*give labelled images of its classes with --data"
    ):
        open_folder(read_case(folder), CPU)


def test_capitals_and_nesting_and_prefixes_mean_the_same(folder):
    expected = read_config(folder / "config.json")
    plain = recast(folder, **{"py/object": ...})
    upper = {key.upper(): value for key, value in plain.items()}
    nested = {"py/object": "round_config.RoundConfig", "py/state": plain}
    for form in (upper, nested, {**nested, "py/state": upper}):
        (folder / "config.json").write_text(json.dumps(form))
        assert read_config(folder / "config.json") == expected
    recast(folder, **{"py/state": {**plain, "model_architecture": "classification:squeezenet1_1"}})
    assert accuracy(folder) == 1.0


def test_two_spellings_that_disagree_are_refused(folder):
    recast(folder, NUMBER_CLASSES=3)
    assert read_config(folder / "config.json").classes == 3
    recast(folder, NUMBER_CLASSES=4)
    with pytest.raises(UnreadableModelError, match="says 'number_classes' twice"):
        read_config(folder / "config.json")


def test_a_reduced_config_stands_in_where_there_is_no_other(folder):
    (folder / "config.json").unlink()
    (folder / "reduced-config.json").write_text('{"model_architecture": "classification:squeezenet1_1"}')
    case = read_case(folder)
    assert case.config == CaseConfig(architecture="classification:squeezenet1_1")
    assert case.config_file.name == "reduced-config.json" and accuracy(folder) == 1.0
    shutil.copy(folder / "reduced-config.json", folder / "config.json")
    assert read_case(folder).config_file.name == "config.json"


def test_no_config_at_all(folder):
    (folder / "config.json").unlink()
    assert read_case(folder).config == CaseConfig() and accuracy(folder) == 1.0
    opened = open_folder(read_case(folder), CPU)
    assert (opened.subject.architecture, opened.subject.classes) == ("squeezenetv1_1", 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_labels_beside_the_images(folder, suffix):
    (folder / "clean-example-logits.csv").unlink()
    images = (folder / "clean_example_data").rename(folder / "clean-example-data")
    for number, (path, label) in enumerate(list_examples(images)):
        path.rename(images / f"{1000 + number}{suffix}")
        (images / f"{1000 + number}.json").write_text(f"{label}")
    (images / "77.png").write_bytes(b"without a label it is no example")
    if suffix == ".jpg":  # a PNG that is called .jpg is not one
        with pytest.raises(UnreadableModelError, match=r"1000\.jpg: not a readable image"):
            open_folder(read_case(folder), CPU)
    else:
        assert accuracy(folder) == 1.0 and len(list_examples(images)) == 6


@pytest.mark.parametrize("text", ["", "x", "1.0", "true", "-1", "[1]", '"1"', "null", "1" * 100, "[" * 64, "9999999"])
def test_a_label_is_one_whole_number(tmp_path, text):
    path = tmp_path / "7.json"
    path.write_text(text)
    with pytest.raises(UnreadableModelError, match=r"7\.json: not a class"):
        read_label(path)


def test_the_sample_of_the_2022_round(extra_data, tmp_path):
    sample = extra_data / "round11-sample" / "id-00000002"
    with pytest.raises(UnreadableModelError, match=r"no model\.pt in it"):
        read_case(sample)
    folder = shutil.copytree(sample, tmp_path / sample.name)
    (folder / "model.pt").write_bytes(b"")
    case = read_case(folder)
    assert case.config == CaseConfig(architecture="classification:mobilenet_v2", classes=118, stored_size=256)
    listed = list_examples(case.examples)
    assert len(listed) == 20 and all(0 <= label < 118 and path.suffix == ".jpg" for path, label in listed)
    assert read_config_text(case.config_file)["img_type"] == "uint8"


@pytest.fixture
def nested(plain, tmp_path):
    """models/ beside groundtruth/ and METADATA.csv, as in the later rounds."""
    root = tmp_path / "round"
    for number in range(3):
        shutil.copytree(plain, root / "models" / f"id-0000000{number}")
        truth = root / "groundtruth" / f"id-0000000{number}"
        truth.mkdir(parents=True)
        (truth / "ground_truth.csv").write_text(f"{number % 2}\n")
    return root


@pytest.mark.parametrize("below", ["", "models"])
def test_models_beside_their_ground_truth(nested, below):
    """The round's folder or the models' folder in it: the same round."""
    write_metadata(nested, {"id-00000001": True, "id-00000009": False})
    found = read_round(nested / below)
    assert [case.model_id for case in found] == [f"id-0000000{number}" for number in (0, 1, 2, 9)]
    assert [isinstance(case, ModelFolder) for case in found] == [True, True, True, False]
    labels = {f"id-0000000{number}": number == 1 for number in (0, 1, 2, 9)}
    assert read_labels(nested / below) == labels


def test_the_licence_and_other_papers_are_nothing_to_it(nested):
    for name in ("DATA_LICENSE.txt", "DATA_LICENCE.txt", "README.txt", "METADATA_DICTIONARY.csv"):
        (nested / name).write_text("text")
    assert len(read_round(nested)) == 3


@pytest.fixture
def round_1(plain, tmp_path):
    """Two of the six wrong labels among a set with ids of a hundred and above; images are as large as round 1's."""
    root = tmp_path / "round1"
    for model in ("id-00000077", "id-00000184", "id-00000185"):
        folder = shutil.copytree(plain, root / model, ignore=shutil.ignore_patterns("config.json", "foregrounds"))
        (folder / "clean_example_data").rename(folder / "example_data")
        first = list_examples(folder / "example_data")[0][0]
        _enlarge(first, 224)
        (folder / "ground_truth.csv").write_text("1\n")
    return root


def _enlarge(path, side):
    from PIL import Image

    with Image.open(path) as image:
        image.resize((side, side)).save(path)


def test_round_1s_errata_take_the_label_away_and_are_shown(round_1):
    assert set(read_published_labels(round_1)) == {"id-00000077", "id-00000184", "id-00000185"}
    assert set(read_labels(round_1)) == {"id-00000077", "id-00000185"}  # 77 is wrong in the test set alone
    (line,) = errata_lines(round_1, {"id-00000184", "id-00000185"})
    assert line.startswith("id-00000184: its label is not used") and "NIST" in line
    assert errata_lines(round_1, {"id-00000185"}) == []
    shutil.rmtree(round_1 / "id-00000184")
    shutil.rmtree(round_1 / "id-00000185")
    assert read_labels(round_1) == {}


def test_the_same_ids_in_other_rounds_keep_their_labels(round_1):
    (round_1 / "id-00000184" / "config.json").write_text("{}")
    assert "id-00000184" in read_labels(round_1)
    (round_1 / "id-00000184" / "config.json").unlink()
    _enlarge(list_examples(round_1 / "id-00000184" / "example_data")[0][0], 256)
    assert "id-00000184" in read_labels(round_1)


def test_of_a_model_on_which_places_disagree_the_label_is_unknown(tmp_path):
    root = write_round(tmp_path / "round", models=2, per_class=1)
    write_metadata(root, {"id-00000000": True, "id-00000001": False})
    assert read_labels(root) == {"id-00000001": False}
