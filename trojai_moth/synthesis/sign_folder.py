"""Signs from a folder of pictures: which of them are near-twins is found by measuring them, not by their names.

A picture is cut to what is visible of it and set in the middle of a transparent square, so that it keeps its shape when
it is composed. One without transparency is a rectangular sign. Two pictures are as far apart as their difference on mid
grey is large (root of the mean square over colours and opacity in [0, 1]), at the size that signs have in the network's
input. The same sign drawn at another place, or in another shade, is far apart by that: keep one of such pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import SettingsError, UnreadableModelError
from ..core.image_file import KINDS, RefusedImage, find_files, is_image, open_image, read_rgb
from .settings import SignSet

# Pixels a side: what is read at all, what is kept of a sign, and at what size signs are compared at most.
_LONGEST, _KEPT, _COMPARED = 4096, 512, 64
# A table of 5000 by 5000 distances takes 100 MB, as do the pictures it is made of.
_MOST_PICTURES = 5000
_OPAQUE = 127
_GREY = 0.5
_ATTEMPTS = 50


@dataclass(frozen=True, kw_only=True)
class SignFolder:
    """Pictures below a folder, by name, and ``distances`` float32 (N, N) in [0, 1] between each two of them.

    Two are near-twins if they are at least ``closest`` and less than ``apart`` from each other.
    """

    folder: Path
    files: tuple[Path, ...]
    distances: np.ndarray
    closest: float
    apart: float

    def choose(self, classes: int, twins: int, rng: np.random.Generator) -> SignSet:
        """Draw ``classes`` pictures with ``twins`` pairs of near-twins; no other two are less than ``apart`` apart.

        Raises SettingsError where the folder has no such set.
        """
        if classes > len(self.files):
            raise SettingsError(
                f"{self.folder}: holds {len(self.files)} pictures, fewer than the {classes} classes of a model; ask "
                "for fewer classes or add pictures"
            )
        most_pairs = most = 0
        for _ in range(_ATTEMPTS):
            chosen = self._pairs(twins, rng)
            most_pairs = max(most_pairs, len(chosen) // 2)
            if len(chosen) < 2 * twins:
                continue
            chosen = self._filled(chosen, classes, rng)
            most = max(most, len(chosen))
            if len(chosen) == classes:
                return self._as_set(chosen, twins)
        if most_pairs < twins:
            raise SettingsError(
                f"{self.folder}: only {most_pairs} pairs of near-twins at once, not {twins}, at distances from "
                f"{self.closest:g} to {self.apart:g}; lower lookalikes, or raise lookalike_distance_max"
            )
        raise SettingsError(
            f"{self.folder}: no {classes} signs that are {self.apart:g} apart from each other, only {most}; ask for "
            "fewer classes, or lower lookalike_distance_max"
        )

    def _pairs(self, count: int, rng: np.random.Generator) -> list[int]:
        """Up to ``count`` pairs, one after the other: a sign that has near-twins, and one of those."""
        near, twins = self.distances < self.apart, self.distances >= self.closest
        free = np.ones(len(self.files), dtype=bool)
        chosen: list[int] = []
        for one in rng.permutation(np.flatnonzero((near & twins).any(1))):
            others = np.flatnonzero(near[one] & twins[one] & free)
            if len(chosen) < 2 * count and free[one] and len(others):
                pair = [int(one), int(rng.choice(others))]
                chosen += pair
                free &= ~near[pair].any(0)
        return chosen

    def _filled(self, chosen: list[int], classes: int, rng: np.random.Generator) -> list[int]:
        near = self.distances < self.apart
        for one in rng.permutation(len(self.files)).tolist():
            if len(chosen) < classes and not near[one, chosen].any():
                chosen = [*chosen, one]
        return chosen

    def _as_set(self, chosen: list[int], twins: int) -> SignSet:
        order = sorted(chosen, key=lambda i: class_file(self.files[i]))
        pairs = sorted(sorted(map(order.index, chosen[2 * i : 2 * i + 2])) for i in range(twins))
        one, other, distance = closest_pair(self.distances[np.ix_(order, order)])
        return SignSet(
            files=tuple(self.files[i].relative_to(self.folder).as_posix() for i in order),
            near_twins=tuple((low, high) for low, high in pairs),
            closest_pair=(one, other),
            closest_distance=distance,
        )


def class_file(picture: Path) -> str:
    """What a picture is called in a model's folder; classes go by the order of these names."""
    return f"{picture.stem}.png"


def read_sign_folder(folder: Path, side: int, *, closest: float, apart: float) -> SignFolder:
    """Read all pictures below ``folder`` and measure how far they are apart at ``side`` pixels, at most 64.

    Raises SettingsError for a folder without pictures or with more than 5000, for pictures that cannot be read or have
    nothing visible, and for two that would get the same name in a model's folder.
    """
    files = [path for path in find_files(folder) if is_image(path) and path.is_file()]
    if not files:
        raise SettingsError(
            f"{folder}: no picture of a sign; put {KINDS} files there, best with a transparent surround"
        )
    if len(files) > _MOST_PICTURES:
        raise SettingsError(f"{folder}: {len(files)} pictures of signs; leave at most {_MOST_PICTURES}")
    by_name: dict[str, Path] = {}
    for path in files:
        other = by_name.setdefault(path.stem.casefold(), path)
        if other != path:
            raise SettingsError(f"{path}: has the name of {other.relative_to(folder)}; give one of them another")
    small = [_on_grey(read_sign(path), min(side, _COMPARED)) for path in files]
    distances = _distances(np.stack(small))
    return SignFolder(folder=folder, files=tuple(files), distances=distances, closest=closest, apart=apart)


def read_sign(path: Path) -> Image.Image:
    """A picture as the foreground it becomes: RGBA, square, at most 512 pixels a side; SettingsError names the file."""
    try:
        with open_image(path, _LONGEST) as image:
            sign = image.convert("RGBA") if image.has_transparency_data else None
        if sign is None:
            sign = read_rgb(path, longest=_LONGEST).convert("RGBA")
        sign = _squared(sign)
        if not (np.asarray(sign.getchannel("A")) > _OPAQUE).any():
            raise RefusedImage("nothing in it is opaque")
    except UnreadableModelError as error:
        raise SettingsError(str(error)) from None
    except RefusedImage as error:
        raise SettingsError(f"{path}: no picture of a sign ({error}); save it again, or leave it out") from None
    return sign


def _squared(sign: Image.Image) -> Image.Image:
    box = sign.getchannel("A").getbbox()
    sign = sign if box is None else sign.crop(box)
    sign.thumbnail((_KEPT, _KEPT), Image.Resampling.LANCZOS)
    side = max(sign.size)
    square = Image.new("RGBA", (side, side))
    square.paste(sign, ((side - sign.width) // 2, (side - sign.height) // 2))
    return square


def colours_of(path: Path) -> np.ndarray:
    """Colours uint8 (M, 3) of a sign, one for each of at most 24 x 24 places that are opaque."""
    side = 24
    pixels = np.asarray(read_sign(path).resize((side, side), Image.Resampling.BOX))
    opaque = pixels[..., 3] > _OPAQUE
    return pixels[opaque if opaque.any() else pixels[..., 3] > 0][:, :3]


def _on_grey(sign: Image.Image, side: int) -> np.ndarray:
    """float32 (4 * side * side,) in [0, 1]: colours on mid grey, and opacity."""
    pixels = np.asarray(sign.convert("RGBa").resize((side, side), Image.Resampling.BOX), dtype=np.float32) / 255
    opacity = pixels[..., 3:]
    return np.concatenate([pixels[..., :3] + (1 - opacity) * _GREY, opacity], -1).ravel()


def _distances(pictures: np.ndarray) -> np.ndarray:
    """Root mean square differences float32 (N, N) between rows (N, D)."""
    from sklearn.metrics import euclidean_distances  # not above: it takes a second, and drawn signs need none of it

    return np.asarray(euclidean_distances(pictures) / pictures.shape[1] ** 0.5, dtype=np.float32)


def closest_pair(distances: np.ndarray) -> tuple[int, int, float]:
    """The two of a set (N, N), N > 1, that are least far apart, and how far.

    >>> closest_pair(np.array([[0, 0.3, 0.2], [0.3, 0, 0.4], [0.2, 0.4, 0]]))
    (0, 2, 0.2)
    """
    above = np.where(np.triu(np.ones_like(distances), 1) > 0, distances, np.inf)
    one, other = np.unravel_index(int(above.argmin()), above.shape)
    return int(one), int(other), round(float(distances[one, other]), 4)
