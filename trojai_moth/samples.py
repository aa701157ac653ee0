"""The images that a model is scanned, hardened and checked with: examples with augmentations, or composed ones.

A class's images are split once, by seed: one part is inverted on and trained on, the other is held back, to measure
whether a trigger works on images it was not made for and what hardening costs in accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from .compose import compose
from .errors import UnreadableModelError
from .images import ImagePool, concatenate
from .opening import OpenedCase
from .records import Field, record
from .rounds import Case
from .seeding import derive_seed


@record
class DataSettings:
    """Where hardening and inversion images come from, and how many."""

    source: Literal["examples", "composed"] = Field(
        default="examples", description="examples, or composed from foregrounds/"
    )
    train_per_class: int = Field(default=200, gt=0, description="images per class to invert on and to harden with")
    held_per_class: int = Field(default=100, gt=0, description="images per class held back from both")
    held_fraction: float = Field(default=0.3, gt=0, lt=1, description="share of the example images that is held back")
    unseen_images: int = Field(
        default=2000,
        ge=0,
        description="composed images of all classes together for a last look at what hardening cost; 0: no such look",
    )
    backgrounds: str | None = Field(
        default=None, description="folder of background images for composing (default: procedural)"
    )


@dataclass(frozen=True)
class Samples:
    """Images for one model: ``train``, to invert on and to harden with, and ``held``, which shares no original with it.

    ``clean`` is the part of ``held`` that is not augmented: what accuracy is guarded on. ``unseen`` are images that
    nothing has looked at, for the audit of a hardening.
    """

    train: ImagePool
    held: ImagePool
    clean: ImagePool
    description: str
    unseen: ImagePool | None = None


def collect_samples(case: Case, opened: OpenedCase, settings: DataSettings, seed: int) -> Samples:
    """The images for one model, the same for the same seed; before and after hardening they are shared."""
    if settings.source == "composed":
        return _composed(case, opened, settings, seed)
    return _examples(opened, settings, seed)


def with_unseen(samples: Samples, case: Case, opened: OpenedCase, settings: DataSettings, seed: int) -> Samples:
    """The same samples with newly composed images for the audit; without any where images are not composed."""
    if settings.source != "composed" or not settings.unseen_images:
        return samples
    per_class = math.ceil(settings.unseen_images / opened.subject.classes)
    return replace(samples, unseen=_compose(case, opened, settings, per_class, derive_seed(seed, "unseen")))


def _examples(opened: OpenedCase, settings: DataSettings, seed: int) -> Samples:
    """Split the examples by class and fill both parts up with augmented copies of their own images."""
    stream = torch.Generator().manual_seed(derive_seed(seed, "split"))
    train, held, clean = [], [], []
    for label in range(opened.subject.classes):
        own = opened.examples.positions(label)
        own = own[torch.randperm(len(own), generator=stream)]
        kept = min(max(1, math.ceil(len(own) * settings.held_fraction)), len(own) - 1) if len(own) > 1 else 0
        if len(own) == 0:
            continue
        train.append(_filled(opened, own[kept:], settings.train_per_class, derive_seed(seed, "train", label)))
        if kept:
            clean.append(opened.examples.take(own[:kept]))
            held.append(_filled(opened, own[:kept], settings.held_per_class, derive_seed(seed, "held", label)))
    counts = torch.bincount(opened.examples.y, minlength=opened.subject.classes)
    description = f"examples, {int(counts.min())}-{int(counts.max())} per class, {settings.held_fraction:.0%} held back"
    empty = ImagePool(opened.examples.x[:0], opened.examples.y[:0])
    held_pool, clean_pool = (concatenate([*parts, empty]) for parts in (held, clean))
    return Samples(concatenate(train), held_pool, clean_pool, description)


def _filled(opened: OpenedCase, index: Tensor, count: int, seed: int) -> ImagePool:
    """The originals first, then augmented copies of them in turn until there are ``count``."""
    pool = opened.examples.take(index)
    missing = max(0, count - len(pool))
    source = index[torch.arange(missing) % len(index)]
    copies = augment(opened.raw[source], opened.subject.size, seed)
    return concatenate([pool, ImagePool(copies, opened.examples.y[source])])


def augment(raw: Tensor, size: int, seed: int) -> Tensor:
    """Round 4's training augmentations: (N, 3, h, w) uint8 as stored -> (N, 3, size, size) float32 in [0, 1].

    Colour jitter of 0.1, resized crop of 80-100 %, turn by 30 degrees, shift by 10 %, scale by 10 % (train_model.py
    of the feb2021 generator). torchvision draws from the global stream, which is put back afterwards.
    """
    transform = v2.Compose(
        [
            v2.ColorJitter(0.1, 0.1, 0.1, 0.1),
            v2.RandomResizedCrop((size, size), scale=(0.8, 1.0)),
            v2.RandomAffine(degrees=30, translate=(0.1, 0.1), scale=(0.9, 1.1)),
        ]
    )
    if len(raw) == 0:
        return torch.empty(0, 3, size, size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, which is all that fork_rng puts back here
        return torch.stack([transform(image) for image in raw]).float() / 255.0


def _composed(case: Case, opened: OpenedCase, settings: DataSettings, seed: int) -> Samples:
    """Fresh images of the model's own signs; as many as asked for, so that nothing has to be augmented."""
    foregrounds = sorted(case.foregrounds.glob("*.png"))
    if len(foregrounds) != opened.subject.classes:
        raise UnreadableModelError(
            f"{case.foregrounds}: {len(foregrounds)} signs for {opened.subject.classes} classes; use examples as data"
        )
    train, held = (
        _compose(case, opened, settings, count, derive_seed(seed, purpose))
        for purpose, count in (("train", settings.train_per_class), ("held", settings.held_per_class))
    )
    description = f"composed, {settings.train_per_class} per class and {settings.held_per_class} held back"
    return Samples(train, held, held, description)


def _compose(case: Case, opened: OpenedCase, settings: DataSettings, per_class: int, seed: int) -> ImagePool:
    x, y = compose(
        sorted(case.foregrounds.glob("*.png")),
        per_class=per_class,
        stored_size=opened.subject.preprocessing.stored_size,
        size=opened.subject.size,
        generator=seed,
        backgrounds=Path(settings.backgrounds) if settings.backgrounds else None,
    )
    return ImagePool(x, y)
