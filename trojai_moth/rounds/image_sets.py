"""Data sets as torchvision downloads them: CIFAR-10 and -100, MNIST and its relatives, and GTSRB."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.errors import SettingsError
from ..core.files import list_folder, open_regular, read_bytes, read_text
from ..loading.plain_pickle import read_plain_pickle
from ..loading.refusal import Refusal
from .image_arrays import require_memory
from .image_folder import find_in_folder
from .image_source import Found, ImageArray
from .image_table import find_in_table


@dataclass(frozen=True)
class _Cifar:
    """How one of the two is laid out. Of binary files a record is a class, or two, and an image's bytes."""

    classes: int
    folders: tuple[str, str]
    tests: tuple[str, ...]
    trains: tuple[str, ...]
    meta: str
    labels: str
    names: str
    names_file: str
    label_bytes: int


_CIFAR = (
    _Cifar(
        classes=10,
        folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
        tests=("test_batch",),
        trains=tuple(f"data_batch_{number}" for number in range(1, 6)),
        meta="batches.meta",
        labels="labels",
        names="label_names",
        names_file="batches.meta.txt",
        label_bytes=1,
    ),
    _Cifar(
        classes=100,
        folders=("cifar-100-python", "cifar-100-binary"),
        tests=("test",),
        trains=("train",),
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
        names_file="fine_label_names.txt",
        label_bytes=2,
    ),
)
_COARSE = 20
_CIFAR_SHAPE = (3, 32, 32)
# CIFAR-100's 50,000 images have 155 MB.
_MOST_CIFAR_BYTES = 256 << 20
_PARTS = {"t10k": "test", "test": "test", "train": "training"}
_IMAGE_MAGIC, _LABEL_MAGIC = 0x803, 0x801
# A compressed byte makes at most 1032.
_MOST_GROWTH = 1100
_GTSRB_TRUTH = "GT-final_test.csv"


def find_in_set(source: Path, classes: int) -> Found | None:
    """The images of a data set that a folder, its parent or one of its files is; None where it is none of these.

    Images of the test part are taken where there are some. CIFAR-100's 20 groups are its classes where the model has
    20. SettingsError for files that are damaged.
    """
    return _find_cifar(source, classes) or _find_idx(source) or _find_gtsrb(source)


def _find_cifar(source: Path, classes: int) -> Found | None:
    places = [(kind, folder, files) for kind in _CIFAR for folder, files in _cifar_files(source, kind)]
    if not places:
        return None
    wanted = 100 if classes == _COARSE else classes
    kind, folder, files = next((place for place in places if place[0].classes == wanted), places[0])
    coarse = kind.classes == 100 and classes == _COARSE
    read = _read_binary if files[0].suffix == ".bin" else _read_batch
    parts = [read(path, kind, coarse) for path in files]
    images = ImageArray(np.concatenate([pixels for pixels, _ in parts]), str(folder))
    labels = tuple(label for _, some in parts for label in some)
    part = "" if source.is_file() else f"images of {', '.join(path.name for path in files)} are taken"
    return Found(images, labels, names=_cifar_names(folder, kind, coarse), part=part)


def _cifar_files(source: Path, kind: _Cifar) -> Iterator[tuple[Path, list[Path]]]:
    """Folders in which there are files of this kind, with those to take."""
    folder = source if source.is_dir() else source.parent
    for place in (folder, *(folder / name for name in kind.folders)):
        for suffix, meta in (("", kind.meta), (".bin", kind.names_file)):
            if not (place / meta).is_file() and place.name not in kind.folders:
                continue  # a file called test may be anybody's
            tests, trains = (
                [place / f"{name}{suffix}" for name in names if (place / f"{name}{suffix}").is_file()]
                for names in (kind.tests, kind.trains)
            )
            if source.is_file():
                tests, trains = [path for path in (*tests, *trains) if path == source], []
            if tests or trains:
                yield place, tests or trains


def _read_batch(path: Path, kind: _Cifar, coarse: bool) -> tuple[np.ndarray, Sequence[int]]:
    content = _plain(path)
    pixels, labels = content.get("data"), content.get("coarse_labels" if coarse else kind.labels)
    numbers = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or not isinstance(labels, list) or not numbers:
        raise SettingsError(f"{path}: not a batch of CIFAR's; fetch it again from its source")
    if pixels.shape != (len(labels), math.prod(_CIFAR_SHAPE)):
        raise SettingsError(f"{path}: its images and labels are not as many, or no 32 x 32 pixels; fetch it again")
    return pixels.reshape(-1, *_CIFAR_SHAPE), labels


def _plain(path: Path) -> dict[str, object]:
    try:
        return read_plain_pickle(read_bytes(path, _MOST_CIFAR_BYTES))
    except (OSError, Refusal) as error:
        raise SettingsError(f"{path}: {error}") from None


def _read_binary(path: Path, kind: _Cifar, coarse: bool) -> tuple[np.ndarray, Sequence[int]]:
    try:
        content = np.frombuffer(read_bytes(path, _MOST_CIFAR_BYTES), np.uint8)
    except OSError as error:
        raise SettingsError(f"{path}: {error}") from None
    length = kind.label_bytes + math.prod(_CIFAR_SHAPE)
    if not len(content) or len(content) % length:
        raise SettingsError(f"{path}: {len(content)} bytes are no whole images of {length}; fetch it again")
    records = content.reshape(-1, length)
    labels = records[:, 0 if coarse else kind.label_bytes - 1]
    return records[:, kind.label_bytes :].reshape(-1, *_CIFAR_SHAPE), labels.tolist()


def _cifar_names(folder: Path, kind: _Cifar, coarse: bool) -> tuple[str, ...] | None:
    """Names of the classes, of which a model may do without; None where there are not as many as classes."""
    count, key = (_COARSE, "coarse_label_names") if coarse else (kind.classes, kind.names)
    if (folder / kind.meta).is_file():
        names = _plain(folder / kind.meta).get(key)
    else:
        text = folder / kind.names_file.replace("fine", "coarse" if coarse else "fine")
        try:
            names = read_text(text, 1 << 16).split() if text.is_file() else None
        except (OSError, ValueError) as error:
            raise SettingsError(f"{text}: {error}") from None
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _find_idx(source: Path) -> Found | None:
    """MNIST's format, packed or not: ``t10k-images-idx3-ubyte`` and ``train-...`` in the folder, in raw/ or */raw/."""
    if source.is_file():
        folders, only = [source.parent], source
    else:
        folders = [source, source / "raw", *(path / "raw" for path in list_folder(source) if path.is_dir())]
        only = None
    for folder in folders:
        for prefix, part in _PARTS.items():
            images = _idx_file(folder, f"{prefix}-images", 3)
            if images and (only is None or only == images):
                return _read_idx(images, _idx_file(folder, f"{prefix}-labels", 1), part if only is None else "")
    return None


def _idx_file(folder: Path, stem: str, axes: int) -> Path | None:
    names = (f"{stem}{mark}idx{axes}-ubyte{packed}" for mark in "-." for packed in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_idx(images: Path, labels: Path | None, part: str) -> Found:
    if labels is None:
        raise SettingsError(
            f"{images}: its labels are not beside it; put {images.name.replace('images', 'labels')} there"
        )
    pixels, classes = _idx_array(images, _IMAGE_MAGIC, 3), _idx_array(labels, _LABEL_MAGIC, 1)
    if len(pixels) != len(classes) or not pixels.size:
        raise SettingsError(f"{images}: {len(pixels)} images, but {len(classes)} labels; fetch both again")
    said = f"images of its {part} part ({images.name}) are taken" if part else ""
    return Found(ImageArray(pixels[:, None], str(images)), tuple(classes.tolist()), part=said)


def _idx_array(path: Path, magic: int, axes: int) -> np.ndarray:
    """Bytes of an idx file; what its head claims is compared with the file's length before it is unpacked."""
    head = struct.Struct(f">{axes + 1}I")
    try:
        with open_regular(path) as file:
            packed = file.read(2) == b"\x1f\x8b"
            size = file.seek(0, 2) * (_MOST_GROWTH if packed else 1)
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            start = stream.read(head.size)
            if len(start) < head.size or head.unpack(start)[0] != magic:
                raise ValueError("its first bytes are others")
            shape = head.unpack(start)[1:]
            needed = math.prod(shape)
            if needed + head.size > size:
                raise ValueError("it is cut short")
            require_memory(needed, str(path))
            content = stream.read(needed + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SettingsError(f"{path}: not a readable idx file ({error}); fetch it again") from None
    if len(content) != needed:
        raise SettingsError(f"{path}: not as long as its head says; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find_gtsrb(source: Path) -> Found | None:
    """The German signs: a table names the classes of the test images, and folders are those of the others."""
    for base in (source, source / "GTSRB", source / "gtsrb" / "GTSRB"):
        images = base / "Final_Test" / "Images"
        tables = [folder / _GTSRB_TRUTH for folder in (images, images.parent, base, base.parent)]
        table = next((path for path in tables if path.is_file()), None)
        if images.is_dir() and table:
            return replace(find_in_table(table, images), part=f"images of Final_Test/ are taken, by {table.name}")
        for train in (base / "Final_Training" / "Images", base / "Training"):
            if train.is_dir() and (base != source or train.name == "Images"):
                said = (
                    f"images of {train.relative_to(base)} are taken, since there is no Final_Test/ with {_GTSRB_TRUTH}"
                )
                return replace(find_in_folder(train), part=said)
    return None
