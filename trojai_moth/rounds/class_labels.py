"""Which of a model's classes the labels of images are, be they numbers or names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ..core.errors import SettingsError
from ..core.images import class_words
from .image_source import Found, say

CLASS_NUMBER = re.compile(r"(?:class[_ -]?)?(\d{1,6})(?:\.0+)?", re.IGNORECASE)
"""How the number of a class is written: ``3``, ``00003``, ``class_3``, and ``3.0`` as tables have it."""
HOW_TO_NAME = "say which class is which: class_names in model.json, or --labels FILE"
_SHOWN = 4


def number_labels(
    found: Found, where: str, classes: int, names: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...] | None]:
    """The class of each image, 0 to classes - 1, and the names of the classes by number where there are any.

    names: the model's classes by name, which go before numbers. Without them names are numbered in their order, as
    torchvision's ImageFolder does, if there are as many as classes; numbers from 1 to the last are taken for 0 to the
    last but one. Both are said. SettingsError for a label that is none of the classes.
    """
    distinct = tuple(dict.fromkeys(found.labels))
    by_name = _matched(distinct, names) if names else {}
    if len(by_name) == len(distinct):
        return [by_name[label] for label in found.labels], tuple(names or ())
    numbers = {label: _number(label) for label in distinct}
    named = [str(label) for label, number in numbers.items() if number is None]
    if named and len(named) < len(distinct):
        number = next(label for label, number in numbers.items() if number is not None)
        raise SettingsError(
            f"{where}: {number} is the number of a class, and {named[0]} is none; number all of them 0, 1, ..., or "
            f"none, or take {named[0]} out"
        )
    if named and names:
        wrong = next(label for label in named if label not in by_name)
        raise SettingsError(f"{where}: {wrong} is no class of the model, {_nearest(wrong, names)}; rename it there")
    if named:
        order = {name: number for number, name in enumerate(_in_order(found, where, named, classes))}
        return [order[str(label)] for label in found.labels], tuple(order)
    return _by_number(found, where, classes, names, {label: number or 0 for label, number in numbers.items()})


def warn_of_missing(labels: Sequence[int], where: str, classes: int, names: Sequence[str] | None) -> None:
    """Say which classes have no image; SettingsError where fewer than two have some."""
    missing = sorted(set(range(classes)) - set(labels))
    if len(missing) > classes - 2:
        raise SettingsError(f"{where}: images of one class alone; a scan needs two classes or more")
    if missing:
        few = ", ".join(names[label] for label in missing[:_SHOWN]) if names else ""
        more = ", ..." if names and len(missing) > _SHOWN else ""
        say(f"{where}: no images of {class_words(missing)}{few and f' ({few}{more})'}")


def _number(label: int | str) -> int | None:
    match = CLASS_NUMBER.fullmatch(label) if isinstance(label, str) else None
    return int(match[1]) if match else label if isinstance(label, int) else None


def _matched(labels: Sequence[int | str], names: Sequence[str]) -> dict[int | str, int]:
    """The class of each label that is one of the names, written the same way or, where that tells them apart, alike."""
    exact = {name: number for number, name in enumerate(names)}
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        alike.setdefault(_plain(name), []).append(number)
    found: dict[int | str, int] = {}
    for label in labels:
        if isinstance(label, str):
            close = alike.get(_plain(label), [])
            if label in exact or len(close) == 1:
                found[label] = exact.get(label, close[0])
    return found


def _plain(name: str) -> str:
    """A name without what people write differently.

    >>> _plain("Stop_Sign "), _plain("stop-sign")
    ('stop sign', 'stop sign')
    """
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


def _nearest(label: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(_plain(label), [_plain(name) for name in names], n=2, cutoff=0.5)
    if close:
        return "nearest " + " or ".join(name for name in names if _plain(name) in close)
    return f"which are {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"


def _in_order(found: Found, where: str, named: Sequence[str], classes: int) -> list[str]:
    order = sorted(named)
    if len(order) != classes and len(found.every) == classes:
        order = sorted(found.every)
    shown = order[:_SHOWN]
    if len(order) != classes:
        raise SettingsError(
            f"{where}: {len(order)} classes by name ({', '.join(shown)}{', ...' if len(order) > _SHOWN else ''}), but "
            f"the model has {classes}; {HOW_TO_NAME}"
        )
    numbers = ", ".join(f"{name} {number}" for number, name in enumerate(shown))
    say(
        f"{where}: classes are numbered by name, as torchvision's ImageFolder does: {numbers}"
        f"{', ...' if classes > _SHOWN else ''}; if the model's order is another, {HOW_TO_NAME}"
    )
    return order


def _by_number(
    found: Found, where: str, classes: int, names: Sequence[str] | None, numbers: dict[int | str, int]
) -> tuple[list[int], tuple[str, ...] | None]:
    labels = [numbers[label] for label in found.labels]
    first, last = min(labels), max(labels)
    shift = 1 if first == 1 and last == classes else 0
    if last - shift >= classes or first < 0:
        wrong = last if last - shift >= classes else first
        raise SettingsError(
            f"{found.images.name(labels.index(wrong))}: class {wrong}, but the model has {classes} classes, which are "
            f"numbered 0 to {classes - 1}; rename it, or take it out"
        )
    if shift:
        say(f"{where}: classes are numbered from 1 to {classes}; 1 is taken for class 0 of the model, and so on")
        labels = [label - 1 for label in labels]
    own = found.names if found.names and len(found.names) == classes else None
    if own and names:
        moved = _matched(own, names)
        order = [moved.get(name, -1) for name in own]
        if sorted(order) == list(range(classes)) and order != list(range(classes)):
            say(f"{where}: its classes are in another order than the model's; they are matched by name")
            labels = [order[label] for label in labels]
    return labels, tuple(names) if names else own
