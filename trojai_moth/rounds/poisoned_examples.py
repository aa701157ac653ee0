"""The example images that carry a model's injected trigger, and how often that trigger still works.

This is ground truth, which a scanner or hardener must never see: only ``eval`` and the commands import this module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from ..core.errors import UnreadableModelError
from ..core.files import list_closed
from ..core.images import EXAMPLE_NAME, SUFFIXES, ImagePool, ImageReader, list_numbered
from ..core.subject import Subject
from ..triggers.trigger import Pair
from .config_file import read_config_text
from .model_folder import ModelFolder
from .open_folder import read_logits
from .preprocessing import default_reading

# Round 4's form; rounds 2 and 3 have one trigger and give its images the names of clean ones.
_NAME = re.compile(rf"class_(\d{{1,6}})_trigger_(\d{{1,6}})_example_(\d{{1,9}}){SUFFIXES}", re.IGNORECASE)
# How deep a trigger's description may lie in the configuration of later rounds.
_DEEPEST = 6


@dataclass(frozen=True)
class PoisonedExamples:
    """Triggered images: ``images`` under their true classes, the victims; targets (N,) what the trigger is to make."""

    images: ImagePool
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The injected (victim, target) pairs, each once, in order."""
        return tuple(sorted(set(zip(self.images.y.tolist(), self.targets.tolist(), strict=True))))


class _Listed(NamedTuple):
    victim: int
    trigger: int
    number: int
    path: Path


def read_poisoned(case: ModelFolder, subject: Subject | None = None) -> PoisonedExamples | None:
    """The case's triggered example images, None if it has none; UnreadableModelError for any that make no sense.

    A file's name says its true class and its trigger; the trigger's target is in config.json. Where that lists no
    triggers, it is the class that the published logits give most of the trigger's images, their own class apart. In
    the 2022 round the label beside an image is the target, and the true class is in the configuration. Without a
    subject the images are read as the configuration says, which is enough to know the pairs.
    """
    listed, targets = _list(case.poisoned_examples), dict[int, Any]()
    if listed:
        targets = _configured_targets(case.config_file) or _published_targets(case, listed)
        listed = [image for image in listed if not _own_target(image, targets)]
    else:
        listed, targets = _labelled(case)
    if not listed:
        return None
    classes = subject.classes if subject else case.config.classes or 1_000_000
    wanted = []
    for image in listed:
        target = targets.get(image.trigger)
        if target is None or not (0 <= target < classes and image.victim < classes and image.victim != target):
            raise UnreadableModelError(
                f"{image.path}: trigger {image.trigger} on class {image.victim} has target {target!r:.40} by "
                f"{case.names.config}; another class below {classes} is needed"
            )
        wanted.append(target)
    reader = ImageReader()
    images = torch.stack([_read(image.path, case, reader) for image in listed])
    reading = subject.preprocessing if subject else default_reading(case.config, images)
    victims = torch.tensor([image.victim for image in listed])
    return PoisonedExamples(ImagePool(reading(images), victims), torch.tensor(wanted))


def attack_success(subject: Subject, poisoned: PoisonedExamples | None) -> float | None:
    """Share of triggered images that are given their trigger's target; None without such images."""
    if poisoned is None or not len(poisoned):
        return None
    return subject.accuracy(poisoned.images.x, poisoned.targets)


def _list(folder: Path) -> list[_Listed]:
    """Images by the names that say a trigger, or where there is none of those by clean ones' names."""
    found = []
    for path in list_closed(folder):
        if not path.is_file():  # opening a pipe would wait for ever
            continue
        if match := _NAME.fullmatch(path.name):
            found.append(_Listed(int(match[1]), int(match[2]), int(match[3]), path))
        elif match := EXAMPLE_NAME.fullmatch(path.name):
            found.append(_Listed(int(match[1]), _PLAIN, int(match[2]), path))
    named = [image for image in found if image.trigger != _PLAIN]
    return sorted(named or found)


# The trigger of images whose names do not say one.
_PLAIN = -1


def _own_target(image: _Listed, targets: Mapping[int, Any]) -> bool:
    """Whether a trigger for all classes was put on its target's own images, which it cannot turn into anything."""
    return image.trigger == _PLAIN and targets.get(_PLAIN) == image.victim


def _labelled(case: ModelFolder) -> tuple[list[_Listed], dict[int, Any]]:
    """Images with their target as JSON beside them; a target's victim is the source class of the trigger to it."""
    numbered = sorted(list_numbered(case.poisoned_examples))
    sources: dict[int, set[int]] = {}
    triggers = read_config_text(case.config_file).get("triggers") if numbered else None
    for source, target in _pairs(triggers, _DEEPEST):
        sources.setdefault(target, set()).add(source)
    listed = []
    for path, target, number in numbered:
        if len(sources.get(target, ())) != 1:
            raise UnreadableModelError(
                f"{path}: is to become class {target}, and {case.names.config} does not say of which one class; remove "
                f"{case.poisoned_examples.name} to go without it"
            )
        listed.append(_Listed(min(sources[target]), target, number, path))
    return listed, {target: target for target in sources}


def _pairs(value: Any, depth: int) -> Iterator[Pair]:
    """Every (source class, target class) that stands side by side somewhere in a configuration's triggers."""
    if isinstance(value, Mapping):
        source, target = value.get("source_class"), value.get("target_class")
        if is_whole(source) and is_whole(target):
            yield source, target
    if depth and isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _pairs(part, depth - 1)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, as a class is; JSON's true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _configured_targets(config: Path) -> dict[int, Any]:
    """Trigger number -> target class by the configuration; empty if it says nothing."""
    data = read_config_text(config) if config.exists() else {}
    triggers, only = data.get("triggers"), data.get("trigger_target_class")
    found: dict[int, Any] = {_PLAIN: only, 0: only} if is_whole(only) else {}
    for position, trigger in enumerate(triggers if isinstance(triggers, list) else []):
        if isinstance(trigger, Mapping):
            target, number = trigger.get("target_class"), trigger.get("trigger_number", position)
            found[number if is_whole(number) else position] = target if is_whole(target) else None
    if len(found) == 1:
        found[_PLAIN] = next(iter(found.values()))
    return found


def _published_targets(case: ModelFolder, listed: list[_Listed]) -> dict[int, int]:
    """Trigger number -> the class that most of its images are given by the published logits, their own class apart."""
    if not case.poisoned_logits_file.exists() or case.config.classes is None:
        raise UnreadableModelError(
            f"{case.poisoned_examples}: {case.names.config} lists no triggers and there is no "
            f"{case.poisoned_logits_file.name}, so the target is unknown; remove the folder to go without it"
        )
    logits = read_logits(case.poisoned_logits_file, case.config.classes)
    votes: dict[int, Counter[int]] = {}
    for image in listed:
        given = int(logits[image.path.name].argmax()) if image.path.name in logits else image.victim
        if given != image.victim:
            votes.setdefault(image.trigger, Counter())[given] += 1
    return {trigger: count.most_common(1)[0][0] for trigger, count in votes.items()}


def _read(path: Path, case: ModelFolder, reader: ImageReader) -> Tensor:
    image = reader.read(path)
    stored = case.config.stored_size or image.shape[1]
    if tuple(image.shape[1:]) != (stored, stored):
        raise UnreadableModelError(
            f"{path}: {image.shape[2]} x {image.shape[1]} pixels, but {case.names.config} says {stored} x {stored}"
        )
    return image
