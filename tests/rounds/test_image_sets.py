"""Data sets as torchvision lays them out: made by hand, byte by byte, as the originals are."""

import gzip
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from python_2_pickle import python_2_pickle

from trojai_moth.core.errors import SettingsError
from trojai_moth.rounds import image_arrays
from trojai_moth.rounds.labelled_images import open_labelled

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
ROWS = PIXELS.reshape(4, -1)
LABELS = [3, 0, 9, 3]
NAMES = [f"thing {number}" for number in range(10)]


def refused(path, classes=10):
    with pytest.raises(SettingsError) as caught:
        open_labelled(path, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(path, classes=10, names=None):
    images = open_labelled(path, classes, names)
    return images.read(range(len(images)), images.shape), images


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(python_2_pickle(value))


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write(folder / "batches.meta", {"num_cases_per_batch": 4, "label_names": NAMES})
    write(folder / "test_batch", {"batch_label": "testing", "labels": LABELS, "data": ROWS, "filenames": ["a.png"] * 4})
    for number in range(1, 6):
        write(folder / f"data_batch_{number}", {"labels": [number, 0], "data": ROWS[:2] // number})
    return folder


@pytest.fixture
def cifar100(tmp_path):
    folder = tmp_path / "cifar-100-python"
    meta = {"fine_label_names": [f"f{n}" for n in range(100)], "coarse_label_names": [f"c{n}" for n in range(20)]}
    write(folder / "meta", meta)
    write(folder / "test", {"data": ROWS, "fine_labels": [99, 0, 50, 0], "coarse_labels": [19, 1, 1, 0]})
    return folder


def test_cifar_10_as_it_is_downloaded(cifar10, notes):
    found, images = everything(cifar10)
    assert torch.equal(found, torch.from_numpy(PIXELS[[1, 0, 3, 2]])) and images.labels == (0, 3, 3, 9)
    assert images.names == tuple(NAMES) and images.shape == (32, 32)
    assert notes.messages[0] == f"{cifar10}: images of test_batch are taken"
    assert torch.equal(everything(cifar10.parent)[0], found)
    assert torch.equal(everything(cifar10 / "test_batch")[0], found)
    assert open_labelled(cifar10, 10, [*NAMES[1:], NAMES[0]]).labels == (2, 2, 8, 9)
    assert len(open_labelled(cifar10 / "data_batch_3", 10)) == 2
    (cifar10 / "test_batch").unlink()
    assert len(open_labelled(cifar10, 10)) == 10


def test_cifar_100_by_its_classes_and_by_their_groups(cifar100, cifar10):
    assert open_labelled(cifar100.parent, 100).labels == (0, 0, 50, 99)
    images = open_labelled(cifar100.parent, 20)
    assert images.labels == (0, 1, 1, 19) and images.names[19] == "c19"
    assert open_labelled(cifar10.parent, 10).labels == (0, 3, 3, 9)
    assert "class 99, but the model has 50 classes" in refused(cifar100, 50)


@pytest.mark.parametrize("classes", [10, 20, 100])
def test_cifar_in_plain_bytes(tmp_path, classes):
    name, files = ("cifar-10-batches-bin", "test_batch") if classes == 10 else ("cifar-100-binary", "test")
    folder = tmp_path / name
    folder.mkdir()
    second = [[7, 0, 8, 7], [0, 1, 2, 3]]
    heads = [[label] for label in LABELS] if classes == 10 else list(zip(*second, strict=True))
    content = b"".join(bytes(head) + row.tobytes() for head, row in zip(heads, ROWS, strict=True))
    (folder / f"{files}.bin").write_bytes(content)
    text = {10: "batches.meta.txt", 20: "coarse_label_names.txt", 100: "fine_label_names.txt"}[classes]
    (folder / text).write_text("".join(f"n{number}\n" for number in range(classes)))
    found, images = everything(folder, classes)
    assert images.names[-1] == f"n{classes - 1}"
    expected = {10: (0, 3, 3, 9), 20: (0, 7, 7, 8), 100: (0, 1, 2, 3)}[classes]
    order = {10: [1, 0, 3, 2], 20: [1, 0, 3, 2], 100: [0, 1, 2, 3]}[classes]
    assert images.labels == expected and torch.equal(found, torch.from_numpy(PIXELS[order]))
    (folder / f"{files}.bin").write_bytes(content[:-1])
    assert "are no whole images of 307" in refused(folder, classes)


class Runs:
    def __reduce__(self):
        return sys.exit, ("it was run",)


def test_a_batch_that_is_damaged_or_would_run_is_refused(cifar10):
    path = cifar10 / "test_batch"
    path.write_bytes(pickle.dumps({"data": Runs()}, 2))
    assert "test_batch: asks for 'sys.exit'" in refused(cifar10)
    path.write_bytes(path.read_bytes()[:10])
    assert "test_batch: is damaged" in refused(cifar10)
    for batch in ({"data": ROWS}, {"labels": LABELS, "data": [1]}, {"labels": ["a"], "data": ROWS}):
        write(path, batch)
        assert "not a batch of CIFAR's" in refused(cifar10)
    write(path, {"labels": LABELS[:3], "data": ROWS})
    assert "images and labels are not as many" in refused(cifar10)


def idx(values, magic):
    return struct.pack(f">{values.ndim + 1}I", magic, *values.shape) + values.tobytes()


DIGITS = GENERATOR.integers(0, 256, (4, 28, 28), dtype=np.uint8)
NUMBERS = np.array(LABELS, np.uint8)


@pytest.mark.parametrize(
    ("inside", "mark", "packed"), [("", "-", True), ("raw", "-", False), ("FashionMNIST/raw", ".", True)]
)
def test_mnist_as_it_is_downloaded(tmp_path, notes, inside, mark, packed):
    folder = tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("t10k", 4), ("train", 3)):
        for kind, values, magic in (("images", DIGITS, 0x803), ("labels", NUMBERS, 0x801)):
            content = idx(values[:count], magic)
            name = f"{part}-{kind}{mark}idx{values.ndim}-ubyte{'.gz' if packed else ''}"
            (folder / name).write_bytes(gzip.compress(content) if packed else content)
    found, images = everything(tmp_path)
    expected = torch.from_numpy(DIGITS[[1, 0, 3, 2]])[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(found, expected) and images.labels == (0, 3, 3, 9) and images.channels == 3
    assert "images of its test part (t10k-images" in notes.messages[0]
    ends = f"{mark}idx3-ubyte{'.gz' if packed else ''}"
    assert len(open_labelled(folder / f"t10k-images{ends}", 10)) == 4
    assert len(open_labelled(folder / f"train-images{ends}", 10)) == 3
    (folder / f"t10k-images{ends}").unlink()
    assert len(open_labelled(tmp_path, 10)) == 3


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (b"", b"", "its first bytes are others"),
        (idx(DIGITS, 0x801), b"", "its first bytes are others"),
        (idx(DIGITS, 0x803)[:-1], b"", "it is cut short"),
        (idx(DIGITS, 0x803) + b"0", b"", "not as long as its head says"),
        (struct.pack(">4I", 0x803, 1 << 30, 1 << 10, 1 << 10), b"", "it is cut short"),
        (gzip.compress(struct.pack(">4I", 0x803, 1 << 30, 1 << 10, 1 << 10), mtime=0), b"", "it is cut short"),
        (gzip.compress(idx(DIGITS, 0x803), mtime=0)[:-30], b"", "not a readable idx file"),
        (gzip.compress(idx(DIGITS[:2], 0x803) + bytes(10_000), mtime=0), b"", "not as long as its head says"),
        (idx(DIGITS, 0x803), idx(NUMBERS[:3], 0x801), "4 images, but 3 labels"),
        (idx(DIGITS, 0x803), idx(NUMBERS + 9, 0x801), "image 2: class 18, but the model has 10"),
        (idx(DIGITS, 0x803), None, "its labels are not beside it; put t10k-labels-idx3-ubyte there"),
    ],
)
def test_idx_files_that_are_damaged(tmp_path, images, labels, words):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(images)
    if labels is not None:
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels)
    assert words in refused(tmp_path)


def test_idx_files_beyond_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_arrays, "memory_for_data", lambda: 1000)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(DIGITS, 0x803)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(NUMBERS, 0x801))
    assert "takes 0 MB of memory, and 0 MB may be taken" in refused(tmp_path)


def signs(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (15, 12)).save(folder / name)


def test_the_german_signs_as_they_are_downloaded(tmp_path, notes):
    base = tmp_path / "gtsrb" / "GTSRB"
    for label in range(2):
        signs(base / "Training" / f"{label:05}", [f"0000{label}_00000.ppm"])
        (base / "Training" / f"{label:05}" / f"GT-{label:05}.csv").write_text("Filename;Width\n")
    images = open_labelled(tmp_path, 2)
    assert images.labels == (0, 1) and Path(images.name(1)).name == "00001_00000.ppm" and images.shape == (12, 15)
    assert "images of Training are taken, since there is no Final_Test/" in notes.messages[0]
    signs(base / "Final_Test" / "Images", ["00000.ppm", "00001.ppm", "00002.ppm"])
    heading = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    lines = [f"0000{number};15;12;5;5;9;9;{label}\n".replace(";", ".ppm;", 1) for number, label in enumerate([1, 0, 1])]
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text(heading + "".join(lines))
    for source in (tmp_path, base.parent, base):
        images = open_labelled(source, 2)
        assert images.labels == (0, 1, 1) and Path(images.name(0)).name == "00001.ppm"
    assert "images of Final_Test/ are taken, by GT-final_test.csv" in notes.messages[-1]
    (tmp_path / "gtsrb" / "GT-final_test.csv").rename(base / "Final_Test" / "Images" / "GT-final_test.csv")
    assert len(open_labelled(base / "Final_Test" / "Images" / "GT-final_test.csv", 2)) == 3


def test_other_files_are_refused(tmp_path):
    (tmp_path / "images.parquet").touch()
    assert "no labelled images; give a folder of them, a table" in refused(tmp_path / "images.parquet")
    (tmp_path / "test").touch()  # not of a folder of CIFAR's
    assert "no labelled images" in refused(tmp_path / "test")
