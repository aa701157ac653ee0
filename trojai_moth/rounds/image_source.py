"""Images with labels as they lie somewhere, before it is asked which of a model's classes each label is.

What finds them, one module for each kind of place, hands them over as a :class:`Found`.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..core.channels import COLOURS
from ..core.errors import SettingsError, UnreadableModelError
from ..core.image_file import read_shape
from ..core.images import read_small

Shape = tuple[int, int]
"""Height and width in pixels."""

_WHITE = 255.0
# Of an image that is longer than this times the shape it is brought to, the middle alone is made larger or smaller.
_LONGEST_SHAPE = 8
# Images whose shape is asked for: all of a set of files would be opened twice.
_ASKED = 50
# Images of an array that are made larger or smaller at a time, since that takes some memory for each.
_AT_ONCE = 256

_log = logging.getLogger(__name__)


class Images(Protocol):
    """Images by number, read when they are asked for."""

    @property
    def channels(self) -> int:
        """Channels of each image."""

    @property
    def shape(self) -> Shape | None:
        """The shape of all of them, as far as a look at some tells; None where they differ."""

    def name(self, number: int) -> str:
        """What messages call an image: a path, or its place in a file."""

    def shape_of(self, number: int) -> Shape:
        """The shape of one image; SettingsError where it cannot be read."""

    def read(self, numbers: Sequence[int], shape: Shape) -> Tensor:
        """Images (n, channels, height, width) uint8, see :func:`fitted`; SettingsError where one cannot be read."""


@dataclass(frozen=True)
class Found:
    """Images with what the source says of them. labels: of each image, a number or a name of its class."""

    images: Images
    labels: tuple[int | str, ...]
    names: tuple[str, ...] | None = None
    """Names of the classes by number, where the source says them."""
    left_out: str = ""
    """What is not taken and why, in words; empty if nothing is."""
    every: tuple[str, ...] = ()
    """Classes by name, also those without images, where they are folders."""
    part: str = ""
    """Which part of a data set it is, in words, where there are several."""


class ImageFiles:
    """Image files of any size, read one after the other, so that a photograph takes memory only until it is small."""

    channels = COLOURS

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    @functools.cached_property
    def shape(self) -> Shape | None:
        """The shape of about 50 of them."""
        step = max(1, len(self._paths) // _ASKED)
        found = {self.shape_of(number) for number in range(0, len(self._paths), step)}
        return found.pop() if len(found) == 1 else None

    def name(self, number: int) -> str:
        """Its path."""
        return str(self._paths[number])

    def shape_of(self, number: int) -> Shape:
        """Asked of the file without decoding it; SettingsError where it is no image."""
        try:
            return read_shape(self._paths[number])
        except UnreadableModelError as error:
            raise SettingsError(str(error)) from None

    def read(self, numbers: Sequence[int], shape: Shape) -> Tensor:
        """Images (n, 3, height, width) uint8; SettingsError names a file that is no readable image."""
        images = torch.empty(len(numbers), COLOURS, *shape, dtype=torch.uint8)
        try:
            for place, number in enumerate(numbers):
                images[place] = fitted(read_small(self._paths[number], max(shape))[None], shape)[0]
        except UnreadableModelError as error:
            raise SettingsError(str(error)) from None
        return images


class ImageArray:
    """Images in memory. values: (N, C, H, W) uint8; one channel is repeated to three."""

    def __init__(self, values: np.ndarray, where: str) -> None:
        self._values, self._where = values, where
        self.channels = COLOURS if values.shape[1] == 1 else int(values.shape[1])
        self.shape: Shape | None = (int(values.shape[2]), int(values.shape[3]))

    def name(self, number: int) -> str:
        """E.g. ``digits.npz, image 7``, from 0 on."""
        return f"{self._where}, image {number}"

    def shape_of(self, number: int) -> Shape:
        """That of all."""
        return int(self._values.shape[2]), int(self._values.shape[3])

    def read(self, numbers: Sequence[int], shape: Shape) -> Tensor:
        """Images (n, C, height, width) uint8."""
        images = torch.empty(len(numbers), self.channels, *shape, dtype=torch.uint8)
        for start in range(0, len(numbers), _AT_ONCE):
            part = torch.from_numpy(self._values[np.asarray(numbers[start : start + _AT_ONCE])])
            images[start : start + _AT_ONCE] = fitted(part, shape)
        return images


def fitted(images: Tensor, shape: Shape) -> Tensor:
    """(n, C, h, w) uint8 -> (n, C, height, width): just large enough to fill it, and the middle is cut out."""
    (height, width), (rows, columns) = images.shape[2:], shape
    for axis, length, longest in (
        (2, height, math.ceil(_LONGEST_SHAPE * width * rows / columns)),
        (3, width, math.ceil(_LONGEST_SHAPE * height * columns / rows)),
    ):
        if length > longest:
            images = images.narrow(axis, (length - longest) // 2, longest)
    height, width = images.shape[2:]
    if (height, width) == shape:
        return images
    scale = max(rows / height, columns / width)
    filled = (max(rows, round(height * scale)), max(columns, round(width * scale)))
    small = functional.interpolate(images.float(), filled, mode="bilinear", antialias=True)
    top, left = (filled[0] - rows) // 2, (filled[1] - columns) // 2
    cut = small[:, :, top : top + rows, left : left + columns]
    return cut.round().clamp(0, _WHITE).to(torch.uint8)


@functools.lru_cache(maxsize=100)
def say(line: str) -> None:
    """A warning, once, though the same images are opened for each model of a round."""
    _log.warning("%s", line)
