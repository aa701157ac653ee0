"""Images for a model that comes without any: those of the training set's models, or noise.

Nobody says what they show, so each is labelled with what the model itself says of it. That is enough to ask how easily
it changes its mind, which is all that inversion and hardening need, but says nothing about accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from ..backgrounds import noise_backgrounds
from ..images import EXAMPLE_NAME

Note = Callable[[str], None]
Label = Callable[[list[np.ndarray]], list[int]]
SUFFIXES: Final = {".png", ".jpg", ".jpeg"}
_FORMATS: Final = ["PNG", "JPEG"]
# Folders of example images by every name they have had; poisoned ones are ground truth and never looked at.
EXAMPLE_FOLDERS: Final = (
    "clean_example_data", "clean-example-data", "example_data", "new-clean-example-data", "mitigate-example-data",
)  # fmt: skip
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
    """All images of a folder; labels from names like class_3_example_0.png or from a .json file beside the image."""
    found = Pictures([], [], [])
    if folder is None or not folder.is_dir():
        note("no folder of example images")
        return found
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        image = read_picture(path)
        if image is None:
            note(f"{path.name}: not a readable image; left out")
            continue
        found.raw.append(image)
        found.names.append(path.name)
        found.labels.append(_label(path))
    return found


def read_picture(path: Path) -> np.ndarray | None:
    """One image as (h, w, 3) uint8, RGB; None if it is none. Only two decoders are let near it."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return np.asarray(image.convert("RGB")).copy()
    except Exception:  # decoders raise whatever they stumble on
        return None


def _label(path: Path) -> int | None:
    match = EXAMPLE_NAME.search(path.name)
    if match:
        return int(match[1])
    try:
        value = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


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
    if training is None or not training.is_dir():
        return []
    folders = [
        folder
        for pattern in ("models/id-*", "id-*")
        for model in sorted(training.glob(pattern))
        for folder in (model / name for name in EXAMPLE_FOLDERS)
        if folder.is_dir()
    ]
    columns = [[path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES] for folder in folders]
    longest = max((len(column) for column in columns), default=0)
    paths = [column[row] for row in range(longest) for column in columns if row < len(column)][:most]
    images = [image for image in map(read_picture, paths) if image is not None]
    return [_sized(image, side) for image in images]


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
