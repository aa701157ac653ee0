"""Frozen, validated, keyword-only records that survive a round trip through JSON."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from .errors import SettingsError
from .files import read_text

T = TypeVar("T")


_CONFIG = ConfigDict(extra="forbid", ser_json_inf_nan="constants", validate_default=True)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def record(cls: type[T]) -> type[T]:
    """Make a class a frozen keyword-only dataclass whose fields are validated and whose unknown keys are refused.

    Write bounds and help text with ``pydantic.Field``; both show up in the command line's list of settings.
    """
    made: Any = dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)  # type: ignore[call-overload]
    by_name = made.__init__

    @functools.wraps(by_name)
    def init(self: T, **fields: Any) -> None:
        by_name(self, **fields)

    # pydantic takes fields written with Field(...) by position whatever kw_only says
    made.__init__ = init
    return made


def is_missing(value: object) -> bool:
    """Whether it is None: for fields that are left out of the file then, ``Field(exclude_if=is_missing)``."""
    return value is None


@functools.cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def to_dict(value: Any) -> dict[str, Any]:
    """Plain JSON types of a record, in field order."""
    return _adapter(type(value)).dump_python(value, mode="json")  # type: ignore[arg-type]


def to_json(value: Any) -> str:
    """A record as indented JSON text, ending in a newline."""
    return json.dumps(to_dict(value), indent=2) + "\n"


def from_dict(cls: type[T], data: Any, *, source: str = "settings") -> T:
    """Build a record from plain JSON types; a wrong or unknown key raises SettingsError naming ``source``."""
    try:
        return _adapter(cls).validate_python(data)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(f"{source}: {_first_problem(error)}") from None


def from_json(cls: type[T], text: str, *, source: str = "settings") -> T:
    """Build a record from JSON text; see :func:`from_dict`."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{source}: not JSON ({error})") from None
    return from_dict(cls, data, source=source)


def read_record(cls: type[T], path: Path) -> T:
    """Read one record from a JSON file."""
    return from_json(cls, read_text(path), source=str(path))


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "value"
    return f"{where}: {problem['msg'].lower()} (got {problem['input']!r:.80})"


def dotted(value: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Nested plain JSON types as one level, each value by its dotted name.

    >>> dotted({"data": {"source": "folder"}, "seed": 1, "more": {}})
    {'data.source': 'folder', 'seed': 1}
    """
    found: dict[str, Any] = {}
    for key, item in value.items():
        whole = f"{name}.{key}" if name else key
        found |= dotted(item, whole) if isinstance(item, dict) else {whole: item}
    return found


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first dotted name, in alphabetical order, that has two values, and both; None where there is none."""
    first, second = dotted(one), dotted(other)
    names = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return (names[0], first.get(names[0]), second.get(names[0])) if names else None


def fingerprint(value: Any) -> str:
    """SHA-256 of a record's or of plain JSON types' content, whatever the order of keys."""
    plain = to_dict(value) if dataclasses.is_dataclass(value) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
