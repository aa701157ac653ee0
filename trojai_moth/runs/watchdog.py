"""Ends this process when a stage hangs where Python cannot interrupt it, and leaves word of that beside the lease.

The clock is faulthandler's, a thread of C, which runs also while what hangs keeps Python's lock. When the time is over
it writes where the process was, and ends it. Whoever takes the model up next finds the word and need not hang as well.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from ..core.files import open_regular, written

# Seconds beyond a stage's limit after which a process that did not come back is ended.
OVERTIME_S = 30.0
SUFFIX = ".watch"
# The first word that faulthandler writes.
_FIRED = "Timeout"
# The rest says where the process was, for people.
_LONGEST = 1024


@dataclass(frozen=True)
class Hang:
    """The stage in which a process hung until it was ended, and the seconds that it was given for that."""

    stage: str
    seconds: float


class Watchdog:
    """Watches the stages of one model's turn; as a context manager it is quiet, and leaves no file, afterwards.

    There is one clock for a process, so there may be one of these at a time.
    """

    def __init__(self, path: Path, overtime: float = OVERTIME_S) -> None:
        """path: where word is left, see :func:`watch_path`; overtime: seconds beyond a stage's limit."""
        self._path, self._overtime = path, overtime
        self._file: IO[str] | None = None
        self._watched = False

    def __enter__(self) -> Watchdog:
        """Nothing is watched before the first stage begins."""
        return self

    def begins(self, stage: str, limit: float | None) -> None:
        """The stage before is over; this one may take so many seconds (None: it is not watched)."""
        self._quiet()
        if limit is not None:
            self._file = written(self._path, lambda: self._opened(stage, limit + self._overtime))
            self._watched = True
            faulthandler.dump_traceback_later(limit + self._overtime, file=self._file, exit=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The turn is over; one in which nothing was watched was perhaps no turn, and the file is another's."""
        self._quiet()
        if self._watched:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _opened(self, stage: str, seconds: float) -> IO[str]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)  # of a stage before; or a pipe, which would be waited for
        file = self._path.open("x", encoding="utf-8")
        print(stage, f"{seconds:g}", file=file, flush=True)
        return file

    def _quiet(self) -> None:
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            self._file = None


def watch_path(folder: Path, model_id: str) -> Path:
    """Where word of a model is left in the folder of the leases."""
    return folder / f"{model_id}{SUFFIX}"


def take_word(path: Path) -> Hang | None:
    """The hang that was left word of, if there was one; the file is gone afterwards. Only for the lease's holder."""
    try:
        with open_regular(path) as file:
            first, _, rest = file.read(_LONGEST).decode(errors="replace").partition("\n")
    except OSError:
        return None
    written(path, lambda: path.unlink(missing_ok=True))
    stage, _, seconds = first.rpartition(" ")
    with suppress(ValueError):
        if rest.startswith(_FIRED):
            return Hang(stage, float(seconds))
    return None


def sweep_words(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Remove what dead processes left of the models that are wanted to be free of it."""
    for path in folder.glob(f"*{SUFFIX}"):
        if wanted(path.name.removesuffix(SUFFIX)):
            path.unlink(missing_ok=True)
