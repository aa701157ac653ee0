"""Backgrounds that signs are placed on: a folder of photographs, or coloured noise when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import SettingsError
from ..core.files import list_folder, open_regular

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}


def read_backgrounds(folder: Path, pixels: int) -> list[np.ndarray]:
    """All pictures below ``folder`` as uint8 (H, W, 3), shrunk until the shorter side is at most 2 * ``pixels``.

    Raises SettingsError when the folder holds no picture of at least ``pixels``.
    """
    files = [path for path in _below(folder) if path.suffix.lower() in _SUFFIXES]
    pictures = []
    for path in files:
        with open_regular(path) as file, Image.open(file, formats=["PNG", "JPEG", "BMP"]) as image:
            scale = min(1.0, 2 * pixels / min(image.size))
            shape = (round(image.width * scale), round(image.height * scale))
            if min(shape) >= pixels:
                pictures.append(np.asarray(image.convert("RGB").resize(shape, Image.Resampling.BOX)))
    if not pictures:
        raise SettingsError(f"{folder}: no background picture of at least {pixels} pixels; leave it out to use noise")
    return pictures


def _below(folder: Path) -> Iterator[Path]:
    for path in list_folder(folder):
        yield from _below(path) if path.is_dir() and not path.is_symlink() else [path]


def noise_backgrounds(count: int, pixels: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Smooth coloured noise, ``count`` uint8 pictures of (2 * pixels, 2 * pixels, 3) with a mean of about 75 to 155."""
    return [_noise(2 * pixels, rng) for _ in range(count)]


def _noise(side: int, rng: np.random.Generator) -> np.ndarray:
    total = np.zeros((side, side, 3), dtype=np.float64)
    for cells, weight in ((3, 1.0), (7, 0.7), (17, 0.4), (41, 0.2)):
        grid = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        total += weight * np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))
    total = (total - total.mean()) / total.std()
    return np.clip(total * rng.uniform(20, 45) + rng.uniform(75, 155), 0, 255).astype(np.uint8)


def random_crop(picture: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """A square uint8 crop (pixels, pixels, 3), mirrored half of the time."""
    top = rng.integers(picture.shape[0] - pixels + 1)
    left = rng.integers(picture.shape[1] - pixels + 1)
    crop = picture[top : top + pixels, left : left + pixels]
    return crop[:, ::-1] if rng.integers(2) else crop
