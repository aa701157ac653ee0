"""The example images that carry a model's injected trigger, and how often that trigger still works.

This is ground truth, which a scanner or hardener must never see: only ``eval`` and the commands import this module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .errors import UnreadableModelError
from .images import ImagePool, read_image
from .opening import read_logits
from .rounds import CONFIG_FILE, Case, read_config_text
from .subject import Subject

_NAME = re.compile(r"class_(\d+)_trigger_(\d+)_example_(\d+)\.png")


@dataclass(frozen=True)
class PoisonedExamples:
    """Triggered images: ``images`` under their true classes, the victims; targets (N,) what the trigger is to make."""

    images: ImagePool
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The injected (victim, target) pairs, each once, in order."""
        return tuple(sorted(set(zip(self.images.y.tolist(), self.targets.tolist(), strict=True))))


class _Listed(NamedTuple):
    victim: int
    trigger: int
    number: int
    path: Path


def read_poisoned(case: Case) -> PoisonedExamples | None:
    """The case's triggered example images, None if it has none; UnreadableModelError for any that make no sense.

    A file's name says its true class and its trigger; the trigger's target is in config.json. Where that lists no
    triggers, it is the class that the published logits give most of the trigger's images, their own class apart.
    """
    listed = sorted(_list(case.poisoned_examples))
    if not listed:
        return None
    targets = _configured_targets(case.directory / CONFIG_FILE) or _published_targets(case, listed)
    wanted = []
    for image in listed:
        target = targets.get(image.trigger)
        classes = case.config.classes
        if target is None or not (0 <= target < classes and image.victim < classes and image.victim != target):
            raise UnreadableModelError(
                f"{image.path}: trigger {image.trigger} on class {image.victim} has target {target!r:.40} by "
                f"{CONFIG_FILE}; another class below {classes} is needed"
            )
        wanted.append(target)
    images = torch.stack([_read(image.path, case) for image in listed])
    victims = torch.tensor([image.victim for image in listed])
    return PoisonedExamples(ImagePool(case.config.preprocessing(images), victims), torch.tensor(wanted))


def attack_success(subject: Subject, poisoned: PoisonedExamples | None) -> float | None:
    """Share of triggered images that are given their trigger's target; None without such images."""
    if poisoned is None or not len(poisoned):
        return None
    return subject.accuracy(poisoned.images.x, poisoned.targets)


def _list(folder: Path) -> Iterator[_Listed]:
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and path.is_file():  # opening a pipe would wait for ever
            yield _Listed(int(match[1]), int(match[2]), int(match[3]), path)


def _configured_targets(config: Path) -> dict[int, Any]:
    """Trigger number -> target class of config.json's list of triggers; empty if there is none."""
    triggers = read_config_text(config).get("triggers")
    found = {}
    for position, trigger in enumerate(triggers if isinstance(triggers, list) else []):
        if isinstance(trigger, Mapping):
            target = trigger.get("target_class")
            whole = isinstance(target, int) and not isinstance(target, bool)
            found[trigger.get("trigger_number", position)] = target if whole else None
    return found


def _published_targets(case: Case, listed: list[_Listed]) -> dict[int, int]:
    """Trigger number -> the class that most of its images are given by the published logits, their own class apart."""
    if not case.poisoned_logits_file.exists():
        raise UnreadableModelError(
            f"{case.poisoned_examples}: {CONFIG_FILE} lists no triggers and there is no "
            f"{case.poisoned_logits_file.name}, so the target is unknown; remove the folder to go without it"
        )
    logits = read_logits(case.poisoned_logits_file, case.config.classes)
    votes: dict[int, Counter[int]] = {}
    for image in listed:
        given = int(logits[image.path.name].argmax()) if image.path.name in logits else image.victim
        if given != image.victim:
            votes.setdefault(image.trigger, Counter())[given] += 1
    return {trigger: count.most_common(1)[0][0] for trigger, count in votes.items()}


def _read(path: Path, case: Case) -> Tensor:
    image, stored = read_image(path), case.config.preprocessing.stored_size
    if tuple(image.shape[1:]) != (stored, stored):
        raise UnreadableModelError(
            f"{path}: {image.shape[2]} x {image.shape[1]} pixels, but {CONFIG_FILE} says {stored} x {stored}"
        )
    return image
