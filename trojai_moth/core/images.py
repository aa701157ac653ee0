"""Labelled images in memory, and reading a round's example images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .channels import COLOURS
from .errors import UnreadableModelError
from .files import list_closed, list_folder, read_text
from .image_file import FORMATS, LONGEST_SIDE, RefusedImage, open_image, read_rgb

SUFFIXES = rf"\.(?:{'|'.join(suffix[1:] for suffix in FORMATS)})"
"""The ends of images' names, as part of a regular expression that takes no notice of case."""
# Rounds 1 to 4 put the class into the name; the 2022 round puts it into a .json file beside the image.
EXAMPLE_NAME = re.compile(rf"class_(\d{{1,6}})_example_(\d{{1,9}}){SUFFIXES}", re.IGNORECASE)
_NUMBERED_NAME = re.compile(rf"(\d{{1,18}}){SUFFIXES}", re.IGNORECASE)
# What a model's own images may take together as they are read: 1365 of 256 x 256 pixels. As inputs they take four
# times that, and more while it is found out how they are read.
_MOST_BYTES = 256 << 20
_LABEL_BYTES = 64


@dataclass(frozen=True)
class ImagePool:
    """Images x (N, C, H, W) float32 in [0, 1] with labels y (N,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        """One line, without the images."""
        return f"<ImagePool {len(self)} images, {' x '.join(map(str, self.x.shape[1:]))}>"

    def counts(self, classes: int) -> tuple[int, ...]:
        """How many images there are of each class."""
        return tuple(torch.bincount(self.y.cpu(), minlength=classes).tolist())

    def positions(self, label: int) -> Tensor:
        """Indices (n,) of the images of one class, in order."""
        return torch.nonzero(self.y == label).flatten()

    def victims(self, victim: int | None, target: int) -> Tensor:
        """(N,) bool: images of the victim, or with None of every class but the target."""
        return self.y == victim if victim is not None else self.y != target

    def first_per_class(self, count: int) -> ImagePool:
        """The first ``count`` images of each class, or all it has, by class."""
        index = [self.positions(label)[:count] for label in sorted(set(self.y.tolist()))]
        return self.take(torch.cat(index)) if index else self

    def take(self, index: Tensor) -> ImagePool:
        """The images at these indices."""
        return ImagePool(self.x[index], self.y[index])

    def to(self, device: torch.device) -> ImagePool:
        """The same images on another device."""
        return ImagePool(self.x.to(device), self.y.to(device))


def class_words(labels: Sequence[int]) -> str:
    """At most eight classes by number.

    >>> class_words([4]), class_words([2, 0])
    ('class 4', 'classes 0, 2')
    """
    text = ", ".join(map(str, sorted(labels)[:8])) + (", ..." if len(labels) > 8 else "")
    return f"class{'es' if len(labels) > 1 else ''} {text}"


def concatenate(pools: Sequence[ImagePool]) -> ImagePool:
    """All images of several pools, in order."""
    return ImagePool(torch.cat([pool.x for pool in pools]), torch.cat([pool.y for pool in pools]))


def as_colours(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) of any number of channels as one of three colours to look at, (3, H, W).

    Of three channels the image itself; of others their mean as grey.
    """
    return image if len(image) == COLOURS else np.repeat(image.mean(0, keepdims=True), COLOURS, axis=0)


def read_image(path: Path) -> Tensor:
    """An image file as it is, (3, H, W) uint8, RGB; UnreadableModelError names a file that is not what its name says.

    Also one that is larger than the images of any model are; see :func:`image_file.read_rgb` for photographs.
    """
    return _as_tensor(read_rgb(path, longest=LONGEST_SIDE))


def read_small(path: Path, side: int) -> Tensor:
    """An image file of any size as (3, H, W) uint8, RGB; a large one smaller, its shorter side at least 2 * side."""
    return _as_tensor(read_rgb(path, side=side))


def _as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


class ImageReader:
    """Reads a model's images one by one, until they take more memory together than the images of any round."""

    def __init__(self) -> None:
        self._left = _MOST_BYTES

    def read(self, path: Path) -> Tensor:
        """As :func:`read_image`; UnreadableModelError, before it is decoded, for the first one that is too much."""
        with open_image(path, LONGEST_SIDE) as image:
            needed = 3 * image.width * image.height
            if needed > self._left:
                raise RefusedImage(
                    f"{image.width} x {image.height} pixels, and with those before it more than "
                    f"{_MOST_BYTES >> 20} MiB of images; give fewer, or smaller ones"
                )
        self._left -= needed
        return read_image(path)


def list_examples(folder: Path, *, closed: bool = True) -> list[tuple[Path, int]]:
    """Example images with their class, by class and number; UnreadableModelError for a label that is none.

    The class is in a name like class_3_example_0.png, or in 17.json beside 17.png or 17.jpg. closed: of a model, whose
    links may not lead out of the folder.
    """
    found = []
    for path in _files(folder, closed):
        match = EXAMPLE_NAME.fullmatch(path.name)
        if match:
            found.append((int(match[1]), int(match[2]), path))
    found += [(label, number, path) for path, label, number in list_numbered(folder, closed=closed)]
    return [(path, label) for label, _, path in sorted(found)]


def list_numbered(folder: Path, *, closed: bool = True) -> Iterator[tuple[Path, int, int]]:
    """Images whose label lies beside them as JSON: path, label, number in the name; others are left out."""
    for path in _files(folder, closed):
        match, beside = _NUMBERED_NAME.fullmatch(path.name), path.with_suffix(".json")
        if match and beside.is_file():
            yield path, read_label(beside), int(match[1])


def read_label(path: Path) -> int:
    """The class in a JSON file that holds nothing but a whole number."""
    try:
        label = json.loads(read_text(path, _LABEL_BYTES))
    except (OSError, ValueError, RecursionError):
        label = None
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < 1_000_000:
        raise UnreadableModelError(f"{path}: not a class; the file must hold one whole number and nothing else")
    return label


def _files(folder: Path, closed: bool) -> Iterator[Path]:
    return (path for path in (list_closed if closed else list_folder)(folder) if path.is_file())
