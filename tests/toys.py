"""The planted networks that the contract kit brings along; here too, so that every test finds them in one place."""

from functools import cache

from trojai_moth.testing import planted
from trojai_moth.testing.planted import (
    BACKDOOR_ROW,
    BRIGHT,
    GAIN,
    SIZE,
    PlantedNet,
    SmallNet,
    make_samples,
    make_subject,
    planted_images,
    planted_samples,
    square_images,
    square_samples,
)

__all__ = [
    "BACKDOOR_ROW", "BRIGHT", "GAIN", "SIZE", "PlantedNet", "SmallNet", "make_samples", "make_subject",
    "planted_images", "planted_samples", "square_images", "square_samples", "trained_subject",
]  # fmt: skip

_trained = cache(planted.trained_subject)


def trained_subject(seed=0):
    """A copy of one's own; it is trained once for all tests."""
    return _trained(seed).clone()
