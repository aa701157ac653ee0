"""The optional package ``trojai``, imported only when images are composed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import MissingDependencyError


@dataclass(frozen=True)
class Datagen:
    """The two parts of ``trojai.datagen`` that are used; all others need packages that must be compiled."""

    adjust_brightness: Callable[[np.ndarray, np.ndarray], np.ndarray]
    polygon: Callable[[int, int], Any]


def datagen() -> Datagen:
    """Import ``trojai.datagen``; raises MissingDependencyError with the commands to install it."""
    try:
        from trojai.datagen.lighting_utils import adjust_brightness_mmprms
        from trojai.datagen.polygon_trigger import PolygonTrigger
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is needed to compose images; install it with: "
            "pip install scikit-image && pip install --no-deps trojai==0.2.23"
        ) from None
    return Datagen(adjust_brightness=adjust_brightness_mmprms, polygon=PolygonTrigger)
