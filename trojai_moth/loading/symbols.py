"""What a model's pickle may consist of, as inert values: nothing here refers to an importable object."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from .refusal import Refusal, quote

STORAGE_TYPES = MappingProxyType(
    {
        "FloatStorage": "float32",
        "DoubleStorage": "float64",
        "HalfStorage": "float16",
        "BFloat16Storage": "bfloat16",
        "LongStorage": "int64",
        "IntStorage": "int32",
        "ShortStorage": "int16",
        "CharStorage": "int8",
        "ByteStorage": "uint8",
        "BoolStorage": "bool",
    }
)
"""Storages by the name that pickles have for them; number types by the name that torch has."""

ITEM_BYTES = MappingProxyType(
    {
        **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2},
        **{"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1},
    }
)
"""Length of a number of each type."""


@dataclass(frozen=True)
class Name:
    """A dotted name that the file mentions; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Instance:
    """A module object of the file: the name of its class and, once built, its attributes."""

    kind: Name
    state: dict[object, object] | None = None


@dataclass(frozen=True)
class Device:
    """A device that the file names, which decides nothing here: weights are read to the CPU."""

    kind: str


@dataclass(frozen=True)
class Choice:
    """A member of an enumeration by its value."""

    kind: Name
    value: str


@dataclass(frozen=True, eq=False)
class SetOf:
    """A set of the file, left as the list of its items, which need not be hashable."""

    items: list[object]


@dataclass(frozen=True)
class StorageClaim:
    """Bytes that the file says it has elsewhere: ``numel`` numbers of one type under one key."""

    key: str
    dtype: str
    numel: int

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, eq=False)
class TensorClaim:
    """A tensor as the file describes it, checked to lie inside its storage and not to be larger than it."""

    storage: StorageClaim
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def storage_claim(kind: object, key: object, numel: object) -> StorageClaim:
    """Check the parts of a storage's persistent id; raises Refusal."""
    if not isinstance(kind, Name) or kind.module != "torch" or kind.name not in STORAGE_TYPES:
        raise Refusal("holds weights of an unknown number type")
    if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 1 << 40:
        raise Refusal("describes a weight storage in an impossible way")
    return StorageClaim(key, STORAGE_TYPES[kind.name], numel)


def tensor_claim(storage: object, offset: object, shape: object, stride: object) -> TensorClaim:
    """Check the parts of a tensor; raises Refusal when it does not fit into its storage."""
    if not isinstance(storage, StorageClaim) or type(offset) is not int or offset < 0:
        raise Refusal("describes a tensor in an impossible way")
    sizes, steps = _counts(shape), _counts(stride)
    if len(sizes) != len(steps):
        raise Refusal("describes a tensor in an impossible way")
    numel, last = 1, offset
    for size, step in zip(sizes, steps, strict=True):
        numel *= size
        last += max(size - 1, 0) * step
    # Stride 0 makes a small storage look like a huge tensor, so the element count is bounded as well.
    if numel > storage.numel or (numel and last >= storage.numel):
        raise Refusal(f"claims a tensor of shape {quote(sizes)} in a storage of {storage.numel} numbers")
    return TensorClaim(storage, offset, sizes, steps)


def _counts(value: object) -> tuple[int, ...]:
    # The length comes first: a file may mention one very long tuple very often.
    if not isinstance(value, tuple) or len(value) > 8:
        raise Refusal("describes a tensor in an impossible way")
    if any(type(item) is not int or not 0 <= item < 1 << 40 for item in value):
        raise Refusal("describes a tensor in an impossible way")
    return value
