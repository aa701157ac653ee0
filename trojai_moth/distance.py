"""Class distance (MOTH, section III): the smallest trigger that turns images of one class into another, for all pairs.

An inverted trigger is an upper bound of the true distance. A pair for which no trigger was found is censored: it is
None, never 0 and never a large number, and it is left out of the means, which say how many pairs they cover.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from . import __version__
from .errors import SettingsError
from .images import ImagePool
from .inversion import InversionSettings, invert, make_task, random_start
from .records import Field, record
from .subject import Subject


@record
class DistanceSettings:
    """The paper's protocol: up to 100 images, 1000 steps, success >= 0.9, smallest of three seeds."""

    images_per_class: int = Field(default=100, gt=0, description="images of the victim class at most")
    steps: int = Field(default=1000, gt=0, description="inversion steps at most")
    patience: int = Field(default=10, gt=0, description="successes or failures in a row before the weight moves")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a trigger must reach")
    seeds: tuple[int, ...] = Field(default=(1024, 557540351, 157301989), description="random starts; smallest counts")
    stall_steps: int = Field(default=200, gt=0, description="stop a pair that has not shrunk in so many steps")
    batch_images: int = Field(default=64, gt=0, description="images per forward pass at most")


@record
class DistanceMatrix:
    """distances[victim][target] in pixels (the paper's figure is 3 times that: it counts three channels).

    None on the diagonal and for censored pairs. images[class] is how many were inverted on.
    """

    model_id: str
    architecture: str
    classes: int
    source_sha256: str
    version: str
    data: str
    settings: DistanceSettings
    images: tuple[int, ...]
    distances: tuple[tuple[float | None, ...], ...]
    censored: int
    mean: float | None
    geometric_mean: float | None
    minimum: float | None
    seconds: float


def measure_distances(
    subject: Subject,
    images: ImagePool,
    settings: DistanceSettings,
    data: str,
    progress: Callable[[str], None] | None = None,
) -> DistanceMatrix:
    """All directed pairs whose victim class has images; SettingsError without any."""
    started = time.perf_counter()
    classes = range(subject.classes)
    index = [images.positions(label)[: settings.images_per_class] for label in classes]
    pool = images.take(torch.cat(index))
    pairs = [(v, t) for v in classes for t in classes if v != t and len(index[v])]
    if not pairs or not settings.seeds:
        raise SettingsError("distance: needs images of at least one class and one seed")
    task = make_task(pool.y, pairs)
    inversion = InversionSettings(
        steps=settings.steps,
        patience=settings.patience,
        success_bound=settings.success_bound,
        stall_steps=settings.stall_steps,
        batch_images=settings.batch_images,
    )
    smallest = torch.full((len(pairs),), math.inf)
    for number, seed in enumerate(settings.seeds, 1):
        result = invert(subject, pool.x, task, inversion, random_start(task, subject.size, seed))
        smallest = torch.minimum(smallest, torch.where(result.converged, result.size, math.inf).cpu())
        if progress:
            progress(f"seed {number}/{len(settings.seeds)}")
    found = {pair: size for pair, size in zip(pairs, smallest.tolist(), strict=True) if math.isfinite(size)}
    values = list(found.values())
    return DistanceMatrix(
        model_id=subject.model_id,
        architecture=subject.architecture,
        classes=subject.classes,
        source_sha256=subject.source_sha256,
        version=__version__,
        data=data,
        settings=settings,
        images=tuple(len(own) for own in index),
        distances=tuple(tuple(found.get((v, t)) for t in classes) for v in classes),
        censored=len(pairs) - len(found),
        mean=sum(values) / len(values) if values else None,
        geometric_mean=_geometric_mean(values),
        minimum=min(values, default=None),
        seconds=time.perf_counter() - started,
    )


def _geometric_mean(values: list[float]) -> float | None:
    """None without values; 0 as soon as one pair needs no trigger at all.

    >>> _geometric_mean([2.0, 8.0])
    4.0
    """
    if not values or min(values) <= 0:
        return 0.0 if values else None
    return math.exp(sum(map(math.log, values)) / len(values))
