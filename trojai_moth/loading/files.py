"""Opening a path that may be anything: only a regular file of bounded size is read, and must not change meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from .refusal import Refusal

MAX_FILE_BYTES = 2 << 30
"""The largest stock model, vgg19bn, has 0.6 GB."""
PIECE = 1 << 20


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


def read_tensor(file: BinaryIO, offset: int, numel: int, dtype: torch.dtype) -> torch.Tensor:
    """Read ``numel`` little-endian numbers at a place of the file into a new flat CPU tensor that owns its memory."""
    if offset < 0 or offset + numel * dtype.itemsize > file_size(file):
        raise Refusal("is cut short or damaged (its weights reach behind its end)")
    flat = torch.empty(numel, dtype=dtype)
    view = byte_view(flat)
    file.seek(offset)
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise Refusal("is cut short")
        done += count
    return flat


def read_pieces(file: BinaryIO, offset: int, numel: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The same numbers in pieces of at most a million, so that a file is judged in little memory."""
    for start in range(0, numel, PIECE):
        yield read_tensor(file, offset + start * dtype.itemsize, min(PIECE, numel - start), dtype)


def byte_view(flat: torch.Tensor) -> memoryview:
    """The memory of a flat CPU tensor as writable bytes."""
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
