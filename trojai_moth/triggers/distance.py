"""Class distance (MOTH, section III): the smallest trigger that turns images of one class into another, for all pairs.

An inverted trigger is an upper bound of the true distance. A pair for which no trigger was found is censored: it is
None, never 0 and never a large number, and it is left out of the means, which say how many pairs they cover.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..core.device import describe_device
from ..core.errors import SettingsError
from ..core.images import ImagePool
from ..core.messages import Progress, silent
from ..core.seeding import generator
from ..core.subject import Subject
from .distance_checkpoint import Partial, image_hashes, weights_hash
from .distance_records import CHANNELS, DistanceMatrix, DistanceSettings, PairDistance
from .inversion import invert, random_start
from .task import InversionSettings, make_task
from .trigger import Pair

# A class with this many images or fewer has distances that are clearly too small (the paper's own redraws: 6 % smaller
# with 100 images than with 200).
FEW_IMAGES = 5
# Work is saved whenever a group is done, so groups grow until one takes this long. The first one fills a forward pass.
_GROUP_SECONDS, _FIRST_IMAGES = 60.0, 64


def choose_pairs(images: ImagePool, classes: int, wanted: str | None, seed: int) -> list[Pair]:
    """Directed pairs for ``"1->2,3->0"``, for a number of random ones, or all if None; in order, SettingsError if none.

    Random ones depend on the seed and on which classes have images; fewer are a subset of more.
    """
    counts = _counts(images, classes)
    every = [(v, t) for v in range(classes) for t in range(classes) if v != t and counts[v]]
    if wanted is None:
        return every
    if wanted.strip().isdecimal():
        order = torch.randperm(len(every), generator=generator(seed, "distance pairs"))
        chosen = [every[position] for position in order[: int(wanted)].tolist()]
    else:
        chosen = [_parse_pair(part) for part in wanted.split(",")]
    unknown = set(chosen) - set(every)
    if unknown:
        victim, target = min(unknown)
        raise SettingsError(
            f"--pairs {victim}->{target}: needs two different classes of 0 to {classes - 1}, the first with images"
        )
    return sorted(set(chosen))


def _parse_pair(text: str) -> Pair:
    victim, arrow, target = text.partition("->")
    if not (arrow and victim.strip().isdecimal() and target.strip().isdecimal()):
        raise SettingsError(f"--pairs {text.strip()}: write VICTIM->TARGET, as in 1->2,3->0, or a number of pairs")
    return int(victim), int(target)


def measure_distances(
    subject: Subject,
    images: ImagePool,
    settings: DistanceSettings,
    data: str,
    progress: Progress = silent,
    *,
    pairs: Sequence[Pair] | None = None,
    originals: Sequence[int] | None = None,
    partial: Path | None = None,
) -> DistanceMatrix:
    """The distances of ``pairs``, or of all directed pairs whose victim class has images; SettingsError without any.

    ``originals`` are the images per class that are not augmented copies of others, if some are. What is done is kept in
    the file ``partial`` and taken from there by the next call for the same weights, images and settings.
    """
    started = time.perf_counter()
    if not settings.seeds:
        raise SettingsError("distance.seeds: at least one seed is needed")
    pool = images.first_per_class(settings.images_per_class)
    chosen = sorted(set(pairs)) if pairs is not None else choose_pairs(pool, subject.classes, None, 0)
    if not chosen:
        raise SettingsError("distance: needs at least one pair whose victim class has images")
    weights, hashes = weights_hash(subject), image_hashes(pool, subject.classes)
    done = Partial.open(partial, weights, hashes, settings)
    _measure(subject, pool, settings, [pair for pair in chosen if pair not in done.pairs], done, progress)
    counts = _counts(pool, subject.classes)
    return _matrix(
        subject,
        [done.pairs[pair] for pair in chosen],
        weights_sha256=weights,
        data=data,
        settings=settings,
        images=counts,
        image_sha256=hashes,
        warnings=_warnings(counts, originals or counts, {victim for victim, _ in chosen}),
        seconds=done.seconds_before + time.perf_counter() - started,
    )


def _counts(images: ImagePool, classes: int) -> tuple[int, ...]:
    return tuple(torch.bincount(images.y.cpu(), minlength=classes).tolist())


def _warnings(images: Sequence[int], originals: Sequence[int], victims: set[int]) -> tuple[str, ...]:
    own = {victim: min(images[victim], originals[victim]) for victim in victims}
    few = [victim for victim, count in own.items() if count <= FEW_IMAGES]
    none = [label for label, count in enumerate(images) if count == 0]
    found = []
    if few:
        fewest = min(own.values())
        found.append(
            f"{FEW_IMAGES} different images or fewer of {_named(few)} (fewest {fewest}): distances come out too small"
        )
    if none:
        found.append(f"no images of {_named(none)}: not measured as victim")
    return tuple(found)


def _named(labels: Sequence[int]) -> str:
    """At most eight classes by number.

    >>> _named([4]), _named([2, 0])
    ('class 4', 'classes 0, 2')
    """
    text = ", ".join(map(str, sorted(labels)[:8])) + (", ..." if len(labels) > 8 else "")
    return f"class{'es' if len(labels) > 1 else ''} {text}"


def _measure(
    subject: Subject,
    pool: ImagePool,
    settings: DistanceSettings,
    todo: list[Pair],
    done: Partial,
    progress: Progress,
) -> None:
    """Fill ``done`` group by group; a group's masks and patterns are dropped before the next."""
    y, x, started, total = pool.y.cpu(), pool.x.to(subject.device), time.perf_counter(), len(todo)
    seeds, most = len(settings.seeds), max(1, settings.rows_per_group // len(settings.seeds))
    count = min(most, math.ceil(_FIRST_IMAGES / (seeds * int(torch.bincount(y).max()))))
    while todo:
        group, todo, began = todo[:count], todo[count:], time.perf_counter()
        for pair, sizes in zip(group, _sizes(subject, x, y, settings, group).tolist(), strict=True):
            done.pairs[pair] = _pair_distance(pair, sizes, int((y == pair[0]).sum()))
        now = time.perf_counter()
        done.save(now - started)
        count = min(most, 2 * count) if now - began < _GROUP_SECONDS else max(1, count // 2)
        finished = total - len(todo)
        left = (now - started) / finished * len(todo)
        progress(f"{finished * seeds}/{total * seeds} rows ({finished} pairs x {seeds} seeds), {left:.0f} s left")


def _sizes(subject: Subject, x: Tensor, y: Tensor, settings: DistanceSettings, pairs: Sequence[Pair]) -> Tensor:
    """(pairs, seeds) float64 sizes in pixels, nan where censored; a pair's seeds are rows of the same inversion."""
    once = make_task(y, pairs)
    starts = [random_start(once, subject.size, seed) for seed in settings.seeds]
    start = tuple(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*starts, strict=True))
    task = make_task(y, [pair for pair in pairs for _ in settings.seeds])
    result = invert(subject, x, task, _inversion_settings(settings), (start[0], start[1]))
    sizes = torch.where(result.converged, result.size, math.nan)
    return sizes.double().cpu().view(len(pairs), len(settings.seeds))


def _inversion_settings(settings: DistanceSettings) -> InversionSettings:
    return InversionSettings(
        steps=settings.steps,
        initial_cost=settings.initial_cost,
        patience=settings.patience,
        success_bound=settings.success_bound,
        stall_steps=settings.stall_steps,
        precision=settings.precision,
        batch_images=settings.batch_images,
    )


def _pair_distance(pair: Pair, sizes: Sequence[float], images: int) -> PairDistance:
    # Rounding can make the sum of a mask of nothing a little less than nothing.
    clipped = [max(0.0, size) if math.isfinite(size) else None for size in sizes]
    found = [size for size in clipped if size is not None]
    smallest = min(found, default=None)
    logs = [math.log(size) for size in found if size > 0]
    return PairDistance(
        victim=pair[0],
        target=pair[1],
        images=images,
        sizes=tuple(clipped),
        distance=smallest,
        l1=None if smallest is None else CHANNELS * smallest,
        spread=statistics.stdev(logs) if len(logs) > 1 else None,
    )


def _matrix(subject: Subject, pairs: Sequence[PairDistance], **given: Any) -> DistanceMatrix:
    """The record with everything that follows from the pairs."""
    classes = range(subject.classes)
    found = {(pair.victim, pair.target): pair.distance for pair in pairs}
    values = [pair.distance for pair in pairs if pair.distance is not None]
    spreads = [pair.spread for pair in pairs if pair.spread is not None]
    mean = statistics.fmean(values) if values else None
    return DistanceMatrix(
        model_id=subject.model_id,
        architecture=subject.architecture,
        classes=subject.classes,
        source_sha256=subject.source_sha256,
        version=__version__,
        torch=str(torch.__version__),
        device=describe_device(subject.device),
        distances=tuple(tuple(found.get((v, t)) for t in classes) for v in classes),
        pairs=tuple(pairs),
        censored=len(pairs) - len(values),
        mean=mean,
        mean_l1=None if mean is None else CHANNELS * mean,
        geometric_mean=_geometric_mean(values),
        minimum=min(values, default=None),
        spread=statistics.fmean(spreads) if spreads else None,
        **given,
    )


def _geometric_mean(values: Sequence[float]) -> float | None:
    """None without values; 0 as soon as one pair needs no trigger at all.

    >>> _geometric_mean([2.0, 8.0])
    4.0
    """
    if not values or min(values) <= 0:
        return 0.0 if values else None
    return math.exp(sum(map(math.log, values)) / len(values))
