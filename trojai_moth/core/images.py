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

from .errors import UnreadableModelError
from .files import list_closed, open_regular, read_text

# Rounds 1 to 4 put the class into the name; the 2022 round puts it into a .json file beside the image.
EXAMPLE_NAME = re.compile(r"class_(\d{1,6})_example_(\d{1,9})\.(?:png|jpe?g)", re.IGNORECASE)
_NUMBERED_NAME = re.compile(r"(\d{1,18})\.(?:png|jpe?g)", re.IGNORECASE)
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
IMAGE_SUFFIXES = frozenset(_FORMATS)
_LONGEST_SIDE = 8192
_LABEL_BYTES = 64


@dataclass(frozen=True)
class ImagePool:
    """Images x (N, 3, H, W) float32 in [0, 1] with labels y (N,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        """One line, without the images."""
        return f"<ImagePool {len(self)} images, {' x '.join(map(str, self.x.shape[1:]))}>"

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


def concatenate(pools: Sequence[ImagePool]) -> ImagePool:
    """All images of several pools, in order."""
    return ImagePool(torch.cat([pool.x for pool in pools]), torch.cat([pool.y for pool in pools]))


def read_image(path: Path) -> Tensor:
    """A PNG or JPEG file as (3, H, W) uint8, RGB; UnreadableModelError names a file that is not what its name says."""
    try:
        # Left to guess, Pillow would hand what is called .png to any decoder it has, one of which starts a program.
        with open_regular(path) as file, Image.open(file, formats=[_FORMATS[path.suffix.lower()]]) as image:
            if max(image.size) > _LONGEST_SIDE:
                raise ValueError(f"{image.width} x {image.height} pixels; at most {_LONGEST_SIDE} a side")
            array = np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders raise whatever they stumble on, even SyntaxError
        raise UnreadableModelError(f"{path}: not a readable image ({error})") from None
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def list_examples(folder: Path) -> list[tuple[Path, int]]:
    """Example images with their class, by class and number; UnreadableModelError for a label that is none.

    The class is in a name like class_3_example_0.png, or in 17.json beside 17.png or 17.jpg.
    """
    found = []
    for path in _files(folder):
        match = EXAMPLE_NAME.fullmatch(path.name)
        if match:
            found.append((int(match[1]), int(match[2]), path))
    found += [(label, number, path) for path, label, number in list_numbered(folder)]
    return [(path, label) for label, _, path in sorted(found)]


def list_numbered(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """Images whose label lies beside them as JSON: path, label, number in the name; others are left out."""
    for path in _files(folder):
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


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in list_closed(folder) if path.is_file())
