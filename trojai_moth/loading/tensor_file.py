"""The safetensors container: a JSON header with names, types and places, then numbers; nothing in it can be code."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .files import read_exactly
from .pickle_machine import PickleContent
from .refusal import Refusal, quote
from .steady_file import SteadyFile
from .symbols import StorageClaim, TensorClaim

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 4 << 20
"""The largest stock model's header has 0.1 MB."""

_TYPES = MappingProxyType(
    {
        "F64": "float64",
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "I64": "int64",
        "I32": "int32",
        "I16": "int16",
        "I8": "int8",
        "U8": "uint8",
        "BOOL": "bool",
    }
)
_PREFIX = 8
_BAD_HEADER = "is cut short or damaged (its safetensors header cannot be read)"


def looks_like_tensor_file(start: bytes) -> bool:
    """Whether a file that starts like this is a safetensors file: a sane length, then a JSON object."""
    return start[_PREFIX : _PREFIX + 1] == b"{" and 0 < int.from_bytes(start[:_PREFIX], "little") <= MAX_HEADER_BYTES


class TensorFile:
    """See :class:`~trojai_moth.loading.container.Container`; raises Refusal when the file is not such a container."""

    kind = "safetensors"
    entries: Collection[str] = ()

    def __init__(self, file: SteadyFile) -> None:
        self._file = file
        length = int.from_bytes(read_exactly(file, 0, _PREFIX), "little")
        if length > MAX_HEADER_BYTES:
            raise Refusal(_BAD_HEADER)
        header = _parse(read_exactly(file, _PREFIX, length))
        self.metadata = _texts(header.pop("__metadata__", {}))
        self._places: dict[str, int] = {}
        claims: dict[str, TensorClaim] = {}
        at, start = 0, _PREFIX + length
        for name, entry in sorted(header.items(), key=_begin):
            claim, first, last = _claim(name, entry)
            if first != at or last - first != claim.storage.nbytes:
                raise Refusal(f"says its tensor {quote(name)} lies where it cannot (overlap, gap or wrong length)")
            self._places[name], claims[name] = start + at, claim
            at = last
        self.claims = claims
        self.content = PickleContent(claims, None)
        if start + at != file.size:
            raise Refusal(f"is cut short or damaged ({file.size} bytes, but its weights end at {start + at})")

    def pieces(self, storage: StorageClaim) -> Iterator[torch.Tensor]:
        """The numbers of one tensor in pieces; the format has no checksums."""
        from .tensors import read_pieces

        return read_pieces(self._file, self._places[storage.key], storage.numel, storage.dtype)

    def read(self, storage: StorageClaim) -> torch.Tensor:
        """Read one tensor's numbers."""
        from .tensors import read_tensor

        return read_tensor(self._file, self._places[storage.key], storage.numel, storage.dtype)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Refusal(_BAD_HEADER) from None
    if not isinstance(header, dict):
        raise Refusal(_BAD_HEADER)
    return header


def _texts(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Refusal(_BAD_HEADER)
    return metadata


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refusal("has two tensors of the same name")
    return found


def _begin(item: tuple[str, Any]) -> tuple[int, int]:
    _, first, last = _claim(*item)
    return first, last


def _claim(name: str, entry: object) -> tuple[TensorClaim, int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refusal(_BAD_HEADER)
    shape, place = _numbers(entry["shape"]), _numbers(entry["data_offsets"])
    dtype = _TYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise Refusal(f"stores {quote(name)} as an unknown number type {quote(entry['dtype'])}")
    if len(place) != 2:
        raise Refusal(_BAD_HEADER)
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return TensorClaim(StorageClaim(name, dtype, math.prod(shape)), 0, shape, strides), place[0], place[1]


def _numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 8 or any(type(x) is not int or not 0 <= x < 1 << 40 for x in value):
        raise Refusal("describes a tensor in an impossible way")
    return tuple(value)
