"""A run's directory: one small file per model and stage, each written in one step, so that any death is survived."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from .errors import RunDirectoryError, SettingsError
from .files import write_text
from .records import read_record, record, to_dict, to_json

T = TypeVar("T")

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@record
class RunIdentity:
    """What a run is: only a run with the same identity may be continued."""

    version: str
    models: tuple[str, ...]
    settings: dict[str, object]


class Journal:
    """Reads and writes the records of one run directory."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; nothing is written before open()."""
        self.root = root

    def open(self, identity: RunIdentity) -> None:
        """Start a run here or continue it; RunDirectoryError names the first setting that differs."""
        if self.started:
            difference = _difference(self.identity(), identity)
            if difference:
                raise RunDirectoryError(
                    f"{self.root}: made with other settings ({difference}); give another --out or the same settings"
                )
            return
        if self.root.exists() and not self._fresh():
            raise RunDirectoryError(f"{self.root}: not empty and not a run directory; give another --out")
        for model_id in identity.models:  # better now than when that model's turn comes, hours later
            self.path(model_id, "before")
        write_text(self.root / "run.json", to_json(identity))

    def _fresh(self) -> bool:
        """Whether nothing lies here but what a run left that was killed while it wrote its very first file."""
        return self.root.is_dir() and all(
            path.name.startswith(".run.json.") and path.suffix == ".part" for path in self.root.iterdir()
        )

    @property
    def started(self) -> bool:
        """Whether a run was started here."""
        return (self.root / "run.json").exists()

    def identity(self) -> RunIdentity:
        """What this run directory was made with."""
        return self._read(RunIdentity, self.root / "run.json", "give another --out")

    def path(self, model_id: str, stage: str) -> Path:
        """Where the record of one model and stage lies."""
        if not _SAFE_NAME.fullmatch(model_id):
            raise RunDirectoryError(f"{model_id!r:.80}: not usable as a file name; rename the model's folder")
        return self.root / "journal" / f"{model_id}.{stage}.json"

    def weights(self, model_id: str) -> Path:
        """Where a model's hardened weights lie."""
        return self.root / "weights" / f"{model_id}.safetensors"

    def write(self, model_id: str, stage: str, value: object) -> None:
        """Write one record atomically."""
        write_text(self.path(model_id, stage), to_json(value))

    def read(self, model_id: str, stage: str, cls: type[T]) -> T | None:
        """One record, or None if that stage was not reached; RunDirectoryError for a damaged one."""
        path = self.path(model_id, stage)
        return self._read(cls, path) if path.exists() else None

    def _read(self, cls: type[T], path: Path, mend: str = "delete this file to redo its stage") -> T:
        try:
            return read_record(cls, path)
        except (SettingsError, OSError, UnicodeDecodeError) as error:
            raise RunDirectoryError(f"{path}: damaged ({error}); {mend}") from None


def _difference(old: RunIdentity, new: RunIdentity) -> str:
    """The first thing that differs, in words; empty if nothing does."""
    before, after = dict(_flat(to_dict(old))), dict(_flat(to_dict(new)))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            return f"{key}: {before.get(key)!r:.60} there, {after.get(key)!r:.60} now"
    return ""


def _flat(value: object, name: str = "") -> list[tuple[str, object]]:
    if isinstance(value, dict):
        parts = [_flat(item, f"{name}.{key}" if name else key) for key, item in value.items()]
        return [pair for part in parts for pair in part]
    return [(name, value)]
