"""A run's directory: one small file per model and stage, each published in one step, so that any death is survived.

Several processes, also of several machines, may work on one run directory: of two records of the same stage the first
that is complete stays, and who is at which model is said by :mod:`~trojai_moth.runs.leases`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from ..core.errors import DamagedRecordError, RunDirectoryError, SettingsError
from ..core.files import PART, publish_text, sweep_parts, write_text, written
from ..core.process_identity import process_name
from ..core.records import Field, first_difference, is_missing, read_record, record, to_dict, to_json
from ..rounds.model_folder import is_model_id
from ..rounds.preprocessing import PreprocessingChoice
from ..scanners.checks import verdict_problem
from ..scanners.result import ScanResult
from .failures import FailureKind
from .leases import Leases, LeaseTerms
from .watchdog import sweep_words

T = TypeVar("T")


@record
class RunIdentity:
    """What a run is: only a run with the same identity may be continued."""

    version: str
    models: tuple[str, ...]
    settings: dict[str, object]


class Journal:
    """Reads and writes the records of one run directory."""

    def __init__(self, root: Path, terms: LeaseTerms | None = None) -> None:
        """Use ``root``; nothing is written before open()."""
        self.root = root
        self.leases = Leases(root / "leases", terms)

    def open(self, identity: RunIdentity) -> None:
        """Start a run here or continue it; RunDirectoryError names the first setting that differs.

        Of several that start the same run at the same time each goes on; of several different ones, the first.
        """
        for model_id in identity.models:  # better now than when that model's turn comes, hours later
            self.path(model_id, "before")
        if not self.started and self.root.exists() and not self._fresh() and not self.started:
            raise RunDirectoryError(f"{self.root}: not empty and not a run directory; give another --out")
        path = self.root / "run.json"
        if not self.started and written(path, lambda: publish_text(path, to_json(identity))):
            return
        difference = first_difference(to_dict(self.identity()), to_dict(identity))
        if difference:
            name, there, now = difference
            raise RunDirectoryError(
                f"{self.root}: made with other settings ({name}: {there!r:.60} there, {now!r:.60} now); give another "
                "--out or the same settings"
            )

    def _fresh(self) -> bool:
        """Whether nothing lies here but what a run left that was killed while it wrote its very first file."""
        return self.root.is_dir() and all(
            path.name.startswith(".run.json.") and path.suffix == PART for path in self.root.iterdir()
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
        if not is_model_id(model_id):
            raise RunDirectoryError(f"{model_id!r:.80}: not usable as a file name; rename the model's folder")
        return self.root / "journal" / f"{model_id}.{stage}.json"

    def weights(self, model_id: str) -> Path:
        """Where a model's hardened weights lie."""
        return self.root / "weights" / f"{model_id}.safetensors"

    def write(self, model_id: str, stage: str, value: object) -> None:
        """Write one record atomically, in place of one that is there."""
        path = self.path(model_id, stage)
        written(path, lambda: write_text(path, to_json(value)))

    def publish(self, model_id: str, stage: str, value: object) -> bool:
        """Write one record atomically unless there is one; False if another was first, whose record then stays."""
        path = self.path(model_id, stage)
        return written(path, lambda: publish_text(path, to_json(value)))

    def read(self, model_id: str, stage: str, cls: type[T]) -> T | None:
        """One record, or None if that stage was not reached; DamagedRecordError for a damaged one."""
        path = self.path(model_id, stage)
        return self._read(cls, path) if path.exists() else None

    def recall(self, model_id: str, stage: str, cls: type[T], note: Callable[[str], None]) -> T | None:
        """As :meth:`read`, but a damaged record is set aside with a note, so that its stage is done again.

        Only for whoever holds the model's lease: another one might set aside the record that was made anew.
        """
        try:
            return self.read(model_id, stage, cls)
        except DamagedRecordError as error:
            note(f"{error}; moved to {self.set_aside(self.path(model_id, stage))}, and its stage is done again")
            return None

    def set_aside(self, path: Path) -> Path:
        """Move a damaged file out of the way, into the folder ``damaged``; where it is now."""
        aside = self.root / "damaged" / f"{path.name}.{process_name()}.{time.monotonic_ns()}"

        def move() -> None:
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)

        written(path, move)
        return aside

    def sweep(self) -> None:
        """Remove half-written files and leases that dead processes left behind."""
        for folder in (self.root, self.root / "journal", self.root / "weights"):
            sweep_parts(folder)
        self.leases.sweep(self.is_finished)
        sweep_words(self.leases.folder, self.is_finished)

    def mark_finished(self, model_id: str) -> None:
        """Note that nothing is left to do for a model: an empty file, so that a count need not read records."""
        marker = self.root / "finished" / model_id

        def mark() -> None:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()

        if not marker.exists():
            written(marker, mark)

    def is_finished(self, model_id: str) -> bool:
        """Whether nothing was left to do when that was last looked into."""
        return (self.root / "finished" / model_id).exists() or self.path(model_id, "failure").exists()

    def _read(self, cls: type[T], path: Path, mend: str = "delete this file to redo its stage") -> T:
        try:
            return read_record(cls, path)
        except SettingsError as error:
            raise DamagedRecordError(f"{path}: damaged ({error}); {mend}") from None
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be read ({error.strerror}); {mend}") from None


Stage = Literal["before", "harden", "after", "evidence", "blind"]
# Stages of a model in the order in which they run.
STAGES: tuple[Stage, ...] = ("before", "harden", "after", "evidence", "blind")


@record
class ScanRecord:
    """The journal's record of one scan."""

    architecture: str
    classes: int
    sha256: str
    check: str
    convention: PreprocessingChoice
    """How the model reads its images and what speaks for it."""
    data: str
    accuracy: float
    device: str
    verdict: ScanResult
    seconds: float = Field(ge=0)
    note: str = ""
    """How the model was loaded, where that limits what the verdict means."""
    class_names: tuple[str, ...] | None = None
    """Of the classes, where the model's description or its images say them."""

    def __post_init__(self) -> None:
        """ValueError for a verdict that no scanner may give: somebody has changed it."""
        problem = verdict_problem(self.verdict, self.classes)
        if problem:
            raise ValueError(f"the scanner {problem}")


@record
class Failure:
    """A model that could not be examined to the end; it is never counted as clean.

    traceback: of the exception that ended it, where the run was made with ``--debug``; else it is no part of the file.
    """

    stage: str
    reason: str
    seconds: float = Field(ge=0)
    kind: FailureKind
    traceback: str | None = Field(default=None, exclude_if=is_missing)


@record
class NotHardened:
    """A flagged model that the protocol leaves alone, and why."""

    reason: str
