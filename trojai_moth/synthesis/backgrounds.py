"""Backgrounds that signs are placed on: a folder of photographs, or coloured noise when there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import SettingsError, UnreadableModelError
from ..core.image_file import KINDS, find_files, is_image, open_image, read_rgb

# What all pictures may take as they are kept; a thousand and more of 512 pixels. Of more every so-manieth is taken.
_MOST_BYTES = 1 << 30

_log = logging.getLogger(__name__)


def read_backgrounds(folder: Path, pixels: int) -> list[np.ndarray]:
    """Pictures below ``folder`` as uint8 (H, W, 3), shrunk until the shorter side is at most 2 * ``pixels``.

    All of them, or evenly spread ones where all would take more than a gigabyte. Raises SettingsError for a file that
    is no image, and when the folder holds no picture of at least ``pixels``.
    """
    try:
        sizes = {path: _kept_size(path, pixels) for path in find_files(folder) if is_image(path) and path.is_file()}
        wanted = {path: size for path, size in sizes.items() if min(size) >= pixels}
        spread = -(-sum(3 * width * height for width, height in wanted.values()) // _MOST_BYTES)
        chosen = list(wanted)[:: max(1, spread)]
        pictures = [_shrunk(path, pixels) for path in chosen]
    except UnreadableModelError as error:
        raise SettingsError(str(error)) from None
    if not pictures:
        raise SettingsError(
            f"{folder}: no background picture of at least {pixels} pixels; put {KINDS} files there, or leave it out to "
            "use noise"
        )
    if len(chosen) < len(wanted):
        _log.warning("%s: %d of %d pictures are used, as many as fit into memory", folder, len(chosen), len(wanted))
    return pictures


def _kept_size(path: Path, pixels: int) -> tuple[int, int]:
    with open_image(path) as image:
        return _size(image, pixels)


def _size(image: Image.Image, pixels: int) -> tuple[int, int]:
    scale = min(1.0, 2 * pixels / min(image.size))
    return round(image.width * scale), round(image.height * scale)


def _shrunk(path: Path, pixels: int) -> np.ndarray:
    picture = read_rgb(path, side=2 * pixels)
    return np.asarray(picture.resize(_size(picture, pixels), Image.Resampling.BOX))


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
