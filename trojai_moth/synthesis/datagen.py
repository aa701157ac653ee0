"""The optional package ``trojai``, imported only when images are composed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from ..core.errors import MissingDependencyError

# What trojai's text entities import; pyllist is C source only, and images never touch either.
_TEXT_ONLY = {"pyllist": "dllist", "nltk": "sent_tokenize"}


@dataclass(frozen=True)
class Datagen:
    """The parts of ``trojai.datagen`` that round 4 was made with and that are used here.

    entity(pixels, mask) wraps an image; merge.do(background, sign, stream) puts a sign on a background;
    insert.do(sign, trigger, stream) puts a trigger on a sign; polygon(pixels, sides) draws a trigger's shape.
    """

    entity: Callable[..., Any]
    merge: Any
    insert: Any
    polygon: Callable[[int, int], Any]


@functools.cache
def datagen() -> Datagen:
    """Import ``trojai.datagen``; raises MissingDependencyError with the commands to install it."""
    try:
        with _without_text_packages():
            from trojai.datagen.blend_merges import BrightnessAdjustGrainMergePaste
            from trojai.datagen.image_entity import GenericImageEntity
            from trojai.datagen.insert_merges import InsertRandomWithMask
            from trojai.datagen.lighting_utils import adjust_brightness_mmprms
            from trojai.datagen.polygon_trigger import PolygonTrigger
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is needed to compose images; install it with: "
            "pip install 'trojai-moth[datagen]' && pip install --no-deps trojai==0.2.23"
        ) from None
    merge = BrightnessAdjustGrainMergePaste(lighting_adjuster=adjust_brightness_mmprms)
    return Datagen(entity=GenericImageEntity, merge=merge, insert=InsertRandomWithMask(), polygon=PolygonTrigger)


def legacy_stream(rng: np.random.Generator) -> np.random.RandomState:
    """The kind of stream that ``trojai.datagen`` takes, seeded by one draw."""
    return np.random.RandomState(int(rng.integers(2**32)))


@contextmanager
def _without_text_packages() -> Iterator[None]:
    """Empty modules in place of those text packages that are not installed, for the time of the import only.

    trojai's image merges import its text entities; without this, composing images would need a compiler.
    """
    missing = [name for name in _TEXT_ONLY if name not in sys.modules and find_spec(name) is None]
    for name in missing:
        module = ModuleType(name)
        setattr(module, _TEXT_ONLY[name], None)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
