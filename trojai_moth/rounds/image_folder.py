"""A folder of labelled images of any size, to scan and harden with instead of a round's own few examples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import SettingsError, UnreadableModelError
from ..core.files import list_folder
from ..core.images import IMAGE_SUFFIXES, list_examples, read_image

_CLASS_FOLDER = re.compile(r"(?:class_)?(\d{1,6})")
_CLASS_FILE = re.compile(r"class_(\d{1,6})_.*", re.IGNORECASE)
_WHITE = 255.0


def list_labelled(folder: Path, classes: int) -> list[tuple[Path, int]]:
    """The images below ``folder`` with their class, class after class; SettingsError when none is to be found.

    A class is the name of a sub-folder (``3`` or ``class_3``), the beginning of a file's name (``class_3_...``), or a
    whole number in a .json file beside the image. Sub-folders with other names are refused: which class they would be
    is anyone's guess.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder}: no such folder; --data takes examples, composed, a folder, or several with + ")
    found = [(label, path) for path, label in list_examples(folder)]
    known = {path for _, path in found}
    for path in list_folder(folder):
        if path.is_dir():
            label = _class_of(path)
            found += [(label, inside) for inside in list_folder(path) if _is_image(inside)]
        elif path not in known and _is_image(path) and (match := _CLASS_FILE.fullmatch(path.name)):
            found.append((int(match[1]), path))
    if not found:
        raise SettingsError(
            f"{folder}: no labelled images; put them into sub-folders 0, 1, ..., name them class_0_... or put each "
            "one's class into a .json file beside it"
        )
    wrong = next(((label, path) for label, path in found if label >= classes), None)
    if wrong:
        raise SettingsError(f"{wrong[1]}: class {wrong[0]}, but the model has {classes} classes")
    return [(path, label) for label, path in sorted(found)]


def read_stored(paths: Sequence[Path], side: int) -> Tensor:
    """Images of any size as a round would store them: (N, 3, side, side) uint8, shrunk or grown, cut to the middle."""
    try:
        images = [_fitted(read_image(path), side) for path in paths]
    except UnreadableModelError as error:
        raise SettingsError(str(error)) from None
    return torch.stack(images) if images else torch.empty(0, 3, side, side, dtype=torch.uint8)


def _class_of(folder: Path) -> int:
    match = _CLASS_FOLDER.fullmatch(folder.name)
    if not match:
        raise SettingsError(f"{folder}: not the number of a class; call the folder 0, 1, ... or class_0, class_1, ...")
    return int(match[1])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _fitted(image: Tensor, side: int) -> Tensor:
    """(3, h, w) uint8 -> (3, side, side): the shorter side to ``side``, the middle of the longer one."""
    height, width = image.shape[1:]
    if (height, width) == (side, side):
        return image
    scale = side / min(height, width)
    shape = (max(side, round(height * scale)), max(side, round(width * scale)))
    small = functional.interpolate(image[None].float(), shape, mode="bilinear", antialias=True)[0]
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    cut = small[:, top : top + side, left : left + side]
    return cut.round().clamp(0, _WHITE).to(torch.uint8)
