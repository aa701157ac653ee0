"""Images as arrays: which of a file's arrays they are, which axis is which, and what white is."""

import io
import zipfile

import numpy as np
import pytest
import torch

from trojai_moth.core.errors import SettingsError
from trojai_moth.rounds import image_arrays
from trojai_moth.rounds.labelled_images import open_labelled

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
LABELS = np.array([1, 0, 2, 1])
ORDER = [1, 0, 3, 2]
STORED = torch.from_numpy(PIXELS[ORDER]).permute(0, 3, 1, 2)


def saved(folder, **arrays):
    np.savez_compressed(folder / "images.npz", **arrays)
    return folder / "images.npz"


def read(path, classes=3, names=None):
    images = open_labelled(path, classes, names)
    assert images.shape == images.shape_of(0)
    return images.read(range(len(images)), images.shape), images


def refused(path, classes=3, names=None):
    with pytest.raises(SettingsError) as caught:
        open_labelled(path, classes, names)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels"),
    [("x", "y"), ("images", "labels"), ("data", "targets"), ("X_val", "y_val"), ("xtest", "ytest"), ("arr_0", "arr_1")],
)
def test_arrays_are_found_by_their_usual_names(tmp_path, images, labels):
    found, opened = read(saved(tmp_path, **{images: PIXELS, labels: LABELS, "track": LABELS}))
    assert torch.equal(found, STORED) and opened.labels == (0, 1, 1, 2) and opened.channels == 3
    assert opened.name(0) == f"{tmp_path / 'images.npz'}, image 1"


def test_the_test_part_is_taken_which_is_said(tmp_path, notes):
    others = {"train_images": PIXELS[:2], "train_labels": LABELS[:2], "val_images": PIXELS[:1]}
    found, _ = read(saved(tmp_path, **others, test_images=PIXELS, test_labels=LABELS[:, None]))
    assert torch.equal(found, STORED)
    assert notes.messages == [f"{tmp_path / 'images.npz'}: its arrays test_images and test_labels are taken"]


@pytest.mark.parametrize(
    "values",
    [
        PIXELS.transpose(0, 3, 1, 2),
        np.asfortranarray(PIXELS),
        PIXELS.astype(np.float32) / 255,
        (PIXELS / 255).astype(np.float16),
        PIXELS.astype(np.float64),
        PIXELS.astype(np.int64),
        PIXELS.astype(np.uint16) * 257,
        PIXELS.astype(">f4"),
    ],
)
def test_axes_and_numbers_are_told_apart(tmp_path, notes, values):
    assert torch.equal(read(saved(tmp_path, x=values, y=LABELS))[0], STORED)
    assert not notes.messages


def test_any_number_of_channels(tmp_path):
    grey = PIXELS[..., 0]
    for values in (grey, grey[..., None], grey[:, None]):
        found, images = read(saved(tmp_path, x=values, y=LABELS))
        assert images.channels == 3 and torch.equal(found, STORED[:, :1].expand(-1, 3, -1, -1))
    bands = np.random.default_rng(1).integers(0, 256, (4, 9, 9, 7), dtype=np.uint8)
    for values in (bands, bands.transpose(0, 3, 1, 2)):
        found, images = read(saved(tmp_path, x=values, y=LABELS))
        assert images.channels == 7 and torch.equal(found, torch.from_numpy(bands[ORDER]).permute(0, 3, 1, 2))
    assert read(saved(tmp_path, x=PIXELS > 99, y=LABELS))[0].unique().tolist() == [0, 255]


def test_other_sizes_are_fitted_as_files_are(tmp_path):
    images = open_labelled(saved(tmp_path, x=np.full((4, 50, 100, 3), 90, np.uint8), y=LABELS), 3)
    assert images.shape == (50, 100) and images.read([2, 0], (40, 20)).shape == (2, 3, 40, 20)
    assert images.read([3], (40, 20)).unique().tolist() == [90]


def test_fractions_that_are_lost_are_said(tmp_path, notes):
    found, _ = read(saved(tmp_path, x=np.full((4, 6, 5, 3), 0.3), y=LABELS))
    assert found.unique().tolist() == [76] and "fractions between the 256 steps" in notes.messages[0]


@pytest.mark.parametrize(
    "labels",
    [LABELS.astype(np.float32), LABELS[:, None], np.eye(3)[LABELS], np.eye(3, dtype=bool)[LABELS], LABELS + 1],
)
def test_labels_of_every_form(tmp_path, labels):
    assert open_labelled(saved(tmp_path, x=PIXELS, y=labels), 3).labels == (0, 1, 1, 2)


def test_names_are_kept_and_matched(tmp_path, notes):
    names = np.array(["hen", "cat", "dog"])
    path = saved(tmp_path, x=PIXELS, y=LABELS, names=names)
    assert open_labelled(path, 3).names == ("hen", "cat", "dog")
    found, images = read(path, 3, ("Cat", "hen", "dog"))
    assert images.labels == (0, 0, 1, 2) and torch.equal(found, STORED[[1, 2, 0, 3]])
    assert "in another order than the model's; they are matched by name" in notes.messages[0]
    assert open_labelled(path, 3, ("a", "b", "c")).labels == (0, 1, 1, 2)  # other words for them
    path = saved(tmp_path, x=PIXELS, y=names.astype("S")[LABELS])
    assert open_labelled(path, 3, ("hen", "cat", "dog")).labels == (0, 1, 1, 2)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "its arrays are none; call the images x"),
        ({"x": PIXELS, "z": LABELS}, "its arrays are x, z; call"),
        ({"x": PIXELS, "y_test": LABELS}, "its arrays are x, y_test; call"),
        ({"x": PIXELS, "y": LABELS[:3]}, "4 images, but 3 labels"),
        ({"x": PIXELS.reshape(4, -1), "y": LABELS}, "4 x 90 of uint8 are no images; save (N, height, width)"),
        ({"x": PIXELS[:0], "y": LABELS[:0]}, "no images"),
        ({"x": PIXELS.astype(str), "y": LABELS}, "are no images"),
        ({"x": PIXELS / 127 - 1, "y": LABELS}, "values from -1 to"),
        ({"x": PIXELS * 0.02, "y": LABELS}, "before they were normalised, 0 to 255"),
        ({"x": np.where(PIXELS > 9, np.nan, 0), "y": LABELS}, "values from nan to nan"),
        ({"x": PIXELS, "y": LABELS + 0.5}, "not one class for each image"),
        ({"x": PIXELS, "y": np.where(LABELS > 1, np.inf, LABELS)}, "not one class for each image"),
        ({"x": PIXELS, "y": np.ones((4, 3))}, "not one class for each image"),
        ({"x": PIXELS, "y": LABELS * 7}, "image 2: class 14, but the model has 3 classes"),
        ({"x": PIXELS, "y": LABELS - 1}, "image 1: class -1, but the model has 3 classes"),
        ({"x": PIXELS, "y": LABELS * 0}, "images of one class alone"),
        ({"x": np.array([{}, []], dtype=object), "y": LABELS}, "holds objects of Python, which are not read"),
    ],
)
def test_what_are_no_labelled_images(tmp_path, arrays, words):
    assert words in refused(saved(tmp_path, **arrays))


def npy_claiming(shape):
    """A .npy whose head says that it has this shape, with a few bytes behind."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(100)


def test_what_is_claimed_is_compared_with_the_file_and_the_memory_before_it_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path, y=LABELS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", npy_claiming((1 << 40, 32, 32, 3)))
    assert "not a readable file of arrays (it is cut short)" in refused(path)
    monkeypatch.setattr(image_arrays, "memory_for_data", lambda: 5_000_000)
    zeros = np.zeros((2000, 32, 32, 3), np.uint8)
    path = saved(tmp_path, x=zeros, y=np.arange(2000) % 3)
    assert path.stat().st_size < 100_000
    assert "x: takes 6 MB of memory, and 5 MB may be taken; save fewer" in refused(path)


def test_damaged_files_are_refused(tmp_path):
    path = saved(tmp_path, x=PIXELS, y=LABELS)
    content = path.read_bytes()
    for damaged in (b"", b"no zip", content[:-40], content[:60] + b"abcd" + content[64:]):
        path.write_bytes(damaged)
        assert "not a readable file of arrays" in refused(path)


def test_two_files_of_arrays(tmp_path):
    np.save(tmp_path / "x_test.npy", PIXELS)
    np.save(tmp_path / "y_train.npy", LABELS[:2])
    assert "no labels beside it; call the two files x.npy and y.npy" in refused(tmp_path / "x_test.npy")
    np.save(tmp_path / "y_test.npy", LABELS)
    assert torch.equal(read(tmp_path / "x_test.npy")[0], STORED)
    (tmp_path / "y_test.npy").write_bytes(b"no array")
    with pytest.raises(SettingsError, match=r"y_test\.npy: not a readable file of arrays"):
        open_labelled(tmp_path / "x_test.npy", 3)


def test_heads_and_texts_that_no_program_writes(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    np.save(tmp_path / "y.npy", LABELS)
    content = (tmp_path / "x.npy").read_bytes()
    for damaged in (
        content.replace(b")", b"(", 1),
        content.replace(b"|u1", b"|O8"),
        b"\x93NUMPY\x09\x00" + content[8:],
    ):
        (tmp_path / "x.npy").write_bytes(damaged)
        with pytest.raises(SettingsError, match=r"x\.npy: (not a readable file of arrays|holds objects of Python)"):
            open_labelled(tmp_path / "x.npy", 3)
    for code in (0xD800, 0x110000):
        names = np.array([0x61, 0x62, code, 0x61], np.uint32).view("U1")
        assert "not one class for each image" in refused(saved(tmp_path, x=PIXELS, y=names))


def test_the_papers_images_are_read(extra_data):
    path = extra_data / "real" / "paper" / "cifar10_first4000.npz"
    if not path.is_file():
        pytest.skip("the paper's images are not there")
    images = open_labelled(path, 10)
    assert (len(images), images.shape, images.names[0]) == (4000, (32, 32), "airplane")
    with np.load(path, allow_pickle=False) as arrays:
        first = int(np.flatnonzero(arrays["y"] == 3)[0])
        expected = torch.from_numpy(arrays["x"][first]).permute(2, 0, 1)
    assert torch.equal(images.read(images.first(3, 1), (32, 32))[0], expected)
