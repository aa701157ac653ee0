"""Labelled images in memory, and reading a round's example images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import UnreadableModelError

EXAMPLE_NAME = re.compile(r"class_(\d+)_example_(\d+)\.png$")


@dataclass(frozen=True)
class ImagePool:
    """Images x (N, 3, H, W) float32 in [0, 1] with labels y (N,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

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
    """A PNG file as (3, H, W) uint8, RGB; UnreadableModelError names a file that is not one."""
    try:
        # Left to guess, Pillow would hand what is called .png to any decoder it has, one of which starts a program.
        with Image.open(path, formats=["PNG"]) as image:
            array = np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders raise whatever they stumble on, even SyntaxError
        raise UnreadableModelError(f"{path}: not a readable image ({error})") from None
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def list_examples(folder: Path) -> list[tuple[Path, int]]:
    """Example images with their class, from names like class_3_example_0.png, by class and number."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = EXAMPLE_NAME.search(path.name)
        if match and path.is_file():  # opening a pipe would wait for ever
            found.append((int(match[1]), int(match[2]), path))
    return [(path, label) for label, _, path in sorted(found)]
