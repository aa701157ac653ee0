"""A model is examined with whatever a request points to; what is missing is stood in for, and that is said."""

import json
import shutil

import numpy as np
import pytest
import torch
from fake_round import CLASSES, SIZE, STORED, write_model
from PIL import Image

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.images import list_examples
from trojai_moth.loading import load_model
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_case
from trojai_moth.submission.staging import Sources, open_subject, predicted, stage
from trojai_moth.submission.stand_ins import make_stand_ins, noise_pictures, read_pictures, training_pictures


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One model in round 4's layout, never changed."""
    return write_model(tmp_path_factory.mktemp("staging") / "id-00000003", per_class=2)


@pytest.fixture
def staged(tmp_path):
    """Stage a model folder and return (case, notes)."""

    def staged(home, examples=None, training=None):
        notes = []
        case = stage(Sources(home / "model.pt", examples, training, 2, 0), tmp_path / "work", notes.append)
        return case, " ".join(notes)

    return staged


def test_labelled_examples_are_used_as_they_are(model, staged):
    case, notes = staged(model, model / "clean_example_data")
    assert case.model_id == "id-00000003" and notes == ""
    assert case.examples.resolve() == model / "clean_example_data"
    assert open_folder(case, torch.device("cpu")).check.startswith("published logits reproduced")


def test_the_harness_folder_is_called_active_and_may_lack_everything(model, staged, tmp_path):
    active = tmp_path / "active"
    active.mkdir()
    shutil.copy(model / "model.pt", active)
    case, notes = staged(active, active / "clean-example-data")
    assert case.model_id == "active"
    assert "no folder of example images" in notes and "no config.json" in notes and "noise" in notes
    images = list_examples(case.examples)
    assert len(images) >= 2 and max(label for _, label in images) < CLASSES


def test_an_empty_examples_folder_is_like_none(model, staged, tmp_path):
    (tmp_path / "empty").mkdir()
    case, notes = staged(model, tmp_path / "empty")
    assert "0 example images: too few" in notes and len(list_examples(case.examples)) >= 2
    opened = open_folder(case, torch.device("cpu"))
    assert opened.raw.shape[-1] == STORED and opened.subject.size == SIZE


def test_one_image_without_a_label_gets_company_and_the_models_own_label(model, staged, tmp_path):
    (tmp_path / "one").mkdir()
    shutil.copy(model / "clean_example_data" / "class_1_example_0.png", tmp_path / "one" / "5.png")
    case, notes = staged(model, tmp_path / "one")
    assert "1 example images: too few" in notes
    (own,) = [label for path, label in list_examples(case.examples) if path.name.endswith("_example_0.png")]
    assert own == 1  # which is what the model says of it
    assert len(list_examples(case.examples)) > 2


def test_a_label_beside_an_image_is_believed(model, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(model / "clean_example_data" / "class_1_example_0.png", folder / "5.png")
    (folder / "5.json").write_text("2")
    (folder / "6.png").write_text("no image")
    notes = []
    found = read_pictures(folder, notes.append)
    assert found.names == ["5.png"] and found.labels == [2] and "left out" in notes[0]


def test_images_of_the_training_set_come_before_noise_and_poisoned_ones_never(model, staged, tmp_path):
    training = tmp_path / "training"
    other = training / "models" / "id-00000009"
    shutil.copytree(model, other)
    (other / "poisoned_example_data").mkdir()
    Image.fromarray(np.full((STORED, STORED, 3), 255, np.uint8)).save(other / "poisoned_example_data" / "x.png")
    case, notes = staged(model, None, training)
    assert "example images of the training set's models" in notes and "noise" not in notes
    assert len(list_examples(case.examples)) == 2 * CLASSES
    pictures = training_pictures(training, STORED, 100)
    assert len(pictures) == 2 * CLASSES and not any((picture == 255).all() for picture in pictures)


def test_a_training_set_is_read_and_never_written_to(model, staged, tmp_path):
    training = tmp_path / "training"
    shutil.copytree(model, training / "models" / "id-00000009")

    def snapshot():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [training, *training.rglob("*")]}

    before = snapshot()
    notes = staged(model, None, training)[1]
    assert "example images of the training set's models" in notes and snapshot() == before


def test_a_model_that_is_none_is_refused(staged, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"this is no model")
    with pytest.raises(UnreadableModelError, match=r"model\.pt"):
        staged(tmp_path)


def test_a_configuration_that_is_none_is_said_and_not_used(model, staged, tmp_path):
    active = tmp_path / "active"
    shutil.copytree(model, active)
    (active / "config.json").write_text("{")
    assert "it is not used" in staged(active, active / "clean_example_data")[1]


def test_a_mitigated_model_finds_the_configuration_of_its_original(model, tmp_path):
    active = tmp_path / "active"
    (active / "output").mkdir(parents=True)
    shutil.copy(model / "model.pt", active / "output" / "mitigated.pt")
    (active / "config.json").write_text(
        json.dumps({"img_size_pixels": STORED, "cnn_img_size_pixels": SIZE, "model_architecture": "squeezenetv1_1"})
    )
    given = read_pictures(model / "clean_example_data", print)
    subject = open_subject(active / "output" / "mitigated.pt", given, None, torch.device("cpu"), print)
    assert subject.size == SIZE and subject.classes == CLASSES


def test_stand_ins_have_the_models_own_labels(model):
    loaded = load_model(model / "model.pt")
    opened = open_folder(read_case(model), torch.device("cpu"))
    reading = opened.subject.preprocessing
    made = make_stand_ins(
        CLASSES, 3, STORED, None, 0, lambda pictures: predicted(loaded, pictures, reading), lambda _: None
    )
    labels = [label for _, label in made]
    assert labels == predicted(loaded, [image for image, _ in made], reading)
    assert max(np.bincount(labels)) <= 3


def test_noise_is_the_same_for_the_same_seed():
    one, two, other = noise_pictures(3, 17, 1), noise_pictures(3, 17, 1), noise_pictures(3, 17, 2)
    assert [picture.shape for picture in one] == [(17, 17, 3)] * 3
    assert np.array_equal(one, two) and not np.array_equal(one, other)
