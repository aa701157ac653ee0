"""Numbers of a model file as tensors: what is read once a file has turned out to be a model.

Apart from the rest, since files that are none should be refused without the half gigabyte that torch takes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .refusal import Refusal
from .steady_file import SteadyFile
from .symbols import ITEM_BYTES

PIECE = 1 << 20


def read_tensor(file: SteadyFile, offset: int, numel: int, dtype: str) -> torch.Tensor:
    """Read ``numel`` little-endian numbers at a place of the file into a new flat CPU tensor that owns its memory."""
    if offset < 0 or offset + numel * ITEM_BYTES[dtype] > file.size:
        raise Refusal("is cut short or damaged (its weights reach behind its end)")
    flat = torch.empty(numel, dtype=getattr(torch, dtype))
    view = byte_view(flat)
    file.seek(offset)
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise Refusal("is cut short")
        done += count
    return flat


def read_pieces(file: SteadyFile, offset: int, numel: int, dtype: str) -> Iterator[torch.Tensor]:
    """The same numbers in pieces of at most a million, so that a file is judged in little memory."""
    for start in range(0, numel, PIECE):
        yield read_tensor(file, offset + start * ITEM_BYTES[dtype], min(PIECE, numel - start), dtype)


def byte_view(flat: torch.Tensor) -> memoryview:
    """The memory of a flat CPU tensor as writable bytes."""
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
