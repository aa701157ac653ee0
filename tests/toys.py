"""The planted networks that the contract kit brings along; here too, so that every test finds them in one place."""

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
    trained_subject,
)

__all__ = [
    "BACKDOOR_ROW", "BRIGHT", "GAIN", "SIZE", "PlantedNet", "SmallNet", "make_samples", "make_subject",
    "planted_images", "planted_samples", "square_images", "square_samples", "trained_subject",
]  # fmt: skip
