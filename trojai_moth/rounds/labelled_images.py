"""Labelled images of one's own, wherever they lie: what ``--data PATH`` names, as images of a model's classes."""

from __future__ import annotations

import functools
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import SettingsError
from .class_labels import number_labels, warn_of_missing
from .image_arrays import find_in_npy, find_in_npz
from .image_folder import find_in_folder, split_of
from .image_sets import find_in_set
from .image_source import Found, Images, Shape, say
from .image_table import find_in_table


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of a model's classes, class after class, read when they are asked for."""

    where: str
    """The path, for messages."""
    labels: tuple[int, ...]
    """(N,) the class of each image, 0 to classes - 1, in rising order."""
    names: tuple[str, ...] | None
    """Names of the classes by number, the model's or else those that the source says."""
    channels: int
    """3, but for arrays of other than one or three channels."""
    left_out: str
    """What lies there and is not taken, and why, in words; empty if nothing is."""
    _images: Images = field(repr=False)
    _order: tuple[int, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> Shape | None:
        """(height, width) in pixels of all images, as far as a look at about 50 tells; None where they differ.

        SettingsError where one of them is not readable.
        """
        return self._images.shape

    def name(self, index: int) -> str:
        """What messages call an image: its path, or its place in a file."""
        return self._images.name(self._order[index])

    def shape_of(self, index: int) -> Shape:
        """(height, width) in pixels of one image; SettingsError where it is not readable."""
        return self._images.shape_of(self._order[index])

    def of_class(self, label: int) -> range:
        """The indices of a class's images."""
        return range(bisect_left(self.labels, label), bisect_right(self.labels, label))

    def first(self, label: int, most: int) -> range:
        """The indices of the first ``most`` images of a class, or of all it has."""
        return self.of_class(label)[:most]

    def first_of_each(self, classes: int, most: int) -> tuple[list[int], Tensor]:
        """The indices of the first ``most`` images of each class from 0 on, and their labels (n,) int64."""
        chosen = [index for label in range(classes) for index in self.first(label, most)]
        return chosen, torch.tensor([self.labels[index] for index in chosen])

    def read(self, indices: Sequence[int], shape: Shape) -> Tensor:
        """Images (n, channels, height, width) uint8 as a round would store them.

        They are shrunk or grown until they just fill ``shape``, and the middle is cut out. SettingsError names an
        image that is not readable.
        """
        return self._images.read([self._order[index] for index in indices], shape)


def open_labelled(source: Path, classes: int, names: Sequence[str] | None = None) -> LabelledImages:
    """Labelled images of a model with so many classes; SettingsError where they are none of its, in one line.

    source: a folder, a table, arrays or a data set of torchvision's; see :func:`image_folder.find_in_folder`,
    :func:`image_table.find_in_table`, :func:`image_arrays.find_in_npz` and :func:`image_sets.find_in_set`. names: the
    model's classes, by which named ones are found. What is passed over, which part of a data set is taken, and which
    classes have no images is said once. The last ones are remembered as long as neither the path nor a folder in it
    changes.
    """
    chosen = tuple(names) if names else None
    state = _state(source)
    # What changed just now may change again within the clock's step, and look the same.
    if max(state, default=0) > time.time_ns() - _SETTLED_NS:
        return _open(source, classes, chosen)
    return _remembered(source, state, classes, chosen)


def look_at(source: Path) -> tuple[Shape | None, int | None]:
    """Of images whatever their model: the (height, width) that all have, and the number of classes; None if unknown."""
    try:
        found = _find(source, 0, named=False)  # of any number of classes
        shape = found.images.shape
    except SettingsError:
        return None, None
    labels = set(found.labels) | set(found.every)
    numbers = [label for label in labels if isinstance(label, int)]
    return shape, len(found.names or ()) or (max(numbers) + 1 if numbers else len(labels)) or None


_SETTLED_NS = 2_000_000_000
_FEW_FOLDERS = 4


def _state(source: Path) -> tuple[int, ...]:
    """When the path and the folders in it were last changed; two levels of them where the first are parts or sets."""
    try:
        inside = _folders(str(source)) if source.is_dir() else []
        if len(inside) <= _FEW_FOLDERS:
            inside += [path for folder in inside for path in _folders(folder)]
        return tuple(os.stat(path).st_mtime_ns for path in (str(source), *inside))
    except OSError:
        return ()


def _folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if entry.is_dir())


@functools.lru_cache(maxsize=2)
def _remembered(source: Path, state: tuple[int, ...], classes: int, names: tuple[str, ...] | None) -> LabelledImages:
    return _open(source, classes, names)


def _open(source: Path, classes: int, names: tuple[str, ...] | None) -> LabelledImages:
    found, where = _find(source, classes, named=bool(names)), str(source)
    if found.part:
        say(f"{where}: {found.part}")
    if found.left_out:
        say(f"{where}: left out: {found.left_out}")
    labels, known = number_labels(found, where, classes, names)
    warn_of_missing(labels, where, classes, known)
    order = tuple(sorted(range(len(labels)), key=lambda number: (labels[number], number)))
    return LabelledImages(
        where=where,
        labels=tuple(labels[number] for number in order),
        names=known,
        channels=found.images.channels,
        left_out=found.left_out,
        _images=found.images,
        _order=order,
    )


def _find(source: Path, classes: int, *, named: bool) -> Found:
    if source.is_dir():
        found, part = find_in_set(source, classes), split_of(source)
        if found or not part:
            return found or find_in_folder(source, named=named)
        return replace(find_in_folder(part, named=named), part=f"images of {part.name}/ are taken")
    if not source.exists():
        raise SettingsError(
            f"{source}: no such folder or file; --data takes examples, composed, a folder or file, or several with +"
        )
    read = _FILES.get(source.suffix.lower())
    found = read(source) if read else find_in_set(source, classes)
    if found is None:
        raise SettingsError(
            f"{source}: no labelled images; give a folder of them, a table (.csv), .npz, or MNIST's files"
        )
    return found


_FILES: dict[str, Callable[[Path], Found]] = {
    **{".csv": find_in_table, ".tsv": find_in_table, ".txt": find_in_table},
    **{".npz": find_in_npz, ".npy": find_in_npy},
}
