"""Images for a model that comes without any: those of the training set's models, or noise.

Nobody says what they show, so each is labelled with what the model itself says of it. That is enough to ask how easily
it changes its mind, which is all that inversion and hardening need, but says nothing about accuracy.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from ..core.errors import UnreadableModelError
from ..core.files import list_folder
from ..core.image_file import is_image
from ..core.images import EXAMPLE_NAME, ImageReader, read_image, read_label
from ..rounds.model_folder import find_names
from ..synthesis.backgrounds import noise_backgrounds

Note = Callable[[str], None]
Label = Callable[[list[np.ndarray]], list[int]]
# So many pictures are asked for a label for each one wanted, before giving up on rare classes.
_DRAWS: Final = 4
_MOST: Final = 2000


@dataclass(frozen=True)
class Pictures:
    """Images (h, w, 3) uint8 with their file names and labels; None: the label is not known."""

    raw: list[np.ndarray]
    names: list[str]
    labels: list[int | None]


def read_pictures(folder: Path | None, note: Note) -> Pictures:
    """All images of a folder, by name, without files that are none; labels where names or files beside say them."""
    found, reader = Pictures([], [], []), ImageReader()
    for path in list_folder(folder) if folder is not None else ():
        if not is_image(path) or not path.is_file():
            continue
        try:
            image = reader.read(path)
        except UnreadableModelError as error:
            note(f"{error}; left out")
            continue
        found.raw.append(image.permute(1, 2, 0).numpy())
        found.names.append(path.name)
        found.labels.append(_label(path))
    return found


def save_picture(image: np.ndarray, path: Path) -> None:
    """Write an image (h, w, 3) uint8 as PNG."""
    Image.fromarray(image).save(path, format="PNG")


def _label(path: Path) -> int | None:
    match = EXAMPLE_NAME.fullmatch(path.name)
    if match:
        return int(match[1])
    try:
        return read_label(path.with_suffix(".json"))
    except UnreadableModelError:
        return None


def make_stand_ins(
    classes: int, per_class: int, side: int, training: Path | None, seed: int, label: Label, note: Note
) -> list[tuple[np.ndarray, int]]:
    """Up to ``per_class`` images (side, side, 3) of each class that the model sees in any, with these labels."""
    wanted = classes * per_class
    kept: dict[int, list[np.ndarray]] = {}
    for words, pictures in (
        ("example images of the training set's models", training_pictures(training, side, min(wanted * _DRAWS, _MOST))),
        ("noise", noise_pictures(min(wanted * _DRAWS, _MOST), side, seed)),
    ):
        before = sum(len(images) for images in kept.values())
        for image, seen in zip(pictures, label(pictures), strict=True):
            if len(kept.setdefault(seen, [])) < per_class:
                kept[seen].append(image)
        added = sum(len(images) for images in kept.values()) - before
        if added:
            note(f"{added} stand-ins: {words}, labelled with what the model says of them")
        if len(kept) == classes and all(len(images) >= 2 for images in kept.values()):
            break
    note(f"stand-ins for {len(kept)} of {classes} classes")
    return [(image, seen) for seen, images in sorted(kept.items()) for image in images]


def training_pictures(training: Path | None, side: int, most: int) -> list[np.ndarray]:
    """Example images of all models of a training set in turn, brought to ``side`` pixels; [] without one."""
    columns = [[path for path in list_folder(folder) if is_image(path)] for folder in _training_folders(training)]
    longest = max((len(column) for column in columns), default=0)
    images = []
    for path in [column[row] for row in range(longest) for column in columns if row < len(column)][:most]:
        with contextlib.suppress(UnreadableModelError):
            images.append(_sized(read_image(path).permute(1, 2, 0).numpy(), side))
    return images


def training_side(training: Path | None) -> int | None:
    """Side in pixels of a training set's stored images; None without any."""
    for folder in _training_folders(training):
        for path in list_folder(folder):
            if is_image(path):
                with contextlib.suppress(UnreadableModelError):
                    return int(max(read_image(path).shape[1:]))
    return None


def _training_folders(training: Path | None) -> list[Path]:
    if training is None or not training.is_dir():
        return []
    models = [model for pattern in ("id-*", "models/id-*") for model in sorted(training.glob(pattern))]
    folders = [model / find_names(os.listdir(model)).examples for model in models if model.is_dir()]
    return [folder for folder in folders if folder.is_dir()]


def noise_pictures(count: int, side: int, seed: int) -> list[np.ndarray]:
    """Smooth coloured noise of all brightnesses, the same for the same seed."""
    stream = np.random.default_rng(seed)
    pictures = noise_backgrounds(count, (side + 1) // 2, stream)
    tints = stream.uniform(-90, 90, (count, 1, 1, 3))
    return [
        np.clip(_sized(picture, side).astype(float) + tint, 0, 255).astype(np.uint8)
        for picture, tint in zip(pictures, tints, strict=True)
    ]


def _sized(image: np.ndarray, side: int) -> np.ndarray:
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
