"""Image files of anybody's: opened by the one decoder that their name stands for, brought to 8-bit RGB, one by one.

A file of a few kilobytes may claim any number of pixels, so how large an image is, is asked before it is decoded.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .errors import UnreadableModelError
from .files import is_passed_over, open_regular

# Left to guess, Pillow would hand what is called .png to any decoder it has, one of which starts a program.
FORMATS = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".webp": "WEBP"},
    **{".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM"},
}
KINDS = "PNG, JPEG, WebP, BMP, TIFF and PPM"
"""The kinds of images that are read, in words."""
_BEGINNINGS = {
    **{b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP", b"BM": "BMP"},
    **{b"II*\0": "TIFF", b"MM\0*": "TIFF", b"GIF8": "GIF", b"P5": "PPM", b"P6": "PPM"},
}
LONGEST_SIDE = 1024
"""The most pixels a side of a model's own images may have, and so of its input: networks see 32 to 600."""
# A little more than a telephone's 108 megapixels; and what is held decoded: some 270 MB in Pillow's four bytes a pixel.
_MOST_PIXELS, _MOST_DECODED = 1 << 27, 1 << 26
# Images with more pixels are made smaller while they are 8-bit: a network sees a hundredth of them, and as 32-bit
# numbers they would take gigabytes.
_LARGE = 1 << 22
_EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_WHITE, _WHITE_16 = 255, 65535
_WHITE_IS_ZERO = 262  # the TIFF tag whose value 0 says so
_ON_ITS_SIDE = range(5, 9)  # EXIF's orientations that swap height and width


class RefusedImage(Exception):
    """Why an image is not read, with the mend; :func:`open_image` makes it an error that names the file."""


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image of a kind that is read."""
    return path.suffix.lower() in FORMATS


def find_files(folder: Path) -> list[Path]:
    """All files at any depth below a folder, by name, less what systems leave there; links to folders are not taken."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_passed_over(name))
        found += [Path(root, name) for name in sorted(names) if not is_passed_over(name)]
    return found


@contextmanager
def open_image(path: Path, longest: int | None = None) -> Iterator[Image.Image]:
    """An image before it is decoded; UnreadableModelError, also for what goes wrong inside, names the file.

    longest: the most pixels a side may have.
    """
    try:
        with warnings.catch_warnings(), open_regular(path) as file:
            warnings.simplefilter("ignore")  # of large images, and of odd palettes and cameras' notes: all are read
            with _identified(path, file) as image:
                _check_size(image.width, image.height, longest)
                yield image
    except MemoryError:
        raise
    except RefusedImage as error:
        raise UnreadableModelError(f"{path}: not a readable image ({error})") from None
    except Exception as error:  # decoders raise whatever they stumble on, even SyntaxError
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UnreadableModelError(f"{path}: not a readable image ({reason}); save it again, or leave it out") from None


def read_rgb(path: Path, *, longest: int | None = None, side: int | None = None) -> Image.Image:
    """An image file as RGB, turned as its camera says, transparency left out; UnreadableModelError names the file.

    Where there are frames or pages it is the first. longest: the most pixels a side may have. side: what the shorter
    side is to be made into by the caller; a large image then comes already smaller, at least twice that.
    """
    with open_image(path, longest) as image:
        large = side is not None and image.width * image.height > _LARGE
        if side is not None and large:
            image.draft(None, (2 * side, 2 * side))  # a JPEG can be decoded at half its size and less
        if image.width * image.height > _MOST_DECODED:
            raise RefusedImage(f"{_megapixels(image.width, image.height)}; save it with {_MOST_DECODED >> 20} or fewer")
        ImageOps.exif_transpose(image, in_place=True)
        found = _as_rgb(image)
        factor = min(found.size) // (2 * side) if side is not None and large else 1
        return found.reduce(factor) if factor > 1 else found


def read_shape(path: Path) -> tuple[int, int]:
    """Height and width in pixels, turned as the camera says, asked before it is decoded; as :func:`read_rgb`."""
    with open_image(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_ITS_SIDE
        return (image.width, image.height) if turned else (image.height, image.width)


def _identified(path: Path, file: BinaryIO) -> Image.Image:
    if not is_image(path):
        raise RefusedImage(f"only {KINDS} are read; save it as one of them")
    kind = FORMATS[path.suffix.lower()]
    try:
        return Image.open(file, formats=[kind])
    except UnidentifiedImageError:
        file.seek(0)
        raise RefusedImage(_what_it_is(path, kind, file.read(4))) from None
    except Image.DecompressionBombError:
        raise RefusedImage(f"hundreds of megapixels; save it with {_MOST_DECODED >> 20} or fewer") from None


def _what_it_is(path: Path, kind: str, beginning: bytes) -> str:
    other = next((kind for start, kind in _BEGINNINGS.items() if beginning.startswith(start)), kind)
    if not beginning:
        return "it is empty; leave it out"
    if other == kind:
        return f"damaged, or no {kind} image; save it again, or leave it out"
    known = other in FORMATS.values()
    mend = f"call it {path.stem}.{other.lower()}" if known else f"save it as {kind}; only {KINDS} are read"
    return f"a {other} image by its content; {mend}"


def _check_size(width: int, height: int, longest: int | None) -> None:
    if longest is not None and max(width, height) > longest:
        raise RefusedImage(f"{width} x {height} pixels; at most {longest} a side; make it smaller")
    if width * height > _MOST_PIXELS:
        raise RefusedImage(f"{_megapixels(width, height)}; save it with {_MOST_DECODED >> 20} or fewer")


def _megapixels(width: int, height: int) -> str:
    return f"{width} x {height} pixels, {width * height / 1e6:.0f} megapixels"


def _as_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB; RefusedImage where it is not said which value is white."""
    mode = image.mode
    if mode in _SIXTEEN_BIT or mode in ("I", "F"):
        return Image.fromarray(_as_eight_bit(image)).convert("RGB")
    if mode in ("La", "RGBa"):  # colours that were multiplied by their opacity
        image = image.convert(mode.upper())
    elif mode not in _EIGHT_BIT:
        raise RefusedImage(f"its colours are {mode}; save it as RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _as_eight_bit(image: Image.Image) -> np.ndarray:
    """(h, w) uint8 of grey in more than 8 bits, whose white is found without looking at other images.

    16 bits are divided by 257, which Pillow would cut off at 255. Of 32-bit numbers white is 1 (fractions), 255, or
    65535 where they go beyond 255.
    """
    if getattr(image, "tag_v2", {}).get(_WHITE_IS_ZERO) == 0:
        raise RefusedImage("zero is white in it; save it as an 8-bit image")
    values = np.asarray(image)
    # Older Pillow calls 16 bits of a PNG 32, and it brings every depth of a PGM to 16 bits, which it calls 32.
    if image.mode in _SIXTEEN_BIT or image.format == "PNG" or (image.format, image.mode) == ("PPM", "I"):
        return _divided(values)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if image.mode == "F" and 0 <= low <= high <= 1:
        return np.rint(values * _WHITE).astype(np.uint8)
    whole = image.mode == "I" or bool((values == np.rint(values)).all())
    if whole and 0 <= low <= high <= _WHITE:
        return values.astype(np.uint8)
    if image.mode == "I" and 0 <= low <= high <= _WHITE_16:
        return _divided(values)
    raise RefusedImage(f"32-bit values from {low:g} to {high:g}; which is white is not said; save it in 8 bits")


def _divided(values: np.ndarray) -> np.ndarray:
    """16 bits -> 8, rounded, so that what was multiplied by 257 comes back."""
    half, step = 128, 257
    return ((values.astype(np.uint32) + half) // step).astype(np.uint8)
