"""Class distances of one opened model: the API's ``distances``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.messages import Progress, silent
from ..core.records import from_dict
from ..triggers.distance import choose_pairs, measure_distances
from ..triggers.distance_records import FAST, DistanceMatrix, DistanceSettings
from ..triggers.trigger import Pair
from .model import Model, On
from .samples import ImageCounts


def distances(
    model: Model,
    *,
    pairs: int | str | Sequence[Pair] | None = None,
    fast: bool = False,
    on: On = "held",
    settings: DistanceSettings | None = None,
    seed: int = 0,
    out: Path | None = None,
    progress: Progress = silent,
) -> DistanceMatrix:
    """Measure class distances (MOTH, section III) in pixels: the smallest trigger from each class to each other.

    pairs: all, so many random ones, ``"1->2,3->0"``, or (victim, target) pairs. fast: fewer steps and one seed. on:
    images that hardening holds back, or those that it trains on. out: a file where what is done is kept, so that the
    same call goes on after an interruption. The paper's protocol wants up to 100 images a class; a class with five
    different images or fewer has distances that are too small, which ``warnings`` says.

    Raises SettingsError for pairs that the model does not have, or where there are no such images.

    >>> import trojai_moth as tm
    >>> from trojai_moth.testing import PlantedNet, planted_images
    >>> pool = planted_images(10)
    >>> model = tm.open_model(PlantedNet(), images=pool.x, labels=pool.y, device="cpu")
    >>> matrix = tm.distances(model, pairs="0->1", fast=True)
    >>> 3.5 < matrix.distances[0][1] < 4.5  # four bright pixels show class 0
    True
    """
    chosen = settings or from_dict(DistanceSettings, dict(FAST) if fast else {})
    images = model.images_to_measure(on)
    counts = ImageCounts(*(pool.counts(model.classes) for pool in (model.samples.train, model.samples.held)))
    if isinstance(pairs, int | str) or pairs is None:
        wanted = choose_pairs(counts.of(on), None if pairs is None else str(pairs), seed)
    else:
        wanted = list(pairs)
    return measure_distances(
        model.subject, images, chosen, model.measured_words(on), progress,
        pairs=wanted, originals=model.originals(on), lacking=counts.lacking(on), clean=model.of_all_classes,
        partial=out,
    )  # fmt: skip
