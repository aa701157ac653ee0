"""Class distance (MOTH, section III): the smallest trigger that turns images of one class into another, for all pairs.

An inverted trigger is an upper bound of the true distance. A pair for which no trigger was found is censored: it is
None, never 0 and never a large number, and it is left out of the means, which say how many pairs they cover.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..core.device import describe_device
from ..core.errors import SettingsError
from ..core.files import write_text
from ..core.images import ImagePool, class_words
from ..core.messages import Progress, silent
from ..core.records import read_record, record, to_json
from ..core.seeding import generator
from ..core.standard_logits import standardised
from ..core.subject import Subject
from .distance_records import DistanceMatrix, DistanceSettings, PairDistance, protocol
from .inversion import invert, random_start
from .task import InversionSettings, make_task
from .trigger import Pair, Trigger

# A class with this many images or fewer has distances that are clearly too small (the paper's own redraws: 6 % smaller
# with 100 images than with 200).
FEW_IMAGES = 5
# Work is saved whenever a group is done, so groups grow until one takes this long. The first one fills a forward pass.
_GROUP_SECONDS, _FIRST_IMAGES = 60.0, 64


def choose_pairs(counts: Sequence[int], wanted: str | None, seed: int) -> list[Pair]:
    """Directed pairs for ``"1->2,3->0"``, for a number of random ones, or all if None; in order, SettingsError if none.

    counts: images of each class. Random pairs depend on the seed and on which classes have images; fewer are a subset
    of more.
    """
    classes = len(counts)
    every = [(v, t) for v in range(classes) for t in range(classes) if v != t and counts[v]]
    if wanted is None:
        return every
    if wanted.strip().isdecimal():
        order = torch.randperm(len(every), generator=generator(seed, "distance pairs"))
        chosen = [every[position] for position in order[: int(wanted)].tolist()]
    else:
        chosen = [_parse_pair(part) for part in wanted.split(",")]
    if every and not chosen:
        raise SettingsError(f"--pairs {wanted}: needs at least one pair")
    for victim, target in sorted(set(chosen) - set(every)):
        if victim == target or max(victim, target) >= classes:
            raise SettingsError(f"--pairs {victim}->{target}: needs two different classes of 0 to {classes - 1}")
        raise SettingsError(
            f"--pairs {victim}->{target}: there is nothing to measure class {victim} on; give two images of it or "
            "more, of which some are held back, or one and --on train"
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
    lacking: Sequence[str] | None = None,
    clean: ImagePool | None = None,
    partial: Path | None = None,
) -> DistanceMatrix:
    """The distances of ``pairs``, or of all directed pairs whose victim class has images; SettingsError without any.

    ``originals`` are the images per class that are not augmented copies of others, if some are; ``lacking`` says which
    classes have no images where that is not to be seen from these; ``clean`` are images of all classes, by which logits
    are brought to their standard scale where ``images`` are of some. What is done is kept in the file ``partial`` and
    taken from there by the next call for the same weights, images and settings.
    """
    started = time.perf_counter()
    if not settings.seeds:
        raise SettingsError("distance.seeds: at least one seed is needed")
    pool = images.first_per_class(settings.images_per_class)
    counts = pool.counts(subject.classes)
    chosen = sorted(set(pairs)) if pairs is not None else choose_pairs(counts, None, 0)
    if not chosen:
        raise SettingsError("distance: needs at least one pair whose victim class has images")
    weights, hashes = weights_hash(subject), image_hashes(pool, subject.classes)
    done = Partial.open(partial, weights, hashes, settings)
    measured = standardised(subject, pool if clean is None else clean)
    _measure(measured, pool, settings, [pair for pair in chosen if pair not in done.pairs], done, progress)
    return _matrix(
        subject,
        [done.pairs[pair] for pair in chosen],
        weights_sha256=weights,
        data=data,
        settings=settings,
        images=counts,
        image_sha256=hashes,
        warnings=(*_few(counts, originals or counts, chosen), *(_none(counts) if lacking is None else lacking)),
        seconds=done.seconds_before + time.perf_counter() - started,
    )


def _few(images: Sequence[int], originals: Sequence[int], pairs: Sequence[Pair]) -> list[str]:
    own = {victim: min(images[victim], originals[victim]) for victim, _ in pairs}
    few = [victim for victim, count in own.items() if count <= FEW_IMAGES]
    words = f"{FEW_IMAGES} different images or fewer of {class_words(few)} (fewest {min(own.values())})"
    return [f"{words}: distances come out too small"] if few else []


def _none(images: Sequence[int]) -> list[str]:
    none = [label for label, count in enumerate(images) if count == 0]
    return [f"no images of {class_words(none)}: not measured as victim"] if none else []


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
            done.pairs[pair] = _pair_distance(pair, sizes, int((y == pair[0]).sum()), subject.shape[0])
        now = time.perf_counter()
        done.save(now - started)
        count = min(most, 2 * count) if now - began < _GROUP_SECONDS else max(1, count // 2)
        finished = total - len(todo)
        left = (now - started) / finished * len(todo)
        progress(f"{finished * seeds}/{total * seeds} rows ({finished} pairs x {seeds} seeds), {left:.0f} s left")


def _sizes(subject: Subject, x: Tensor, y: Tensor, settings: DistanceSettings, pairs: Sequence[Pair]) -> Tensor:
    """(pairs, seeds) float64 sizes in pixels, nan where censored; a pair's seeds are rows of the same inversion."""
    once = make_task(y, pairs)
    starts = [random_start(once, subject.shape, seed) for seed in settings.seeds]
    start = tuple(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*starts, strict=True))
    task = make_task(y, [pair for pair in pairs for _ in settings.seeds])
    result = invert(subject, x, task, _inversion_settings(settings), (start[0], start[1]))
    if not bool(result.looked_at.any()):
        result.require_looked_at()
    sizes = torch.where(result.converged & result.looked_at, result.size, math.nan)
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


def _pair_distance(pair: Pair, sizes: Sequence[float], images: int, channels: int) -> PairDistance:
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
        l1=None if smallest is None else channels * smallest,
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
        channels=subject.shape[0],
        source_sha256=subject.source_sha256,
        version=__version__,
        torch=str(torch.__version__),
        device=describe_device(subject.device),
        distances=tuple(tuple(found.get((v, t)) for t in classes) for v in classes),
        pairs=tuple(pairs),
        censored=len(pairs) - len(values),
        mean=mean,
        mean_l1=None if mean is None else subject.shape[0] * mean,
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


@dataclass(frozen=True)
class Measured:
    """sizes: pixels by directed pair, the image's area for a pair without a trigger (censored); triggers that work."""

    sizes: dict[Pair, float]
    triggers: dict[Pair, Trigger]

    @property
    def censored(self) -> float:
        """Share of the pairs without a trigger that works; 0 for no pairs."""
        return 1 - len(self.triggers) / len(self.sizes) if self.sizes else 0.0


def measure_pairs(
    subject: Subject, images: ImagePool, pairs: Sequence[Pair], settings: InversionSettings, seed: int
) -> Measured:
    """Invert all ``pairs`` (victim, target) on the victims' images, x (N, 3, H, W) in [0, 1].

    A pair's start depends on the seed and the pair only. Raises ValueError for a victim without images.
    """
    if not pairs:
        return Measured({}, {})
    task = make_task(images.y.cpu(), list(pairs))
    result = invert(subject, images.x, task, settings, random_start(task, subject.shape, seed))
    works = result.converged.tolist()
    triggers = {pair: result.trigger(row) for row, pair in enumerate(pairs) if works[row]}
    area = float(subject.area)
    # A mask of less than a hundredth of a pixel is no mask, and its logarithm would rule every mean.
    sizes = {pair: max(triggers[pair].size, 0.01) if pair in triggers else area for pair in pairs}
    return Measured(sizes, triggers)


# Hexadecimal digits of an image's hash that are kept: enough to tell thousands of images apart.
_IMAGE_DIGITS = 16


def weights_hash(subject: Subject) -> str:
    """SHA-256 of all weights and buffers with their names, the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(subject.network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def image_hashes(images: ImagePool, classes: int) -> tuple[tuple[str, ...], ...]:
    """The start of the SHA-256 of every image (as float32), per class."""
    found: list[list[str]] = [[] for _ in range(classes)]
    for image, label in zip(images.x.cpu(), images.y.tolist(), strict=True):
        found[label].append(hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()[:_IMAGE_DIGITS])
    return tuple(map(tuple, found))


@record
class _Saved:
    identity: str
    pairs: tuple[PairDistance, ...]
    seconds: float


@dataclass
class Partial:
    """Pairs that are done, by (victim, target), and the seconds that earlier attempts spent on them."""

    path: Path | None
    identity: str
    pairs: dict[Pair, PairDistance] = field(default_factory=dict)
    seconds_before: float = 0.0

    @classmethod
    def open(
        cls, path: Path | None, weights: str, images: tuple[tuple[str, ...], ...], settings: DistanceSettings
    ) -> Partial:
        """What ``path`` holds, or nothing yet; SettingsError if it was left by another measurement."""
        text = json.dumps([weights, images, protocol(settings)])
        fresh = cls(path, hashlib.sha256(text.encode()).hexdigest())
        if path is None or not path.exists():
            return fresh
        saved = read_record(_Saved, path)
        if saved.identity != fresh.identity:
            raise SettingsError(
                f"{path}: was left by a measurement with other weights, images or settings; repeat that one, give "
                "another --out or delete the file"
            )
        pairs = {(pair.victim, pair.target): pair for pair in saved.pairs}
        return cls(path, fresh.identity, pairs, saved.seconds)

    def save(self, seconds: float) -> None:
        """Write what is done, with the seconds of this attempt."""
        if self.path:
            pairs = tuple(self.pairs[pair] for pair in sorted(self.pairs))
            saved = _Saved(identity=self.identity, pairs=pairs, seconds=self.seconds_before + seconds)
            write_text(self.path, to_json(saved))
