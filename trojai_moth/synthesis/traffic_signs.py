"""Procedural traffic signs: an outline, a face colour and a symbol, some of them near-identical on purpose."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field

from ..core.errors import SettingsError
from ..core.records import record

Points = tuple[tuple[float, float], ...]

SIGN_PIXELS = 128
_OVERSAMPLE = 4
_SYMBOL_SCALE = 0.62
_DOT_CENTRE, _DOT_RADIUS = (0.40, -0.40), 0.20
_DARK, _LIGHT = (10, 10, 10), (235, 235, 235)


def _regular(corners: int, turn: float, radius: float = 1.0) -> Points:
    angles = [math.radians(turn) + 2 * math.pi * i / corners for i in range(corners)]
    return tuple((radius * math.sin(a), -radius * math.cos(a)) for a in angles)


def _bar(half_width: float, half_height: float, x: float = 0.0) -> Points:
    left, right = x - half_width, x + half_width
    return ((left, -half_height), (right, -half_height), (right, half_height), (left, half_height))


def _turned(points: Points, degrees: float) -> Points:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple((c * x - s * y, s * x + c * y) for x, y in points)


# Unit coordinates: x to the right, y down, the sign fills [-1, 1]. Roomy outlines come first: a look-alike's dot fits.
OUTLINES: dict[str, Points] = {
    "circle": _regular(48, 0),
    "square": _regular(4, 45, 1.3),
    "octagon": _regular(8, 22.5),
    "hexagon": _regular(6, 0),
    "pentagon": _regular(5, 0),
    "diamond": _regular(4, 0),
    "triangle": _regular(3, 0),
    "yield": _regular(3, 180),
}
ROOMY_OUTLINES = ("circle", "square", "octagon", "hexagon")
ROOMY_SYMBOLS = ("arrow", "bar", "plus", "disc", "wedge")

SYMBOLS: dict[str, tuple[Points, ...]] = {
    "arrow": (((-0.2, 0.9), (-0.2, 0), (-0.6, 0), (0, -0.9), (0.6, 0), (0.2, 0), (0.2, 0.9)),),
    "bar": (_bar(0.25, 0.8),),
    "bars": (_bar(0.18, 0.7, -0.4), _bar(0.18, 0.7, 0.4)),
    "plus": (_bar(0.2, 0.75), _turned(_bar(0.2, 0.75), 90)),
    "cross": (_turned(_bar(0.18, 0.85), 45), _turned(_bar(0.18, 0.85), -45)),
    "disc": (_regular(32, 0, 0.55),),
    "block": (_regular(4, 45, 0.75),),
    "wedge": (_regular(3, 0, 0.8),),
    "chevron": (((-0.8, 0.3), (0, -0.7), (0.8, 0.3), (0.8, 0.75), (0, -0.25), (-0.8, 0.75)),),
}

# Dark enough that round 4's brightness adjustment, which multiplies them by about 1.5 to 3, keeps them apart.
FACES: dict[str, tuple[int, int, int]] = {
    "red": (150, 15, 20),
    "blue": (20, 45, 150),
    "green": (15, 105, 40),
    "amber": (135, 100, 0),
    "purple": (85, 20, 110),
    "teal": (0, 100, 110),
}

# The dot of a look-alike must differ from the face and from the white rim.
_YELLOW, _MAGENTA = (235, 215, 0), (220, 0, 200)
_DOTS = {face: _YELLOW if face in ("red", "blue", "purple") else _MAGENTA for face in FACES}


@record
class Sign:
    """What one class looks like; two signs that differ only in ``dot`` are look-alikes."""

    outline: str = Field(description="A key of OUTLINES.")
    face: str = Field(description="A key of FACES.")
    symbol: str = Field(description="A key of SYMBOLS.")
    turn: int = Field(default=0, ge=0, lt=360, description="Clockwise rotation of the symbol in degrees.")
    dark_symbol: bool = Field(default=False, description="Black symbol instead of a white one.")
    dot: bool = Field(default=False, description="A small bright dot in the upper right of the face.")


def draw_sign(sign: Sign, pixels: int = SIGN_PIXELS, *, dot_scale: float = 1.0) -> Image.Image:
    """Draw a sign as an RGBA image of (pixels, pixels), transparent outside its outline.

    ``dot_scale`` exaggerates the dot of a look-alike.
    """
    side = pixels * _OVERSAMPLE
    image = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(image)
    symbol_colour = _DARK if sign.dark_symbol else _LIGHT

    def fill(points: Points, scale: float, colour: tuple[int, int, int]) -> None:
        draw.polygon([((1 + scale * x) * side / 2, (1 + scale * y) * side / 2) for x, y in points], fill=(*colour, 255))

    outline = OUTLINES[sign.outline]
    fill(outline, 0.98, FACES[sign.face])
    fill(outline, 0.90, _LIGHT)
    fill(outline, 0.82, FACES[sign.face])
    for part in SYMBOLS[sign.symbol]:
        fill(
            _turned(part, sign.turn),
            _SYMBOL_SCALE * (0.7 if sign.outline in ("triangle", "yield") else 1.0),
            symbol_colour,
        )
    if sign.dot:
        x, y = _DOT_CENTRE
        dot = tuple((x + dx, y + dy) for dx, dy in _regular(24, 0, dot_scale * _DOT_RADIUS))
        fill(dot, 1.0, _DOTS[sign.face])
    return image.resize((pixels, pixels), Image.Resampling.LANCZOS)


def sign_set(classes: int, lookalikes: int, rng: np.random.Generator) -> tuple[list[Sign], list[tuple[int, int]]]:
    """Choose ``classes`` different signs, of which the first 2 * ``lookalikes`` are near-identical pairs.

    No two signs outside a pair share both outline and face. Returns the signs and the pairs as positions in the list.
    Raises SettingsError when more signs are asked for than there are combinations.
    """
    faces = len(FACES)
    if (
        classes < 2 * lookalikes
        or classes - lookalikes > len(OUTLINES) * faces
        or lookalikes > len(ROOMY_OUTLINES) * faces
    ):
        raise SettingsError(
            f"classes: {classes} signs with {lookalikes} look-alike pairs cannot be drawn; use at least "
            f"{2 * lookalikes} and at most {len(OUTLINES) * faces + lookalikes} classes"
        )
    roomy = _combinations(ROOMY_OUTLINES, rng)[:lookalikes]
    rest = [pair for pair in _combinations(tuple(OUTLINES), rng) if pair not in roomy][: classes - 2 * lookalikes]
    signs: list[Sign] = []
    for outline, face in roomy:
        plain = _random_sign(outline, face, ROOMY_SYMBOLS, rng)
        # A bright dot beside a dark symbol is small, but networks that pool early can still see it at 16 pixels.
        signs += [Sign(**{**vars(plain), "dark_symbol": True, "dot": dot}) for dot in (False, True)]
    signs += [_random_sign(outline, face, tuple(SYMBOLS), rng) for outline, face in rest]
    return signs, [(2 * i, 2 * i + 1) for i in range(lookalikes)]


def _combinations(outlines: tuple[str, ...], rng: np.random.Generator) -> list[tuple[str, str]]:
    pairs = [(outline, face) for outline in outlines for face in FACES]
    return [pairs[i] for i in rng.permutation(len(pairs))]


def _random_sign(outline: str, face: str, symbols: tuple[str, ...], rng: np.random.Generator) -> Sign:
    symbol = str(rng.choice(symbols))
    return Sign(
        outline=outline, face=face, symbol=symbol, turn=int(rng.integers(4)) * 90, dark_symbol=bool(rng.integers(2))
    )
