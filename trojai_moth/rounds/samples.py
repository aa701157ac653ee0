"""The images that a model is scanned, hardened and checked with: examples with augmentations, composed ones, a folder.

A class's images are split once, by seed: one part is inverted on and trained on, the other is held back, to measure
whether a trigger works on images it was not made for and what hardening costs in accuracy.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from ..core.channels import COLOURS
from ..core.errors import SettingsError, UnreadableModelError
from ..core.images import ImagePool, class_words
from ..core.memory import in_words, memory_for_data
from ..core.seeding import derive_seed
from ..core.subject import Preprocessing, Subject
from ..synthesis.compose import as_stored, compose_stored
from .class_accuracy import PROBED_PER_CLASS, ClassAccuracy, check_images
from .data_settings import DataSettings
from .labelled_images import open_labelled
from .model_folder import ModelFolder
from .open_folder import OpenedFolder

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class ImageCounts:
    """How many images of each class there are to be, which is known before any of them is read or made."""

    train: tuple[int, ...]
    held: tuple[int, ...]

    def of(self, on: str) -> tuple[int, ...]:
        """Those held back, or those to train on."""
        return self.held if on == "held" else self.train

    def lacking(self, on: str) -> tuple[str, ...]:
        """Which classes have none of those, and why, as warnings."""
        none = [label for label, count in enumerate(self.of(on)) if not count]
        without = [label for label in none if not self.train[label] + self.held[label]]
        single = [label for label in none if label not in without]
        return (
            *([f"no images of {class_words(without)}: not measured as victim"] if without else ()),
            *(
                [
                    f"a single image of {class_words(single)}, and none is held back: not measured as victim; add "
                    "images, or measure on those to train on (--on train)"
                ]
                if single
                else ()
            ),
        )


Choice = Callable[[ImageCounts], Collection[int]]
"""Says of which classes images are needed, given how many there would be."""


@dataclass(frozen=True)
class _Source:
    """Images of one source before they are made; ``composed``: how many are put together at a time, needed or not."""

    counts: ImageCounts
    make: Callable[[frozenset[int]], Samples]
    composed: int = 0


def collect_samples(
    case: ModelFolder, opened: OpenedFolder, settings: DataSettings, seed: int, only: Choice | None = None
) -> Samples:
    """The images for one model, the same for the same seed; before and after hardening they are shared.

    Several sources give equal parts of each class's images; the examples are left out where the model has none.
    Images that the model does not get right, or in another order, are refused: see rounds/class_accuracy.py. only:
    images of these classes alone are made, the same as among all others. SettingsError for more than this machine's
    memory holds.
    """
    ways: dict[str, Callable[[int, int], _Source]] = {
        "examples": lambda train, held: _examples(case, opened, settings, train, held, seed),
        "composed": lambda train, held: _composed(case, opened, settings, train, held, seed),
        "folder": lambda train, held: _folder(case, opened, settings, settings.folder, train, held, seed),
    }
    if case.config.images is not None:
        own = case.config.images
        ways["examples"] = lambda train, held: _folder(case, opened, settings, own, train, held, seed)
    names = [name for name in settings.sources if name != "examples" or len(opened.examples) or case.config.images]
    train, held = (math.ceil(count / len(names)) for count in (settings.train_per_class, settings.held_per_class))
    sources = [ways[name](train, held) for name in names]
    counts = ImageCounts(
        train=tuple(map(sum, zip(*(source.counts.train for source in sources), strict=True))),
        held=tuple(map(sum, zip(*(source.counts.held for source in sources), strict=True))),
    )
    wanted = frozenset(only(counts) if only else range(opened.subject.classes))
    images = sum(counts.train[label] + counts.held[label] for label in wanted)
    parts = 2 if len(sources) > 1 else 1  # several sources are put into one pool
    composed = max(source.composed for source in sources)
    _require_memory(images * parts, composed, opened.subject.preprocessing, settings.fewer)
    return _together([source.make(wanted) for source in sources])


# Below this nothing is said: it is what a round of 40 classes takes.
_MUCH_MEMORY = 8_000_000_000
_BYTES = 4
# Of what fits, the share that is advised: originals are never dropped, so there may be a few more than asked for.
_SAFE = 0.9


def _require_memory(images: int, composed: int, preprocessing: Preprocessing, fewer: Callable[[float], str]) -> None:
    """SettingsError where so many inputs, with so many composed images beside them, take more than may be taken.

    fewer: the options that ask for a share of them.
    """
    stored = COLOURS * math.prod(preprocessing.stored_shape)
    needed, may = _BYTES * images * math.prod(preprocessing.shape) + 2 * composed * stored, memory_for_data()
    if needed <= min(may, _MUCH_MEMORY):
        return
    height, width = preprocessing.shape[1:]
    words = f"data: {images} images of {height} x {width} pixels take {in_words(needed)} of memory"
    mend = fewer(min(_SAFE * may / needed, 0.5))
    if needed > may:
        raise SettingsError(f"{words}, and {in_words(may)} may be taken here; ask for fewer: {mend}")
    _log.warning("%s; fewer take less: %s", words, mend)


def with_unseen(
    samples: Samples, case: ModelFolder, opened: OpenedFolder, settings: DataSettings, seed: int
) -> Samples:
    """The same samples with newly composed images for the audit; without any where images are not composed."""
    if "composed" not in settings.sources or not settings.unseen_images:
        return samples
    subject = opened.subject
    per_class, every = math.ceil(settings.unseen_images / subject.classes), range(subject.classes)
    count = per_class * subject.classes
    _require_memory(count, count, subject.preprocessing, lambda share: f"--set data.unseen_images={int(share * count)}")
    return replace(samples, unseen=_compose(case, subject, settings, per_class, derive_seed(seed, "unseen"), every))


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
    y = torch.cat([pool.y for pool in pools])
    source = torch.cat([torch.full((len(pool),), number) for number, pool in enumerate(pools)])
    place = torch.zeros(len(y), dtype=torch.long)
    for label in set(y.tolist()):
        for number in range(len(pools)):
            own = torch.nonzero((y == label) & (source == number)).flatten()
            place[own] = torch.arange(len(own)) * len(pools) + number
    order = torch.tensor(sorted(range(len(y)), key=lambda index: (int(y[index]), int(place[index]))), dtype=torch.long)
    goes_to = torch.empty_like(order)
    goes_to[order] = torch.arange(len(order))
    x = torch.empty(len(y), *pools[0].x.shape[1:])
    for number, pool in enumerate(pools):
        x[goes_to[source == number]] = pool.x
    return ImagePool(x, y[order])


def check_examples(case: ModelFolder, opened: OpenedFolder, settings: DataSettings) -> ClassAccuracy:
    """What the model makes of its own example images; UnreadableModelError as check_images has it."""
    return check_images(
        opened.subject,
        opened.examples,
        str(case.examples),
        order="images",
        mend="put the right images there, or give others with --data FOLDER",
        expected=expected_accuracy(case, settings),
    )


def expected_accuracy(case: ModelFolder, settings: DataSettings) -> float | None:
    """What the settings expect of a model, or else its description says."""
    return case.config.expect_accuracy if settings.expect_accuracy is None else settings.expect_accuracy


def first_images(case: ModelFolder, opened: OpenedFolder, settings: DataSettings, most: int) -> ImagePool:
    """About so many images of the sources that are files, the first of each class, as the model's inputs."""
    place = settings.folder if "folder" in settings.sources else case.config.images
    if place is None:
        return opened.examples
    images = open_labelled(Path(place), opened.subject.classes, case.config.class_names)
    classes, reading = opened.subject.classes, opened.subject.preprocessing
    chosen, y = images.first_of_each(classes, math.ceil(most / classes))
    return ImagePool(_as_inputs(images.read(chosen, reading.stored_shape), reading), y)


def _examples(
    case: ModelFolder, opened: OpenedFolder, settings: DataSettings, train: int, held: int, seed: int
) -> _Source:
    """Split the examples by class and fill both parts up with augmented copies of their own images."""

    def originals(label: int, most: int | None = None) -> tuple[Tensor, Tensor]:
        own = opened.examples.positions(label)[:most]
        return opened.raw[own], opened.examples.x[own]

    def check(_: ImagePool) -> ClassAccuracy:
        return check_examples(case, opened, settings)

    numbers, reading = opened.examples.counts(opened.subject.classes), opened.subject.preprocessing
    return _Split("examples", numbers, originals, check, reading, settings, train, held, seed).source()


def _folder(
    case: ModelFolder, opened: OpenedFolder, settings: DataSettings, place: str | None, train: int, held: int, seed: int
) -> _Source:
    """Images of a folder or file, as many per class as are needed, brought to the size that the model's are stored in.

    place: the model's own, or those that the settings name.
    """
    if place is None:
        raise UnreadableModelError(
            "data.folder: not given; it says where the labelled images of source folder are: --data PATH"
        )
    images = open_labelled(Path(place), opened.subject.classes, case.config.class_names)
    first = [images.first(label, train + held) for label in range(opened.subject.classes)]
    reading = opened.subject.preprocessing

    def originals(label: int, most: int | None = None) -> tuple[Tensor, Tensor]:
        raw = images.read(first[label][:most], reading.stored_shape)
        return raw, _as_inputs(raw, reading)

    def check(pool: ImagePool) -> ClassAccuracy:
        return check_images(
            opened.subject,
            pool,
            place,
            order="images",
            mend="give images of the model's classes there, each under its class's number or name",
            expected=expected_accuracy(case, settings),
        )

    own, numbers = derive_seed(seed, "folder"), tuple(map(len, first))
    return _Split("folder", numbers, originals, check, reading, settings, train, held, own).source()


# Images that are preprocessed at a time, since that takes some memory for each beside the result.
_AT_ONCE = 256


def _as_inputs(raw: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(N, c, h, w) uint8 as stored -> (N, C, H, W) float32 in [0, 1], a part at a time."""
    x = torch.empty(len(raw), *preprocessing.shape)
    for start in range(0, len(raw), _AT_ONCE):
        x[start : start + _AT_ONCE] = preprocessing(raw[start : start + _AT_ONCE])
    return x


def held_back(count: int, share: float) -> int:
    """How many of a class's ``count`` images are held back: about that share, but some on either side; of one none."""
    return min(max(1, math.ceil(count * share)), count - 1) if count > 1 else 0


# Images of classes that are not wanted are looked at as long as they are so few: whether classes have changed places.
_MOST_PROBED = 500


@dataclass(frozen=True)
class _Split:
    """Images of one source to be split by class and filled up with augmented copies, each part with its own.

    numbers: originals of each class. originals: those of one class, or the first of them, as stored and as inputs.
    check: what the model makes of the first ones of each class, or an error. train, held: how many there are to be of
    each class.
    """

    name: str
    numbers: tuple[int, ...]
    originals: Callable[[int, int | None], tuple[Tensor, Tensor]]
    check: Callable[[ImagePool], ClassAccuracy]
    preprocessing: Preprocessing
    settings: DataSettings
    train: int
    held: int
    seed: int

    def source(self) -> _Source:
        """How many there will be; originals are never dropped."""
        kept = [held_back(number, self.settings.held_fraction) for number in self.numbers]
        counts = ImageCounts(
            train=tuple(max(n - k, self.train) if n else 0 for n, k in zip(self.numbers, kept, strict=True)),
            held=tuple(max(k, self.held) if k else 0 for k in kept),
        )
        return _Source(counts, lambda wanted: self._make(counts, kept, wanted))

    def _make(self, counts: ImageCounts, kept: Sequence[int], wanted: Collection[int]) -> Samples:
        stream = torch.Generator().manual_seed(derive_seed(self.seed, "split"))
        others = min(PROBED_PER_CLASS, _MOST_PROBED // len(self.numbers))
        first = [
            min(number, PROBED_PER_CLASS if label in wanted else others) for label, number in enumerate(self.numbers)
        ]
        train, held, clean = (
            _Pile(sum(count[label] for label in wanted), self.preprocessing.shape)
            for count in (counts.train, counts.held, kept)
        )
        probe = _Pile(sum(first), self.preprocessing.shape)
        for label, number in enumerate(self.numbers):
            order = torch.randperm(number, generator=stream)  # drawn for all, so that some are as among all
            if label not in wanted or not number:
                probe.add(self.originals(label, first[label])[1], label)
                continue
            raw, x = self.originals(label, None)
            probe.add(x[: first[label]], label)
            for pile, name, part, count in (
                (train, "train", order[kept[label] :], counts.train[label]),
                (held, "held", order[: kept[label]], counts.held[label]),
            ):
                pile.add(x[part], label)
                missing = torch.arange(count - len(part)) % max(1, len(part))
                pile.add(augment(raw[part[missing]], self.preprocessing, derive_seed(self.seed, name, label)), label)
            clean.add(x[order[: kept[label]]], label)
        few, many = min(self.numbers), max(self.numbers)
        share = f"{self.settings.held_fraction:.0%} held back"
        words = f"{self.name}, {few}-{many} per class, {share}"
        return Samples(train.pool, held.pool, clean.pool, words, accuracy=(self.check(probe.pool),))


class _Pile:
    """A pool that is filled class by class, in memory that is taken once: putting parts together takes it twice."""

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        self.pool = ImagePool(torch.empty(count, *shape), torch.empty(count, dtype=torch.long))
        self._filled = 0

    def add(self, x: Tensor, label: int) -> None:
        end = self._filled + len(x)
        self.pool.x[self._filled : end], self.pool.y[self._filled : end] = x, label
        self._filled = end


# Numbers of channels of which torchvision knows the colours.
_KNOWN_COLOURS = (1, COLOURS)


def _shapes(height: int, width: int) -> tuple[float, float]:
    """Least and largest width by height of a crop: torchvision's 3/4 to 4/3 of the input's own."""
    return 3 / 4 * width / height, 4 / 3 * width / height


def augment(raw: Tensor, preprocessing: Preprocessing, seed: int) -> Tensor:
    """Round 4's training augmentations: (N, c, h, w) uint8 as stored -> (N, C, H, W) float32 in [0, 1].

    Colour jitter of 0.1, resized crop of 80-100 %, turn by 30 degrees, shift by 10 %, scale by 10 % (train_model.py
    of the feb2021 generator); order of colours and scaling come last, as the model reads images. torchvision draws
    from the global stream, which is put back afterwards.
    """
    channels, height, width = preprocessing.shape
    jitter = [v2.ColorJitter(0.1, 0.1, 0.1, 0.1)] if raw.shape[1] in _KNOWN_COLOURS else []
    transform = v2.Compose(
        [
            *jitter,
            v2.RandomResizedCrop((height, width), scale=(0.8, 1.0), ratio=_shapes(height, width)),
            v2.RandomAffine(degrees=30, translate=(0.1, 0.1), scale=(0.9, 1.1)),
        ]
    )
    made = torch.empty(len(raw), channels, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, which is all that fork_rng puts back here
        for number, image in enumerate(raw):
            made[number] = preprocessing.finish(transform(image)[None])[0]
    return made


def _composed(
    case: ModelFolder, opened: OpenedFolder, settings: DataSettings, train_count: int, held_count: int, seed: int
) -> _Source:
    """Fresh images of the model's own signs; as many as asked for, so that nothing has to be augmented.

    They are drawn one after the other, so those of all classes are made and the order of the classes is checked,
    whichever are wanted.
    """
    foregrounds, subject = case.signs, opened.subject
    if len(foregrounds) != subject.classes:
        raise UnreadableModelError(
            f"{case.foregrounds}: {len(foregrounds)} signs for {subject.classes} classes; use --data examples, or "
            "--data FOLDER with labelled images"
        )

    def check(first: ImagePool) -> ClassAccuracy:
        return check_images(
            subject,
            first,
            str(case.foregrounds),
            order="signs",
            mend="name the signs in the order of their classes, or use --data examples",
            expected=expected_accuracy(case, settings),
        )

    def make(wanted: frozenset[int]) -> Samples:
        found: list[ClassAccuracy] = []
        composed = [
            _compose(case, subject, settings, count, derive_seed(seed, purpose), wanted, look)
            for purpose, count, look in (
                ("train", train_count, lambda first: found.append(check(first))),
                ("held", held_count, None),
            )
        ]
        description = f"composed, {train_count} per class and {held_count} held back"
        return Samples(composed[0], composed[1], composed[1], description, accuracy=tuple(found))

    counts = ImageCounts(train=(train_count,) * subject.classes, held=(held_count,) * subject.classes)
    return _Source(counts, make, composed=max(train_count, held_count) * subject.classes)


def _compose(
    case: ModelFolder,
    subject: Subject,
    settings: DataSettings,
    per_class: int,
    seed: int,
    wanted: Collection[int],
    look: Callable[[ImagePool], None] | None = None,
) -> ImagePool:
    """``look`` is shown the first images of all classes."""
    images, y = compose_stored(
        case.signs,
        per_class=per_class,
        stored_size=max(subject.preprocessing.stored_shape),
        generator=seed,
        backgrounds=Path(settings.backgrounds) if settings.backgrounds else None,
    )
    raw = as_stored(images)
    del images  # as large again
    if look:
        first = torch.cat([torch.nonzero(y == label).flatten()[:PROBED_PER_CLASS] for label in range(subject.classes)])
        look(ImagePool(_as_inputs(raw[first], subject.preprocessing), y[first]))
    if len(wanted) < subject.classes:
        kept = torch.isin(y, torch.tensor(sorted(wanted), dtype=y.dtype))
        raw, y = raw[kept], y[kept]
    return ImagePool(_as_inputs(raw, subject.preprocessing), y)
