"""The planted networks that the contract kit brings along, and stand-ins for what a model's files say."""

from functools import cache

from trojai_moth.core.subject import Preprocessing
from trojai_moth.rounds.preprocessing import PreprocessingChoice
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
    "AS_STORED", "BACKDOOR_ROW", "BRIGHT", "GAIN", "SIZE", "PlantedNet", "SmallNet", "make_samples", "make_subject",
    "planted_images", "planted_samples", "square_images", "square_samples", "trained_subject",
]  # fmt: skip

# How a toy reads its images, for records that hold it.
AS_STORED = PreprocessingChoice(
    chosen=Preprocessing(stored_size=SIZE, size=SIZE), by="accuracy", reason="a toy", images=0, readings=()
)

_trained = cache(planted.trained_subject)


def trained_subject(seed=0):
    """A copy of one's own; it is trained once for all tests."""
    return _trained(seed).clone()
