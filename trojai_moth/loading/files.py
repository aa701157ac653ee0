"""Opening a path that may be anything: only a regular file of bounded size is read, and must not change meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .refusal import Refusal
from .steady_file import CHANGED, SteadyFile

MAX_FILE_BYTES = 2 << 30
"""The largest stock model, vgg19bn, has 0.6 GB."""


@contextmanager
def open_regular(path: Path) -> Iterator[SteadyFile]:
    """Open a regular file without following a link or waiting for a pipe; raises Refusal or OSError.

    It is hashed first, and must be the same file in the same state when it is closed.
    """
    if path.is_symlink():
        raise Refusal("is a link; put the model file itself there, as cp -L does")
    # A pipe can take the file's place after the check, so opening must not wait either.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        before = os.fstat(file.fileno())
        _check(before)
        yield SteadyFile(file, before.st_size)
        _compare(before, os.fstat(file.fileno()))
        _compare(before, os.lstat(path) if os.path.lexists(path) else None)


def _compare(before: os.stat_result, after: os.stat_result | None) -> None:
    """Refuse a file that is not the one it was, or was written to; its change time cannot be put back as others can."""
    if after is None or _state(before) != _state(after):
        raise Refusal(CHANGED)


def _state(status: os.stat_result) -> tuple[int, ...]:
    # On Windows a path's change time is its creation's, and an open file's may not be.
    changed = status.st_ctime_ns if os.name == "posix" else 0
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, changed


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("is not a regular file; put the model file itself there")
    if status.st_size == 0:
        raise Refusal("is empty")
    if status.st_size > MAX_FILE_BYTES:
        raise Refusal(f"has {status.st_size} bytes, more than any known model ({MAX_FILE_BYTES})")


def read_exactly(file: SteadyFile, offset: int, length: int) -> bytes:
    """Read bytes at a place of the file; raises Refusal when the file ends before."""
    if offset < 0 or offset + length > file.size:
        raise Refusal("is cut short or damaged (it refers to bytes behind its end)")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise Refusal("is cut short")
    return data
