"""Images of signs on backgrounds, composed as round 4 composes them with ``trojai.datagen``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from pydantic import Field

from ..core.errors import SettingsError, UnreadableModelError
from ..core.image_file import LONGEST_SIDE, RefusedImage, open_image
from ..core.records import record
from .backgrounds import noise_backgrounds, random_crop, read_backgrounds
from .datagen import datagen, legacy_stream
from .polygon import Polygon, stamp

_NOISE_PICTURES = 64


@record
class ComposeSettings:
    """How signs are placed; the defaults are round 4's, scaled to the image."""

    sign_area_min: float = Field(
        default=0.2, gt=0, le=0.9, description="Smallest square of a sign as a share of the image."
    )
    sign_area_max: float = Field(
        default=0.4, gt=0, le=0.9, description="Largest square of a sign as a share of the image."
    )
    tilt: float = Field(
        default=0.15, ge=0, le=0.5, description="Strength of the random shear, shrink and turn of a sign."
    )
    blur: float = Field(default=0.3, ge=0, description="Largest standard deviation of the Gaussian blur in pixels.")
    noise: float = Field(default=2.0, ge=0, description="Standard deviation of the pixel noise, of 255.")


class Composer:
    """Draws images of a fixed set of signs; all randomness comes from the generators that are passed in.

    Classes are the foregrounds' file names in plain string order ("10-2.png" before "3-1.png"), as in round 4. Where
    there are ``backgrounds``, a share ``noise_share`` in [0, 1] of the images is on coloured noise all the same.
    """

    def __init__(
        self,
        foregrounds: Sequence[Path],
        stored_size: int,
        rng: np.random.Generator,
        *,
        backgrounds: Path | None = None,
        noise_share: float = 0.0,
        settings: ComposeSettings | None = None,
    ) -> None:
        settings = settings or ComposeSettings()
        if settings.sign_area_min > settings.sign_area_max:
            raise SettingsError("sign_area_min: is larger than sign_area_max")
        if not foregrounds:
            raise SettingsError("foregrounds: none given; a round's model folder holds them in foregrounds/*.png")
        self.settings = settings
        self.stored_size = stored_size
        self._datagen = datagen()
        self._sides = [int(stored_size * share**0.5) for share in (settings.sign_area_min, settings.sign_area_max)]
        self._signs = [_read_sign(path, 2 * self._sides[1]) for path in sorted(foregrounds, key=lambda path: path.name)]
        self._noise_share = noise_share if backgrounds else 1.0
        self._noise = noise_backgrounds(_NOISE_PICTURES, stored_size, rng) if self._noise_share else []
        self._photographs = read_backgrounds(backgrounds, stored_size) if backgrounds else []

    @property
    def classes(self) -> int:
        """Number of signs."""
        return len(self._signs)

    def draw(self, label: int, rng: np.random.Generator, trigger: Polygon | None = None) -> np.ndarray:
        """One image uint8 (stored_size, stored_size, 3) of class ``label``, with ``trigger`` on its sign if given."""
        sign = np.asarray(self._tilted(self._signs[label], rng))
        if trigger is not None:
            sign = stamp(sign, trigger, rng)
        picture = random_crop(self._picture(rng), self.stored_size, rng)
        return self._finish(self._merge(picture, self._placed(sign, rng), rng), rng)

    def _picture(self, rng: np.random.Generator) -> np.ndarray:
        mixed = 0 < self._noise_share < 1
        noise = rng.random() < self._noise_share if mixed else bool(self._noise_share)
        pictures = self._noise if noise else self._photographs
        return pictures[rng.integers(len(pictures))]

    def batch(self, labels: Sequence[int], rng: np.random.Generator, trigger: Polygon | None = None) -> np.ndarray:
        """Images uint8 (N, stored_size, stored_size, 3), one per label."""
        images = np.empty((len(labels), self.stored_size, self.stored_size, 3), dtype=np.uint8)
        for number, label in enumerate(labels):
            images[number] = self.draw(label, rng, trigger)
        return images

    def _tilted(self, sign: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = (int(rng.integers(self._sides[0], self._sides[1] + 1)) for _ in range(2))
        # Output pixel -> input pixel about the two centres: growing (1 + a) shrinks the sign inside its square.
        a, b, c, d = rng.uniform(-1, 1, 4) * self.settings.tilt
        matrix = np.array([[1 + abs(a), b], [c, 1 + abs(d)]]) * [sign.width / width, sign.height / height]
        shift = np.array([sign.width, sign.height]) / 2 - matrix @ [width / 2, height / 2]
        data = (*matrix[0], shift[0], *matrix[1], shift[1])
        return sign.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)

    def _placed(self, sign: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        canvas = np.zeros((self.stored_size, self.stored_size, 4), dtype=np.uint8)
        top, left = (int(rng.integers(self.stored_size - side + 1)) for side in sign.shape[:2])
        canvas[top : top + sign.shape[0], left : left + sign.shape[1]] = sign
        return canvas

    def _merge(self, picture: np.ndarray, sign: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Round 4's merge: match the brightness, grain-merge, paste. Both RGBA of one size; the result is RGB."""
        opaque = np.dstack([picture, np.full(picture.shape[:2], 255, dtype=np.uint8)])
        entity = self._datagen.entity
        merged = self._datagen.merge.do(entity(opaque), entity(sign, sign[..., 3] > 0), legacy_stream(rng))
        return np.asarray(merged.get_data())[..., :3]

    def _finish(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = rng.uniform(0, self.settings.blur)
        noise = rng.normal(0, 1, image.shape) * self.settings.noise
        soft = Image.fromarray(image.astype(np.uint8)).filter(ImageFilter.GaussianBlur(sigma))
        return np.clip(np.rint(np.asarray(soft) + noise), 0, 255).astype(np.uint8)


def _read_sign(path: Path, side: int) -> Image.Image:
    try:
        with open_image(path, LONGEST_SIDE) as image:
            if image.format != "PNG":
                raise RefusedImage("it has no transparent surround")
            sign = image.convert("RGBA")
    except UnreadableModelError as error:
        raise SettingsError(f"{error}; foregrounds are PNG files with a transparent surround") from None
    return sign.resize((side, side), Image.Resampling.LANCZOS)


def to_input(images: np.ndarray, size: int) -> torch.Tensor:
    """What a round-4 network is fed: uint8 (N, S, S, 3) -> centre crop, float32 (N, 3, size, size) in [0, 1]."""
    margin = (images.shape[1] - size) // 2
    crop = images[:, margin : margin + size, margin : margin + size]
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(0, 3, 1, 2))).float().div_(255)


def as_stored(images: np.ndarray) -> torch.Tensor:
    """Composed images uint8 (N, S, S, 3) as a model's preprocessing takes them: uint8 (N, 3, S, S)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def numpy_generator(generator: torch.Generator | int) -> np.random.Generator:
    """A numpy stream seeded by one draw of a torch generator, or by a whole number."""
    if isinstance(generator, torch.Generator):
        return np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    return np.random.default_rng(generator)


def compose_stored(
    foregrounds: Sequence[Path],
    *,
    per_class: int,
    stored_size: int,
    generator: torch.Generator | int,
    backgrounds: Path | None = None,
    settings: ComposeSettings | None = None,
) -> tuple[np.ndarray, torch.Tensor]:
    """Compose clean images of every class as they would be stored: uint8 (N, stored_size, stored_size, 3), RGB.

    No image carries a trigger, so each one's label is its sign's class, class after class. Classes are the file names
    in plain string order. Without a folder of ``backgrounds`` coloured noise is used. Raises MissingDependencyError
    without ``trojai``, SettingsError for unreadable pictures.
    """
    rng = numpy_generator(generator)
    composer = Composer(foregrounds, stored_size, rng, backgrounds=backgrounds, settings=settings)
    labels = np.repeat(np.arange(composer.classes), per_class)
    return composer.batch(labels.tolist(), rng), torch.from_numpy(labels)


def usual_side(stored_size: int) -> int:
    """Pixels a side of a sign of middling size in an image of ``stored_size``.

    >>> usual_side(37), usual_side(256)
    (20, 140)
    """
    settings = ComposeSettings()
    return int(stored_size * ((settings.sign_area_min + settings.sign_area_max) / 2) ** 0.5)


EASY_SIGNS = ComposeSettings(sign_area_min=0.35, sign_area_max=0.9, tilt=0.05, blur=0, noise=0)
