"""Opening a path that may be anything: only a regular file of bounded size is read, and must not change meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .refusal import Refusal

MAX_FILE_BYTES = 2 << 30
"""The largest stock model, vgg19bn, has 0.6 GB."""


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file without following a link or waiting for a pipe; raises Refusal or OSError."""
    if path.is_symlink():
        raise Refusal("is a link; put the model file itself there")
    # A pipe can take the file's place after the check, so opening must not wait either.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        before = os.fstat(file.fileno())
        _check(before)
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Refusal("changed while it was read; scan a copy that nobody writes to")


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("is not a regular file; put the model file itself there")
    if status.st_size == 0:
        raise Refusal("is empty")
    if status.st_size > MAX_FILE_BYTES:
        raise Refusal(f"has {status.st_size} bytes, more than any known model ({MAX_FILE_BYTES})")


def file_size(file: BinaryIO) -> int:
    """Size in bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def sha256_of(file: BinaryIO) -> str:
    """Hexadecimal SHA-256 of the whole file."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def read_exactly(file: BinaryIO, offset: int, length: int) -> bytes:
    """Read bytes at a place of the file; raises Refusal when the file ends before."""
    if offset < 0 or offset + length > file_size(file):
        raise Refusal("is cut short or damaged (it refers to bytes behind its end)")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise Refusal("is cut short")
    return data
