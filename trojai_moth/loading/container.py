"""The zip container of torch >= 1.6: one pickle and one uncompressed entry per weight storage."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Protocol

from .files import read_exactly
from .pickle_machine import MAX_PICKLE_BYTES, PickleContent, run_pickle
from .refusal import Refusal, quote
from .steady_file import SteadyFile
from .symbols import StorageClaim, storage_claim
from .zip_directory import Entry, read_directory

if TYPE_CHECKING:
    import torch

_SMALL = 4096


class Container(Protocol):
    """A model file that has been taken apart: its pickle as symbols, and its weights on request."""

    kind: str
    content: PickleContent
    entries: Collection[str]
    """Names of a zip file's entries without their folder; nothing for the others."""

    def pieces(self, storage: StorageClaim) -> Iterator[torch.Tensor]:
        """The numbers of one storage in flat pieces; raises Refusal at the end when they are damaged."""

    def read(self, storage: StorageClaim) -> torch.Tensor:
        """Read one storage, whose pieces were looked at before, as a new flat tensor."""


class ZipContainer:
    """See :class:`Container`; raises Refusal on construction when the file is not such a container."""

    kind = "zip"

    def __init__(self, file: SteadyFile, tolerant: bool = False) -> None:
        self._file = file
        self._entries = _without_folder(read_directory(file))
        self.entries: Collection[str] = self._entries.keys()
        self._claims: dict[str, StorageClaim] = {}
        self._check_byte_order()
        pickle = self._entries["data.pkl"]
        if pickle.size > MAX_PICKLE_BYTES:
            raise Refusal(f"has a pickle of {pickle.size} bytes, more than any known model needs")
        self.content = run_pickle(BytesIO(self._read_checked(pickle)), self._storage, tolerant=tolerant)

    def pieces(self, storage: StorageClaim) -> Iterator[torch.Tensor]:
        """The numbers of one storage in pieces, compared with the checksum of its entry at the end."""
        from .tensors import byte_view, read_pieces

        entry, crc = self._entries[f"data/{storage.key}"], 0
        for piece in read_pieces(self._file, entry.offset, storage.numel, storage.dtype):
            crc = zlib.crc32(byte_view(piece), crc)
            yield piece
        _check_crc(crc, entry)

    def read(self, storage: StorageClaim) -> torch.Tensor:
        """Read one storage."""
        from .tensors import read_tensor

        entry = self._entries[f"data/{storage.key}"]
        return read_tensor(self._file, entry.offset, storage.numel, storage.dtype)

    def _storage(self, identity: tuple[object, ...]) -> StorageClaim:
        if len(identity) != 5 or identity[0] != "storage":
            raise Refusal("mentions outside data in an unknown way")
        claim = storage_claim(identity[1], identity[2], identity[4])
        if self._claims.setdefault(claim.key, claim) != claim:
            raise Refusal(f"describes the storage {quote(claim.key)} in two ways")
        entry = self._entries.get(f"data/{claim.key}")
        if entry is None or entry.size != claim.nbytes:
            found = "missing" if entry is None else f"{entry.size} bytes long"
            raise Refusal(f"says storage {quote(claim.key)} has {claim.nbytes} bytes, but it is {found}")
        return claim

    def _check_byte_order(self) -> None:
        entry = self._entries.get("byteorder")
        if entry is not None and self._read_checked(entry, _SMALL) != b"little":
            raise Refusal("was not written on a little-endian machine; save it again on one")

    def _read_checked(self, entry: Entry, limit: int = MAX_PICKLE_BYTES) -> bytes:
        if entry.size > limit:
            raise Refusal(f"has an oversized entry {quote(entry.name)}")
        data = read_exactly(self._file, entry.offset, entry.size)
        _check_crc(zlib.crc32(data), entry)
        return data


def _check_crc(found: int, entry: Entry) -> None:
    if found != entry.crc:
        raise Refusal(f"is damaged (wrong checksum of {quote(entry.name)}); fetch it again")


def _without_folder(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Strip the folder that every entry lies in, and refuse entries that torch.save does not write."""
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refusal("is a zip file, but not one that torch.save wrote")
    folder = pickles[0].removesuffix("data.pkl")
    inside = {name.removeprefix(folder): entry for name, entry in entries.items() if name.startswith(folder)}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise Refusal("is a TorchScript program; save the plain module or its state_dict() with torch.save")
    strange = [name for name in inside if not (name in _ENTRIES or name.startswith((".", "data/")))]
    if strange or len(inside) != len(entries):
        raise Refusal(f"has entries that torch.save does not write ({quote((strange or sorted(entries))[0])})")
    return inside


_ENTRIES = frozenset({"data.pkl", "version", "byteorder"})
