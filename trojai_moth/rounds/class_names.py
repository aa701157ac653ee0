"""What a model's classes are called: as a file says, else as its signs' files are, else by their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import SettingsError
from ..core.files import read_text
from ..core.records import parse_json
from .model_folder import ModelFolder

# Longer names make no table.
_LONGEST = 80
_LIMIT_BYTES = 1 << 20


def class_names(
    case: ModelFolder, classes: int, file: Path | None = None, said: Sequence[str] | None = None
) -> tuple[str, ...]:
    """A name for every class, in their order.

    file: a name per line, a JSON list of names, or a JSON object from numbers to names. Without it those that are
    ``said``, by the model's description or its images. Else the names of the model's sign files, of which there must
    be one per class; they are sorted as the classes are. SettingsError for a file that does not name every class once.
    """
    if file is not None:
        return read_names(file, classes)
    if said is not None and len(said) == classes:
        return tuple(map(_short, said))
    signs = case.signs
    if len(signs) == classes:
        return tuple(_short(path.stem) for path in signs)
    return tuple(map(str, range(classes)))


def read_names(file: Path, classes: int | None) -> tuple[str, ...]:
    """The names in a file; see :func:`class_names`. classes: how many there are, where that is known."""
    try:
        found = _parse(read_text(file, _LIMIT_BYTES), classes)
    except (OSError, ValueError, SettingsError) as error:
        raise SettingsError(f"{file}: not class names ({error}); write one per line, or a JSON list") from None
    if classes is not None and len(found) != classes:
        raise SettingsError(f"{file}: {len(found)} names for {classes} classes; name every class once, in their order")
    return tuple(_short(name) for name in found)


def _parse(text: str, classes: int | None) -> list[str]:
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    names = parse_json(text, source="names")
    if isinstance(names, dict):
        numbers = list(map(str, range(len(names) if classes is None else classes)))
        if set(numbers) != names.keys():
            raise ValueError(f"keys must be 0 to {len(numbers) - 1}")
        names = [names[number] for number in numbers]
    return _texts(names)


def _texts(names: Sequence[Any]) -> list[str]:
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError("a name is not text, or empty")
    return [name.strip() for name in names]


def _short(name: str) -> str:
    """A name in printable characters, and not too long.

    >>> _short("stop" + chr(10) + "sign")
    'stop sign'
    """
    plain = " ".join("".join(char if char.isprintable() else " " for char in name).split())
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 3] + "..."


def said(label: int, names: Sequence[str]) -> str:
    """A class in words.

    >>> said(3, ["0", "1", "2", "3"]), said(0, ["stop sign"])
    ('class 3', 'class 0 (stop sign)')
    """
    return f"class {label}" if names[label] == str(label) else f"class {label} ({names[label]})"
