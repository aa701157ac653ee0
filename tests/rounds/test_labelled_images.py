"""Folders of labelled images: which files are images of which class, and how they are brought to a size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import save
from PIL import Image

from trojai_moth.core.errors import SettingsError
from trojai_moth.rounds import labelled_images
from trojai_moth.rounds.labelled_images import open_labelled


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images"


def listed(folder, classes=3, names=None):
    images = open_labelled(folder, classes, names)
    paths = [Path(images.name(index)).relative_to(folder).as_posix() for index in range(len(images))]
    return list(zip(paths, images.labels, strict=True))


def refused(folder, classes=3, names=None):
    with pytest.raises(SettingsError) as caught:
        open_labelled(folder, classes, names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sub_folders_are_classes(folder):
    for name in ("0/b.png", "0/a.jpg", "class_2/x.jpeg"):
        save(folder / name, form="PNG" if name.endswith("png") else "JPEG")
    (folder / "0" / "notes.txt").write_text("no image")
    assert listed(folder) == [("0/a.jpg", 0), ("0/b.png", 0), ("class_2/x.jpeg", 2)]


def test_every_kind_at_any_depth_and_nothing_that_systems_leave(folder):
    kinds = {"webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}
    for name in ("0/a.webp", "0/b.bmp", "1/batch/more/c.tif", "1/batch/d.PNG", "1/e.ppm", "class_2/._e.png"):
        save(folder / name, form=kinds.get(name.rpartition(".")[2], "PNG"))
    for name in (".ipynb_checkpoints", "__MACOSX"):
        save(folder / "1" / name / "x.png")
        save(folder / name / "x.png")
    ones = ["1/batch/d.PNG", "1/batch/more/c.tif", "1/e.ppm"]
    assert listed(folder) == [("0/a.webp", 0), ("0/b.bmp", 0), *((name, 1) for name in ones)]


def test_what_is_not_read_is_said_once_with_how_much(folder, notes):
    for name in ("0/a.png", "2/a.png", "1/b.png", "no_label.png"):
        save(folder / name)
    for name in ("0/b.heic", "1/c.gif", "1/d.GIF", "class_2_e.avif"):
        (folder / name).touch()
    assert listed(folder) == listed(folder) == [("0/a.png", 0), ("1/b.png", 1), ("2/a.png", 2)]
    (line,) = notes.messages
    assert "images: left out: 2 .gif, 1 .heic, 1 .avif, since only PNG, JPEG, WebP, BMP, TIFF and PPM are read" in line
    assert line.endswith("; 1 images whose class nothing says, such as no_label.png")
    for path in list(folder.rglob("*.png")):
        path.unlink()
    assert "no labelled images that are read (left out: 2 .gif, " in refused(folder)


def test_classes_from_1_to_the_last_are_those_from_0_on_which_is_said(folder, notes):
    for label in (1, 2, 3):
        save(folder / f"{label}" / "a.png")
    assert listed(folder) == [("1/a.png", 0), ("2/a.png", 1), ("3/a.png", 2)]
    assert "numbered from 1 to 3; 1 is taken for class 0" in notes.messages[0]
    assert listed(folder, 4) == [("1/a.png", 1), ("2/a.png", 2), ("3/a.png", 3)]  # nothing says that they are not
    save(folder / "0" / "a.png")
    assert "3/a.png: class 3, but the model has 3 classes, which are numbered 0 to 2" in refused(folder)


@pytest.fixture
def animals(folder):
    for name in ("cat", "Dog", "sea_eel"):
        save(folder / name / "a.png")
    return folder


def test_folders_are_classes_by_the_models_names_however_these_are_written(animals, notes):
    names = ("Sea-Eel", "cat", "dog")
    assert listed(animals, 3, names) == [("sea_eel/a.png", 0), ("cat/a.png", 1), ("Dog/a.png", 2)]
    images = open_labelled(animals, 4, (*names, "hen"))
    assert images.names == (*names, "hen") and notes.messages == [f"{animals}: no images of class 3 (hen)"]
    assert "sea_eel is no class of the model, nearest sea eels;" in refused(animals, 3, ("sea eels", "dog", "cat"))
    assert "cat is no class of the model, which are 7up, dog;" in refused(animals, 2, ("7up", "dog"))


def test_names_that_are_written_alike_are_told_apart(folder):
    for name in ("A_b", "a b"):
        save(folder / name / "a.png")
    assert listed(folder, 2, ("a b", "A_b")) == [("a b/a.png", 0), ("A_b/a.png", 1)]
    assert "a b is no class" in refused(folder, 3, ("a-b", "A_b", "a-B"))


def test_names_of_digits_are_names_where_the_model_says_so(folder):
    for name in ("0", "2", "10"):
        save(folder / name / "a.png")
    assert listed(folder, 3, ("0", "10", "2")) == [("0/a.png", 0), ("10/a.png", 1), ("2/a.png", 2)]


def test_folders_by_name_are_numbered_in_order_if_they_are_as_many_as_classes(animals, notes):
    assert listed(animals) == [("Dog/a.png", 0), ("cat/a.png", 1), ("sea_eel/a.png", 2)]
    assert open_labelled(animals, 3).names == ("Dog", "cat", "sea_eel")
    assert "as torchvision's ImageFolder does: Dog 0, cat 1, sea_eel 2; if the model's order" in notes.messages[0]
    for classes in (2, 4):
        assert f"3 classes by name (Dog, cat, sea_eel), but the model has {classes}; say which" in refused(
            animals, classes
        )
    assert "class_names in model.json, or --labels FILE" in refused(animals, 4)
    (animals / "hen").mkdir()  # of which there just are no images
    assert listed(animals, 4)[2] == ("sea_eel/a.png", 3)
    save(animals / "cat" / "0" / "a.png")
    assert refused(animals).endswith(f"give this folder: --data {animals / 'cat'}")
    assert ("cat/0/a.png", 0) in listed(animals, 3, ("cat", "dog", "sea eel"))


def test_numbers_and_names_together_are_refused(animals):
    save(animals / "7" / "a.png")
    assert "7 is the number of a class, and Dog is none" in refused(animals)
    assert "7 is the number of a class" in refused(animals, 3, ("cat", "dog", "sea eel"))


@pytest.mark.parametrize(
    ("parts", "taken"),
    [
        (("train", "val", "test"), "test"),
        (("Training", "validation"), "validation"),
        (("train",), "train"),
    ],
)
def test_of_a_data_sets_parts_one_is_taken_that_was_not_trained_on(folder, notes, parts, taken):
    for part in parts:
        for label in range(2):
            save(folder / part / f"{label}" / f"{part}.png")
    (folder / "logs").mkdir()
    assert listed(folder, 2) == [(f"{taken}/{label}/{taken}.png", label) for label in range(2)]
    assert notes.messages == [f"{folder}: images of {taken}/ are taken"]


def test_a_part_without_labels_is_not_taken(folder):
    save(folder / "test" / "17.png")
    save(folder / "train" / "0" / "a.png")
    save(folder / "train" / "1" / "a.png")
    assert listed(folder, 2) == [("train/0/a.png", 0), ("train/1/a.png", 1)]


def test_train_may_be_a_class(folder):
    save(folder / "car" / "a.png")
    save(folder / "train" / "a.png")
    assert listed(folder, 2) == [("car/a.png", 0), ("train/a.png", 1)]


def test_classes_without_images_are_said_and_a_single_class_is_refused(folder, notes):
    save(folder / "0" / "a.png")
    assert "images of one class alone" in refused(folder, 5)
    save(folder / "3" / "a.png")
    listed(folder, 5)
    assert notes.messages[-1] == f"{folder}: no images of classes 1, 2, 4"


def test_a_folder_without_images_is_no_class(folder):
    save(folder / "0" / "a.png")
    save(folder / "1" / "a.png")
    (folder / "labels").mkdir()
    (folder / "labels" / "readme.txt").touch()
    assert listed(folder, 2) == [("0/a.png", 0), ("1/a.png", 1)]


def test_names_and_json_are_classes(folder):
    save(folder / "class_1_example_3.png")
    save(folder / "class_0_from_my_camera.png")
    save(folder / "17.png")
    (folder / "17.json").write_text("2")
    save(folder / "no_label.png")
    assert listed(folder) == [("class_0_from_my_camera.png", 0), ("class_1_example_3.png", 1), ("17.png", 2)]


def test_what_systems_and_editors_leave_is_passed_over(folder):
    for name in ("0/a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/0/a.png"):
        save(folder / name)
    for name in ("0/._a.png", "._class_1_example_0.png", ".DS_Store", "0/Thumbs.db", "0/.ipynb_checkpoints"):
        (folder / name).write_bytes(b"no image")
    (folder / "0" / "linked.png").symlink_to(save(folder.parent / "of_another_folder.png"))  # it is the user's folder
    save(folder.parent / "elsewhere" / "b.png")
    (folder / "1").symlink_to(folder.parent / "elsewhere")
    (folder / "class_2_example_0.png").symlink_to(folder.parent / "elsewhere" / "b.png")
    names = ["0/a.png", "0/linked.png", "1/b.png", "class_2_example_0.png"]
    assert listed(folder) == list(zip(names, [0, 0, 1, 2], strict=True))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "no such folder or file"),
        (lambda folder: folder.mkdir(), "no labelled images"),
        (lambda folder: save(folder / "cats" / "a.png"), "1 classes by name (cats)"),
        (lambda folder: save(folder / "3" / "a.png"), "class 3, but the model has 3 classes"),
    ],
)
def test_what_is_no_labelled_folder(folder, make, words):
    make(folder)
    assert words in refused(folder)


def test_any_size_is_shrunk_or_grown_to_the_middle(folder):
    wide = np.zeros((50, 100, 3), dtype=np.uint8)
    wide[:, 25:75] = 200
    for number, (value, size) in enumerate([(0, (100, 50)), (90, (20, 10)), (7, (40, 40)), (60, (1, 5000))]):
        save(folder / f"{number % 2}" / f"{number}.png", value, size)
    Image.fromarray(wide).save(folder / "0" / "0.png")
    images = open_labelled(folder, 2)
    assert images.labels == (0, 0, 1, 1) and images.shape is None
    assert [images.shape_of(index) for index in range(4)] == [(50, 100), (40, 40), (10, 20), (5000, 1)]
    read = images.read(range(4), (40, 40))
    assert read.shape == (4, 3, 40, 40) and read.dtype == torch.uint8
    assert read[0, :, :, 2:-2].min() == 200 and read[1].unique().tolist() == [7]
    assert read[2].unique().tolist() == [90] and images.read([], (40, 40)).shape == (0, 3, 40, 40)
    assert read[3].unique().tolist() == [60]  # made larger as a whole it would take gigabytes
    assert torch.equal(images.read([0], (50, 100))[0], torch.from_numpy(wide).permute(2, 0, 1))
    oblong = images.read([0], (20, 80))[0]
    assert oblong[:, :, 22:58].min() == 200 and oblong[:, :, :18].max() == 0
    (folder / "0" / "0.png").write_bytes(b"no")
    with pytest.raises(SettingsError, match=r"0\.png: not a readable image"):
        images.read([0], (40, 40))
    with pytest.raises(SettingsError, match=r"0\.png: not a readable image"):
        images.shape_of(0)


def test_one_shape_is_known_before_images_are_read(folder):
    camera = Image.Exif()
    camera[0x0112] = 6
    for label in range(2):
        save(folder / f"{label}" / "a.png", size=(30, 20))
        Image.new("L", (20, 30)).save(folder / f"{label}" / "b.png", exif=camera)
    images = open_labelled(folder, 2)
    assert (images.shape, images.channels) == ((20, 30), 3) and images.read([1], (20, 30)).shape == (1, 3, 20, 30)


def test_a_folder_is_listed_once_until_it_changes(folder, monkeypatch):
    save(folder / "0" / "a.png")
    save(folder / "1" / "a.png")
    now = labelled_images.time.time_ns()
    assert open_labelled(folder, 2) is not open_labelled(folder, 2)  # it may change again within the clock's step
    monkeypatch.setattr(labelled_images.time, "time_ns", lambda: now + 10_000_000_000)
    assert open_labelled(folder, 2) is open_labelled(folder, 2)
    assert open_labelled(folder, 2, ("a", "b")) is not open_labelled(folder, 2)
    before = open_labelled(folder, 2)
    save(folder / "1" / "b.png")
    assert len(before) == 2 and len(open_labelled(folder, 2)) == 3
