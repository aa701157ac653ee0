"""Files of what was learned from labelled models, as calibrations and rules are: how they are read and when refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from .errors import SettingsError
from .records import first_difference, from_dict, read_json


class LearnedFile(Protocol):
    """A record of what was learned, and from which models.

    option: of the command line, by which the file is given; again: what to do about a file that cannot be used;
    form: the format of the files that this version writes and reads.
    """

    option: ClassVar[str]
    again: ClassVar[str]
    form: ClassVar[int]

    @property
    def fitted_files(self) -> frozenset[str]:
        """SHA-256 of the files of all models learned from."""


L = TypeVar("L", bound=LearnedFile)


def read_learned(cls: type[L], path: Path) -> L:
    """Read one; SettingsError names the file and what is wrong with it, first of all another format."""
    source = f"{cls.option} {path}"
    try:
        data = read_json(path, source="it")
    except OSError as error:
        raise SettingsError(f"{source}: cannot be read ({error.strerror})") from None
    except SettingsError as error:
        raise SettingsError(f"{source}: cannot be read ({error}); {cls.again}") from None
    found = data.get("format") if isinstance(data, dict) else None
    if found != cls.form:
        raise SettingsError(f"{source}: format {found!r:.40}, this version reads {cls.form}; {cls.again}")
    return from_dict(cls, data, source=source)


def refuse_fitted(learned: LearnedFile, files: Iterable[tuple[str, str]]) -> None:
    """SettingsError when it was learned from one of these models, each (model id, sha256 of its file)."""
    models, known = list(files), learned.fitted_files
    fitted = [model_id for model_id, sha256 in models if sha256 in known]
    if fitted:
        raise SettingsError(
            f"{learned.option}: it was learned from {len(fitted)} of these {len(models)} models ({fitted[0]} first), "
            "so results would be too good; use other models, or --allow-fitted to have it said beside the results"
        )


def refuse_other(learned: LearnedFile, with_: Mapping[str, Any], used: Mapping[str, Any]) -> None:
    """SettingsError for the first thing, by name, that it was learned ``with_`` and that a run does otherwise."""
    difference = first_difference(with_, used)
    if difference:
        name, before, now = difference
        raise SettingsError(
            f"{learned.option}: learned with {name} {before!r:.60}, this run has {now!r:.60}; use the same scanner, "
            f"settings and images, or {learned.again}"
        )
