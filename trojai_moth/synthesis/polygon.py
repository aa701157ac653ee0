"""Polygon triggers of one solid colour, as round 4 puts them on signs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..core.errors import MothError
from .datagen import datagen, legacy_stream

# Round 4's six trigger colours.
# Two colours are not taken for each other if they differ by so much, of 255, in one channel at least.
VISIBLE = 100
COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200))
# Round 4's numbers for the quarters of a sign: upper right, upper left, lower left, lower right.
QUADRANTS = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Polygon:
    """A trigger shape; ``mask`` is bool (S, S), the sizes are shares of the sign's area for the trigger's square.

    It lies wholly within ``quadrants`` of the sign: one of them, or the union of several.
    """

    mask: np.ndarray
    colour: tuple[int, int, int]
    sides: int
    smallest: float
    largest: float
    quadrants: tuple[int, ...] = QUADRANTS

    def picture(self) -> Image.Image:
        """The shape as round 4 stores it: RGBA, nearly black, opaque inside; its colour is in the config only."""
        pixels = np.zeros((*self.mask.shape, 4), dtype=np.uint8)
        pixels[self.mask] = (1, 1, 1, 255)
        return Image.fromarray(pixels)


def draw_polygon(
    pixels: int, sides: int, colour: tuple[int, int, int], smallest: float, largest: float, rng: np.random.Generator
) -> Polygon:
    """A random polygon by ``trojai.datagen``, at least 35 % of its square filled so that it survives shrinking."""
    with _legacy_seed(int(rng.integers(2**32))):
        for _ in range(1000):
            try:
                mask = datagen().polygon(pixels, sides).get_mask()
            except ZeroDivisionError:  # all corners in one row or column
                continue
            if mask.mean() >= 0.35:
                return Polygon(mask=mask, colour=colour, sides=sides, smallest=smallest, largest=largest)
    raise MothError(f"trigger: no polygon with {sides} sides fills enough of {pixels} pixels; use more sides")


@contextmanager
def _legacy_seed(seed: int) -> Iterator[None]:
    # trojai draws its polygons from numpy's global stream: seed it, and give it back as it was.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def stamp(sign: np.ndarray, polygon: Polygon, rng: np.random.Generator) -> np.ndarray:
    """A copy of a sign, uint8 RGBA (H, W, 4), with the polygon turned at random and wholly on the opaque part.

    ``trojai.datagen`` picks the place within the polygon's quadrants, as in round 4; a trigger that fits nowhere is
    made smaller until it does. Its size goes by the whole sign, whatever the quadrants.
    """
    opaque = sign[..., 3] > 127
    low, high = (math.isqrt(int(opaque.sum() * share)) for share in (polygon.smallest, polygon.largest))
    shape = Image.fromarray(polygon.mask.astype(np.uint8) * 255)
    shape = shape.rotate(int(rng.integers(72)) * 5, Image.Resampling.NEAREST)
    tools, stream = datagen(), legacy_stream(rng)
    allowed = opaque & np.isin(quadrants_of(opaque), polygon.quadrants)
    for side in range(int(rng.integers(max(low, 2), max(high, 2) + 1)), 1, -1):
        mask = np.asarray(shape.resize((side, side), Image.Resampling.NEAREST)) > 0
        colour = np.broadcast_to(np.array([*polygon.colour, 255], dtype=np.uint8), (side, side, 4))
        try:
            merged = tools.insert.do(tools.entity(sign.copy(), allowed), tools.entity(colour, mask), stream)
        except RuntimeError:  # trojai: no valid location
            continue
        return np.asarray(merged.get_data())
    return sign.copy()


def quadrants_of(opaque: np.ndarray) -> np.ndarray:
    """Which quadrant each pixel lies in: bool (H, W), where the sign is, -> whole numbers of QUADRANTS (H, W).

    They meet in the middle of the smallest rectangle around the sign, as in round 4 (``build_quadrant_mask`` of the
    feb2021 generator). Without any sign they meet in the middle of the picture.
    """
    rows, columns = (np.flatnonzero(opaque.any(axis)) for axis in (1, 0))
    lower = np.arange(opaque.shape[0]) >= _middle(rows, opaque.shape[0])
    right = np.arange(opaque.shape[1]) >= _middle(columns, opaque.shape[1])
    table = np.array([[2, 1], [3, 4]])  # upper and lower, left and right
    return table[lower.astype(int)[:, None], right.astype(int)[None]]


def _middle(covered: np.ndarray, length: int) -> int:
    first, last = (int(covered[0]), int(covered[-1])) if len(covered) else (0, length)
    return first + (last - first) // 2
