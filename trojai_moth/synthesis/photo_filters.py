"""Filter triggers: round 4 puts one of five photo filters over the whole image of the victim class.

The filters are those of ``trojai.datagen.instagram_xforms``, on RGB images in RGB order and after all else has been
done to the image, as in round 4 (traffic_data.py of the feb2021 generator passes ``channel_order='RGB'``; trojai
itself would take BGR). Round 4 was made with ImageMagick 7. With version 6, which Debian 12 has, Gotham, Kelvin and
Lomo come out the same to one grey level of 255, but the toning step of Nashville and Toaster is refused. So that step
is done here, in the way version 7 does it: where trojai asks for the image's grey values as a mask, version 7 takes the
red ones. Both versions then give what version 7 gives with trojai's own step, to one grey level (tried with 6.9.11 and
7.1.1).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import MissingDependencyError
from .datagen import datagen

# Round 4's filters; a filter's position is its level in config.json.
FILTERS = ("GothamFilterXForm", "NashvilleFilterXForm", "KelvinFilterXForm", "LomoFilterXForm", "ToasterXForm")
_WHITE = 2**16 - 1


def apply_filter(name: str, images: np.ndarray) -> np.ndarray:
    """Put one of FILTERS over whole images: uint8 RGB (N, H, W, 3) -> the same shape.

    The result depends on the image alone. Raises MissingDependencyError without Wand or ImageMagick.
    """
    chosen, entity = filters()[name], datagen().entity
    done = [np.asarray(chosen.do(entity(image), None).get_data()) for image in images]
    return np.stack(done) if done else images.copy()


@functools.cache
def filters() -> Mapping[str, Any]:
    """The five filters of ``trojai.datagen`` by name; MissingDependencyError says what to install."""
    datagen()
    try:
        from trojai.datagen import instagram_xforms
    except ImportError:  # Wand's own error, too, when it finds no ImageMagick
        raise MissingDependencyError(
            "Wand and ImageMagick are needed for filter triggers; install them with: "
            "pip install 'trojai-moth[datagen]' && apt-get install libmagickwand-6.q16-6"
        ) from None
    kinds = {name: getattr(instagram_xforms, name) for name in FILTERS}
    return {name: type(name, (kind,), {"_colortone": _tone})(channel_order="RGB") for name, kind in kinds.items()}


def versions() -> dict[str, str]:
    """What the filters were made with."""
    filters()
    from wand.version import MAGICK_VERSION, VERSION

    return {"wand": VERSION, "imagemagick": MAGICK_VERSION}


def _tone(_self: Any, image: Any, colour: str, percent: int, invert: bool) -> None:
    """Blend a colour into a Wand image in place: most where red is bright or, inverted, where it is dark."""
    from wand.color import Color

    wanted = Color(colour)
    solid = np.array([wanted.red, wanted.green, wanted.blue])
    shape = (image.height, image.width, 3)
    pixels = np.array(image.export_pixels(channel_map="RGB", storage="short"), dtype=np.float64).reshape(shape) / _WHITE
    mask = 1 - pixels[..., :1] if invert else pixels[..., :1]
    share = percent / 100 * mask
    toned = (share * solid + (1 - percent / 100) * pixels) / (share + 1 - percent / 100)
    data = np.rint(toned * _WHITE).astype(int).flatten().tolist()
    image.import_pixels(width=shape[1], height=shape[0], channel_map="RGB", storage="short", data=data)
