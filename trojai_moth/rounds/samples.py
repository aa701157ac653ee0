"""The images that a model is scanned, hardened and checked with: examples with augmentations, composed ones, a folder.

A class's images are split once, by seed: one part is inverted on and trained on, the other is held back, to measure
whether a trigger works on images it was not made for and what hardening costs in accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from ..core.errors import UnreadableModelError
from ..core.images import ImagePool, concatenate
from ..core.seeding import derive_seed
from ..core.subject import Preprocessing, Subject
from ..synthesis.compose import as_stored, compose_stored
from .class_accuracy import ClassAccuracy, check_images
from .data_settings import DataSettings
from .image_folder import list_labelled, read_stored
from .model_folder import ModelFolder
from .open_folder import OpenedFolder


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
    accuracy: tuple[ClassAccuracy, ...] = ()
    """What the model makes of the first few of them, for each source."""

    @property
    def words(self) -> str:
        """E.g. ``1000 images to train on, 500 held back``."""
        return f"{len(self.train)} images to train on, {len(self.held)} held back"

    def __repr__(self) -> str:
        """One line, without the images."""
        return f"<Samples {self.words} ({self.description})>"


def collect_samples(case: ModelFolder, opened: OpenedFolder, settings: DataSettings, seed: int) -> Samples:
    """The images for one model, the same for the same seed; before and after hardening they are shared.

    Several sources give equal parts of each class's images; the examples are left out where the model has none.
    Images that the model does not get right, or in another order, are refused: see rounds/class_accuracy.py.
    """
    ways: dict[str, Callable[[int, int], Samples]] = {
        "examples": lambda train, held: _examples(case, opened, settings, train, held, seed),
        "composed": lambda train, held: _composed(case, opened, settings, train, held, seed),
        "folder": lambda train, held: _folder(opened, settings, train, held, seed),
    }
    names = [name for name in settings.sources if name != "examples" or len(opened.examples)]
    train, held = (math.ceil(count / len(names)) for count in (settings.train_per_class, settings.held_per_class))
    return _together([ways[name](train, held) for name in names])


def with_unseen(
    samples: Samples, case: ModelFolder, opened: OpenedFolder, settings: DataSettings, seed: int
) -> Samples:
    """The same samples with newly composed images for the audit; without any where images are not composed."""
    if "composed" not in settings.sources or not settings.unseen_images:
        return samples
    per_class = math.ceil(settings.unseen_images / opened.subject.classes)
    return replace(samples, unseen=_compose(case, opened.subject, settings, per_class, derive_seed(seed, "unseen")))


def _together(parts: Sequence[Samples]) -> Samples:
    if len(parts) == 1:
        return parts[0]
    # Class after class, and within a class the sources in turn: who takes the first few images gets some of each.
    return Samples(
        train=_in_turn([part.train for part in parts]),
        held=_in_turn([part.held for part in parts]),
        clean=_in_turn([part.clean for part in parts]),
        description=" + ".join(part.description for part in parts),
        accuracy=tuple(found for part in parts for found in part.accuracy),
    )


def _in_turn(pools: Sequence[ImagePool]) -> ImagePool:
    merged = concatenate(pools)
    source = torch.cat([torch.full((len(pool),), number) for number, pool in enumerate(pools)])
    place = torch.zeros(len(merged), dtype=torch.long)
    for label in set(merged.y.tolist()):
        for number in range(len(pools)):
            own = torch.nonzero((merged.y == label) & (source == number)).flatten()
            place[own] = torch.arange(len(own)) * len(pools) + number
    order = sorted(range(len(merged)), key=lambda index: (int(merged.y[index]), int(place[index])))
    return merged.take(torch.tensor(order, dtype=torch.long))


def _examples(
    case: ModelFolder, opened: OpenedFolder, settings: DataSettings, train: int, held: int, seed: int
) -> Samples:
    """Split the examples by class and fill both parts up with augmented copies of their own images."""
    found = check_examples(case, opened, settings)
    parts = _split(opened.raw, opened.examples, opened.subject, settings, train, held, seed, "examples")
    return replace(parts, accuracy=(found,))


def check_examples(case: ModelFolder, opened: OpenedFolder, settings: DataSettings) -> ClassAccuracy:
    """What the model makes of its own example images; UnreadableModelError as check_images has it."""
    return check_images(
        opened.subject,
        opened.examples,
        str(case.examples),
        order="images",
        mend="put the right images there, or give others with --data FOLDER",
        expected=settings.expect_accuracy,
    )


def _folder(opened: OpenedFolder, settings: DataSettings, train: int, held: int, seed: int) -> Samples:
    """A folder's images, as many per class as are needed, brought to the size that the round's images are stored in."""
    subject, folder = opened.subject, Path(settings.folder or "")
    if settings.folder is None:
        raise UnreadableModelError("data.folder: not given; it says where the labelled images of source folder are")
    listed = list_labelled(folder, subject.classes)
    wanted = train + held
    chosen = [pair for label in range(subject.classes) for pair in [p for p in listed if p[1] == label][:wanted]]
    raw = read_stored([path for path, _ in chosen], subject.preprocessing.stored_size)
    pool = ImagePool(subject.preprocessing(raw), torch.tensor([label for _, label in chosen]))
    mend = "put images of the model's classes there, each class under its number"
    found = check_images(subject, pool, str(folder), order="folders", mend=mend, expected=settings.expect_accuracy)
    parts = _split(raw, pool, subject, settings, train, held, derive_seed(seed, "folder"), "folder")
    return replace(parts, accuracy=(found,))


def held_back(count: int, share: float) -> int:
    """How many of a class's ``count`` images are held back: about that share, but some on either side; of one none."""
    return min(max(1, math.ceil(count * share)), count - 1) if count > 1 else 0


def _split(
    raw: Tensor,
    pool: ImagePool,
    subject: Subject,
    settings: DataSettings,
    train_count: int,
    held_count: int,
    seed: int,
    name: str,
) -> Samples:
    stream = torch.Generator().manual_seed(derive_seed(seed, "split"))
    train, held, clean = [], [], []
    for label in range(subject.classes):
        own = pool.positions(label)
        own = own[torch.randperm(len(own), generator=stream)]
        kept = held_back(len(own), settings.held_fraction)
        if len(own) == 0:
            continue
        fill = _Filling(raw, pool, subject.preprocessing)
        train.append(fill(own[kept:], train_count, derive_seed(seed, "train", label)))
        if kept:
            clean.append(pool.take(own[:kept]))
            held.append(fill(own[:kept], held_count, derive_seed(seed, "held", label)))
    counts = torch.bincount(pool.y, minlength=subject.classes)
    description = f"{name}, {int(counts.min())}-{int(counts.max())} per class, {settings.held_fraction:.0%} held back"
    empty = ImagePool(pool.x[:0], pool.y[:0])
    held_pool, clean_pool = (concatenate([*parts, empty]) for parts in (held, clean))
    return Samples(concatenate(train), held_pool, clean_pool, description)


@dataclass(frozen=True)
class _Filling:
    raw: Tensor
    pool: ImagePool
    preprocessing: Preprocessing

    def __call__(self, index: Tensor, count: int, seed: int) -> ImagePool:
        """The originals first, then augmented copies of them in turn until there are ``count``."""
        originals = self.pool.take(index)
        missing = max(0, count - len(originals))
        source = index[torch.arange(missing) % len(index)]
        copies = augment(self.raw[source], self.preprocessing, seed)
        return concatenate([originals, ImagePool(copies, self.pool.y[source])])


def augment(raw: Tensor, preprocessing: Preprocessing, seed: int) -> Tensor:
    """Round 4's training augmentations: (N, 3, h, w) uint8 as stored -> (N, 3, size, size) float32 in [0, 1].

    Colour jitter of 0.1, resized crop of 80-100 %, turn by 30 degrees, shift by 10 %, scale by 10 % (train_model.py
    of the feb2021 generator); order of colours and scaling come last, as the model reads images. torchvision draws
    from the global stream, which is put back afterwards.
    """
    size = preprocessing.size
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
        return preprocessing.finish(torch.stack([transform(image) for image in raw]))


def _composed(
    case: ModelFolder, opened: OpenedFolder, settings: DataSettings, train_count: int, held_count: int, seed: int
) -> Samples:
    """Fresh images of the model's own signs; as many as asked for, so that nothing has to be augmented."""
    foregrounds, subject = case.signs, opened.subject
    if len(foregrounds) != subject.classes:
        raise UnreadableModelError(
            f"{case.foregrounds}: {len(foregrounds)} signs for {subject.classes} classes; use examples as data"
        )
    train, held = (
        _compose(case, subject, settings, count, derive_seed(seed, purpose))
        for purpose, count in (("train", train_count), ("held", held_count))
    )
    mend = "name the signs in the order of their classes, or use --data examples"
    expected = settings.expect_accuracy
    found = check_images(subject, train, str(case.foregrounds), order="signs", mend=mend, expected=expected)
    description = f"composed, {train_count} per class and {held_count} held back"
    return Samples(train, held, held, description, accuracy=(found,))


def _compose(case: ModelFolder, subject: Subject, settings: DataSettings, per_class: int, seed: int) -> ImagePool:
    images, y = compose_stored(
        case.signs,
        per_class=per_class,
        stored_size=subject.preprocessing.stored_size,
        generator=seed,
        backgrounds=Path(settings.backgrounds) if settings.backgrounds else None,
    )
    return ImagePool(subject.preprocessing(as_stored(images)), y)
