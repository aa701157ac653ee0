"""Frozen, validated, keyword-only records that survive a round trip through JSON."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from .errors import SettingsError
from .files import IrregularFileError, decode_text, read_bytes

T = TypeVar("T")

JSON_LIMIT: Final = 64 << 20
"""Bytes of a JSON file that is read whole; a run of ten thousand models has less than one MiB."""
LARGEST_SEED: Final = (1 << 63) - 1
"""Seeds are whole numbers of 64 bits, as everything that is written down."""
LONGEST_S: Final = 1e8
"""Three years: the most seconds that anything may be given; timers of the system take hardly more."""
# What is written here has less than ten.
_MOST_LEVELS: Final = 100
_TOO_DEEP: Final = f"nested deeper than {_MOST_LEVELS} levels"
_WHOLE_LIMIT, _MOST_DIGITS = 1 << 63, 20
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")

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
    return from_dict(cls, parse_json(text, source=source), source=source)


def read_record(cls: type[T], path: Path) -> T:
    """Read one record from a JSON file; see :func:`from_dict`, and OSError where it cannot be read."""
    return from_dict(cls, read_json(path), source=str(path))


def parse_json(text: str | bytes, *, source: str) -> Any:
    """Plain JSON types of somebody's text; SettingsError names ``source`` and what nothing of ours would hold.

    That is what is no JSON, nested deeper than any record, a whole number beyond 64 bits, or text that cannot be
    written again. NaN and Infinity are numbers here, as in the records that hold them; fields say which they take.
    """
    try:
        data = json.loads(decode_text(text) if isinstance(text, bytes) else text, parse_int=_whole)
    except RecursionError:
        raise SettingsError(f"{source}: {_TOO_DEEP}") from None
    except ValueError as error:
        raise SettingsError(f"{source}: not JSON ({_comma_too_many(error) or error}); mend it there") from None
    _refuse_odd(data, source)
    return data


def _comma_too_many(error: ValueError) -> str:
    """What an editor's most frequent slip is called, which the reader's own words do not name; else empty."""
    if not isinstance(error, json.JSONDecodeError):
        return ""
    before = error.doc[: error.pos].rstrip()
    last = before.endswith(",") and error.doc[error.pos : error.pos + 1] in ("}", "]")
    return f"a comma after the last entry, line {error.lineno} column {error.colno}" if last else ""


def read_json(path: Path, *, source: str = "", limit: int = JSON_LIMIT) -> Any:
    """Plain JSON types of somebody's file, see :func:`parse_json`; OSError where it cannot be read.

    source: what messages call it instead of its path; limit: bytes beyond which it is refused.
    """
    try:
        text = read_bytes(path, limit)
    except IrregularFileError as error:
        raise SettingsError(f"{source or path}: {error}, which no such file is") from None
    return parse_json(text, source=source or str(path))


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) <= _MOST_DIGITS else None
    if number is None or not -_WHOLE_LIMIT <= number < _WHOLE_LIMIT:
        raise ValueError(f"a whole number beyond 64 bits, {digits[:20]}")
    return number


def _refuse_odd(data: Any, source: str) -> None:
    """Level by level, since what is nested too deep cannot be walked by recursion."""
    level: list[Any] = [data]
    for _ in range(_MOST_LEVELS):
        if any(isinstance(item, str) and _HALF_A_CHARACTER.search(item) for item in level):
            raise SettingsError(f"{source}: holds half a character (\\ud800 to \\udfff), which is no text")
        level = [part for item in level for part in _parts(item)]
        if not level:
            return
    raise SettingsError(f"{source}: {_TOO_DEEP}")


def _parts(item: Any) -> Iterable[Any]:
    return (*item.keys(), *item.values()) if isinstance(item, dict) else item if isinstance(item, list) else ()


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
