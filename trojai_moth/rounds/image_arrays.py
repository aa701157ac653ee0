"""Images and labels as arrays: numpy's .npz, and .npy of which there is one for images and one for labels."""

from __future__ import annotations

import math
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..core.errors import SettingsError
from ..core.files import list_folder, open_regular
from ..core.memory import in_words, memory_for_data
from .image_folder import SPLITS
from .image_source import Found, ImageArray, say

_IMAGES, _LABELS = ("x", "images", "image", "imgs", "img", "data"), ("y", "labels", "label", "targets", "target")
_NAMES = ("names", "class_names", "classes", "label_names", "labels_names")
_UNNAMED = {"arr_0": "x", "arr_1": "y"}
# Parts of a data set in the order of choice; a file without parts goes before what was trained on.
_PARTS = (*SPLITS[: SPLITS.index("train")], "", *SPLITS[SPLITS.index("train") :])
_WHITE, _WHITE_16, _STEP_16 = 255, 65_535, 257
# Rounding by more than this is a loss, and not what half precision does to whole numbers.
_LOSS = 0.2
# Sixteen bits are the most that go into an image's number; beyond 1 by this much is a trace of computing.
_TRACE, _LEAST_WHITE = 1e-3, 16
_AT_ONCE = 256
_MOST_ARRAYS, _SHOWN = 1000, 8
_MOST_NAME_BYTES = 1 << 20
_HALVES = (0xD800, 0xDFFF)  # halves of characters, which are no text by themselves
_BROKEN = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype
    needed: int
    """Bytes of its numbers."""


def find_in_npz(path: Path) -> Found:
    """The images of an .npz; SettingsError where it has none, or takes more than this machine's memory holds.

    Arrays are found by name: ``x``, ``images`` or ``data`` with ``y``, ``labels`` or ``targets``, those of a test part
    (``x_test``, ``test_images``) before others, and ``names`` of the classes. See :func:`as_images` for their shapes.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(entries) > _MOST_ARRAYS:
                raise SettingsError(f"{path}: {len(entries)} arrays; save images and labels by themselves")
            images, labels, several = _pair(entries, path)

            def read(name: str) -> np.ndarray:
                info = entries[name]
                return _read(lambda: archive.open(info), info.file_size, f"{path}: {name}")

            names = next((name for name in _NAMES if name in entries), None)
            small = names is not None and entries[names].file_size <= _MOST_NAME_BYTES
            known = _names(read(names)) if names is not None and small else None
            part = f"its arrays {images} and {labels} are taken" if several else ""
            return _found(read(images), read(labels), f"{path}: {images}", path, known, part)
    except _BROKEN as error:
        raise _unreadable(path, error) from None


def find_in_npy(path: Path) -> Found:
    """The images of an .npy, whose labels lie beside it: ``y_test.npy`` beside ``x_test.npy``.

    SettingsError as for an .npz, and where there are no labels.
    """
    beside = {other.stem: other for other in list_folder(path.parent) if other.suffix.lower() == ".npy"}
    wanted = _parsed(path.stem)
    labels = next((other for name, other in beside.items() if _is_label_of(_parsed(name), wanted)), None)
    if labels is None:
        raise SettingsError(
            f"{path}: no labels beside it; call the two files x.npy and y.npy, or save one .npz of both"
        )
    arrays = []
    for each in (path, labels):
        try:
            with open_regular(each) as file:
                size = file.seek(0, 2)
            arrays.append(_read(lambda each=each: open_regular(each), size, str(each)))  # type: ignore[misc]
        except _BROKEN as error:
            raise _unreadable(each, error) from None
    return _found(arrays[0], arrays[1], str(path), path, None, "")


def as_images(values: np.ndarray, where: str) -> np.ndarray:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) -> (N, C, H, W) uint8; SettingsError for other arrays.

    Of four axes the channels are the shorter of the second and the last; of equal ones the last. Fractions up to 1 are
    multiplied by 255, 16 bits divided by 257, and other numbers are 0 to 255; where rounding loses something, that is
    said. What is below 0 was normalised, and is refused: how is not said.
    """
    if values.ndim not in (3, 4) or 0 in values.shape or values.dtype.kind not in "buif":
        shape = " x ".join(map(str, values.shape)) or "a single"
        raise SettingsError(
            f"{where}: {shape} of {values.dtype} are no images; save (N, height, width) or (N, height, width, channels)"
        )
    images = _as_bytes(values, where)
    if images.ndim == 3:
        return images[:, None]
    return images if images.shape[1] < images.shape[3] else images.transpose(0, 3, 1, 2)


def require_memory(needed: int, where: str) -> None:
    """SettingsError where so many bytes are more than may be taken here."""
    may = memory_for_data()
    if needed > may:
        raise SettingsError(
            f"{where}: takes {in_words(needed)} of memory, and {in_words(may)} may be taken; save fewer"
        )


def _found(
    images: np.ndarray, labels: np.ndarray, where: str, path: Path, names: tuple[str, ...] | None, part: str
) -> Found:
    pixels = as_images(images, where)
    numbers = _labels(labels, str(path))
    if len(numbers) != len(pixels):
        raise SettingsError(f"{path}: {len(pixels)} images, but {len(numbers)} labels; save as many of both")
    return Found(ImageArray(pixels, str(path)), numbers, names=names, part=part)


def _parsed(name: str) -> tuple[str, str, str]:
    """What is before the word, images or labels as ``x`` or ``y`` (else empty), and the part.

    >>> _parsed("X_test"), _parsed("train_labels"), _parsed("small_y"), _parsed("mask")
    (('', 'x', 'test'), ('', 'y', 'train'), ('small', 'y', ''), ('mask', '', ''))
    """
    plain = re.sub(r"^([xy])(?=train|test|val)", r"\1_", _UNNAMED.get(name, name).lower())
    words = re.split(r"[_\-. ]+", plain)
    part = next((word for word in words if word in SPLITS), "")
    words = [word for word in words if word != part]
    kind = "x" if words and words[-1] in _IMAGES else "y" if words and words[-1] in _LABELS else ""
    return "_".join(words[:-1] if kind else words), kind, part


def _is_label_of(label: tuple[str, str, str], images: tuple[str, str, str]) -> bool:
    return label == (images[0], "y", images[2])


def _pair(names: Iterable[str], path: Path) -> tuple[str, str, bool]:
    """The arrays to take, and whether there are others of that kind."""
    parsed = {name: _parsed(name) for name in names}
    pairs = [
        (_PARTS.index(image[2]), name, other)
        for name, image in parsed.items()
        if image[1] == "x"
        for other, label in parsed.items()
        if _is_label_of(label, image)
    ]
    if not pairs:
        there = ", ".join(list(parsed)[:_SHOWN]) + (", ..." if len(parsed) > _SHOWN else "")
        raise SettingsError(f"{path}: its arrays are {there or 'none'}; call the images x, and their classes y")
    _, images, labels = min(pairs, key=lambda pair: pair[0])
    return images, labels, len({name for _, name, _ in pairs}) > 1


def _read(opened: Callable[[], IO[bytes]], size: int, where: str) -> np.ndarray:
    """One array of so many bytes in its file; what it claims is compared with them before it is read."""
    with opened() as file:
        header = _header(file)
    if header.dtype.hasobject:
        raise SettingsError(f"{where}: holds objects of Python, which are not read; save numbers, or names as text")
    if header.needed > size:
        raise ValueError("it is cut short")
    made = 0 if header.dtype == np.uint8 else math.prod(header.shape)
    require_memory(header.needed + made, where)
    with opened() as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: IO[bytes]) -> _Header:
    """Shape and number type; ValueError where they cannot be read."""
    try:
        version = np.lib.format.read_magic(file)
        read = _HEADERS[version]
        shape, _, dtype = read(file)
        return _Header(shape, dtype, math.prod(shape) * dtype.itemsize)
    except Exception as error:  # it is text that is parsed, which raises whatever it stumbles on
        raise ValueError(f"its head is damaged, {type(error).__name__}") from None


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _unreadable(path: Path, error: Exception) -> SettingsError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return SettingsError(f"{path}: not a readable file of arrays ({reason.splitlines()[0][:200]}); save it again")


def _names(values: np.ndarray) -> tuple[str, ...] | None:
    texts = _texts(values) if values.ndim == 1 else None
    return tuple(texts) if texts else None


def _texts(values: np.ndarray) -> list[str] | None:
    """Text (N,) as Python's; None where it is none, or no characters that can be written."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind != "U":
        return None
    codes = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))).view(np.uint32)
    halves = (codes >= _HALVES[0]) & (codes <= _HALVES[1])
    return [str(value) for value in values] if not halves.any() and (codes <= sys.maxunicode).all() else None


def _labels(values: np.ndarray, path: str) -> tuple[int | str, ...]:
    """Whole numbers or names (N,) or (N, 1), or (N, K) with a single 1 in each row."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    elif values.ndim == 2 and _is_one_hot(values):
        values = values.argmax(1)
    texts = _texts(values) if values.ndim == 1 else None
    if texts is not None:
        return tuple(texts)
    if values.ndim != 1 or values.dtype.kind not in "buif" or not _are_whole(values):
        raise SettingsError(f"{path}: its labels are not one class for each image; save a number or a name for each")
    return tuple(int(value) for value in values)


def _are_whole(values: np.ndarray) -> bool:
    return bool((np.isfinite(values) & (values == np.rint(values))).all())


def _is_one_hot(values: np.ndarray) -> bool:
    return values.dtype.kind in "buif" and bool(
        ((values == 1).sum(1) == 1).all() and (np.count_nonzero(values, axis=1) == 1).all()
    )


def _as_bytes(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    fractions = values.dtype.kind == "f"
    scale = _scale(values.dtype.kind, high)
    if not 0 <= low <= high or scale is None:
        raise SettingsError(
            f"{where}: values from {low:g} to {high:g}; save images as they were before they were normalised, 0 to 255"
        )
    made, lost = np.empty(values.shape, np.uint8), False
    for start in range(0, len(values), _AT_ONCE):
        part = values[start : start + _AT_ONCE].astype(np.float64) * scale
        whole = np.rint(part)
        lost = lost or bool((np.abs(part - whole) > _LOSS).any())
        made[start : start + _AT_ONCE] = whole.clip(0, _WHITE)
    if lost and fractions:
        say(f"{where}: fractions between the 256 steps of an image are rounded")
    return made


def _scale(kind: str, high: float) -> float | None:
    """What numbers are multiplied by so that white is 255; None where nobody can tell."""
    if kind == "b" or (kind == "f" and high <= 1 + _TRACE):
        return _WHITE
    if kind == "f" and high < _LEAST_WHITE:
        return None
    if high <= _WHITE:
        return 1.0
    return 1 / _STEP_16 if kind in "ui" and high <= _WHITE_16 else None
