"""A folder of labelled images of any size, to scan and harden with instead of a round's own few examples."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import SettingsError, UnreadableModelError
from ..core.files import list_folder
from ..core.image_file import KINDS, find_files, is_image
from ..core.images import list_examples, read_small

_CLASS_FOLDER = re.compile(r"(?:class[_ -]?)?(\d{1,6})", re.IGNORECASE)
_CLASS_FILE = re.compile(r"class_(\d{1,6})_.*", re.IGNORECASE)
_WHITE = 255.0
# Of an image that is longer than this times its width, the middle alone is made larger or smaller.
_LONGEST_SHAPE = 8
_SHOWN = 4

_log = logging.getLogger(__name__)


@dataclass
class _Found:
    """What lies in a folder: images with their class, files of kinds that are not read, images without a class."""

    images: list[tuple[int, Path]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)

    @property
    def left_out(self) -> str:
        """What is not taken and why, in words; empty if nothing is."""
        kinds = Counter(path.suffix.lower() or path.name for path in self.others).most_common()
        named = ", ".join(f"{count} {kind}" for kind, count in kinds[:_SHOWN])
        words = [f"{named}{', ...' if len(kinds) > _SHOWN else ''}, since only {KINDS} are read"] if kinds else []
        if self.unlabelled:
            words.append(f"{len(self.unlabelled)} images whose class nothing says, such as {self.unlabelled[0].name}")
        return "; ".join(words)


def list_labelled(folder: Path, classes: int) -> list[tuple[Path, int]]:
    """The images below ``folder`` with their class, class after class; SettingsError when none is to be found.

    A class is the name of a sub-folder (``3`` or ``class_3``) at whatever depth the images lie in it, the beginning of
    a file's name (``class_3_...``), or a whole number in a .json file beside the image. Sub-folders with other names
    are refused: which class they would be is anyone's guess. Classes that are numbered from 1 to the last are taken
    for 0 to the last but one, and that is said, as is what else lies there and is not read.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder}: no such folder; --data takes examples, composed, a folder, or several with +")
    found = _search(folder, classes)
    left_out = found.left_out and f"left out: {found.left_out}"
    if not found.images:
        raise SettingsError(
            f"{folder}: no labelled images{left_out and f' that are read ({left_out})'}; put {KINDS} files into "
            "sub-folders 0, 1, ..., name them class_0_... or put each one's class into a .json file beside it"
        )
    if left_out:
        _say(f"{folder}: {left_out}")
    first, last = min(found.images), max(found.images)
    shift = 1 if first[0] == 1 and last[0] == classes else 0
    if last[0] - shift >= classes:
        raise SettingsError(
            f"{last[1]}: class {last[0]}, but the model has {classes} classes, which are numbered 0 to {classes - 1}; "
            "rename it, or take it out"
        )
    if shift:
        _say(f"{folder}: classes are numbered from 1 to {classes}; 1 is taken for class 0 of the model, and so on")
    return [(path, label - shift) for label, path in sorted(found.images)]


@functools.lru_cache(maxsize=100)
def _say(line: str) -> None:
    """Once, though a folder is listed several times for each model."""
    _log.warning("%s", line)


def _search(folder: Path, classes: int) -> _Found:
    found = _Found([(label, path) for path, label in list_examples(folder, closed=False)])
    known = {path for _, path in found.images}
    for path in list_folder(folder):
        if path.is_dir():
            _search_class(path, found, classes)
        elif not is_image(path):
            found.others += [path] if _CLASS_FILE.fullmatch(path.name) else []
        elif path not in known and path.is_file():
            match = _CLASS_FILE.fullmatch(path.name)
            if match:
                found.images.append((int(match[1]), path))
            else:
                found.unlabelled.append(path)
    return found


def _search_class(folder: Path, found: _Found, classes: int) -> None:
    match = _CLASS_FOLDER.fullmatch(folder.name)
    if not match:
        inside = list_folder(folder)
        if any(is_image(path) or path.is_dir() for path in inside):
            raise SettingsError(_unnumbered(folder, inside, classes))
        return
    for path in find_files(folder):
        if not is_image(path):
            found.others.append(path)
        elif path.is_file():  # opening a pipe would wait for ever
            found.images.append((int(match[1]), path))


def _unnumbered(folder: Path, inside: Sequence[Path], classes: int) -> str:
    """What to do about a sub-folder that has a name of its own."""
    if any(path.is_dir() and _CLASS_FOLDER.fullmatch(path.name) for path in inside):
        return f"{folder}: holds classes, and is none itself; give this folder: --data {folder}"
    text = f"{folder}: not the number of a class; call the folder 0, 1, ... or class_0, class_1, ... as the model does"
    names = [path.name for path in list_folder(folder.parent) if path.is_dir()]
    if len(names) == classes:
        order = ", ".join(f"{name} {number}" for number, name in enumerate(names[:2]))
        text += f" (torchvision's ImageFolder numbers them by name: {order}, ...)"
    return text


def read_stored(paths: Sequence[Path], side: int) -> Tensor:
    """Images of any size as a round would store them: (N, 3, side, side) uint8, shrunk or grown, cut to the middle.

    They are read one after the other, so that a photograph takes memory only until it is small.
    """
    images = torch.empty(len(paths), 3, side, side, dtype=torch.uint8)
    try:
        for number, path in enumerate(paths):
            images[number] = _fitted(read_small(path, side), side)
    except UnreadableModelError as error:
        raise SettingsError(str(error)) from None
    return images


def _fitted(image: Tensor, side: int) -> Tensor:
    """(3, h, w) uint8 -> (3, side, side): the shorter side to ``side``, the middle of the longer one."""
    longest = _LONGEST_SHAPE * min(image.shape[1:])
    for axis in (1, 2):
        length = image.shape[axis]
        if length > longest:
            image = image.narrow(axis, (length - longest) // 2, longest)
    height, width = image.shape[1:]
    if (height, width) == (side, side):
        return image
    scale = side / min(height, width)
    shape = (max(side, round(height * scale)), max(side, round(width * scale)))
    small = functional.interpolate(image[None].float(), shape, mode="bilinear", antialias=True)[0]
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    cut = small[:, top : top + side, left : left + side]
    return cut.round().clamp(0, _WHITE).to(torch.uint8)
