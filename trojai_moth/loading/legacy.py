"""The container of torch <= 1.5: five pickles in a row, then the storages, each behind its length."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from .files import read_exactly
from .pickle_machine import MAX_PICKLE_BYTES, run_pickle
from .refusal import Refusal, quote
from .steady_file import SteadyFile
from .symbols import Name, StorageClaim, storage_claim

if TYPE_CHECKING:
    import torch

_MAGIC = 0x1950A86A20F9469CFC6C
_START = b"\x80\x02\x8a\x0a"
_VERSION = 1001
_NOT_TORCH = "is not a file that torch.save wrote"
_LOOKED_AT = 512
_OTHERS = {
    b"version https://git-lfs": "a pointer to one in Git LFS; fetch the file itself with git lfs pull",
    b"<": "a web page or XML; download the file again from its source",
    b"\x1f\x8b": "a packed one, by gzip; unpack it",
    b"bzh": "a packed one, by bzip2; unpack it",
    b"\xfd7zxz": "a packed one, by xz; unpack it",
    b"\x89hdf": "one of HDF5, as Keras writes; save the network with torch.save",
    b"\x80": "another pickle; load it where it was made, and save its state_dict() with torch.save",
}


class LegacyContainer:
    """See :class:`~trojai_moth.loading.container.Container`; raises Refusal when the file is not such a container.

    The format has no checksums: what is checked is that the lengths of all storages add up to the file's length.
    """

    kind = "legacy"
    entries: Collection[str] = ()

    def __init__(self, file: SteadyFile, tolerant: bool = False) -> None:
        self._file = file
        self._claims: dict[str, StorageClaim] = {}
        head = BytesIO(read_exactly(file, 0, min(file.size, MAX_PICKLE_BYTES)))
        _check_header(head)
        self.content = run_pickle(head, self._persistent, tolerant=tolerant)
        self._places = self._locate(run_pickle(head).root, head.tell())

    def pieces(self, storage: StorageClaim) -> Iterator[torch.Tensor]:
        """The numbers of one storage in pieces; the format has no checksums."""
        from .tensors import read_pieces

        return read_pieces(self._file, self._places[storage.key], storage.numel, storage.dtype)

    def read(self, storage: StorageClaim) -> torch.Tensor:
        """Read one storage."""
        from .tensors import read_tensor

        return read_tensor(self._file, self._places[storage.key], storage.numel, storage.dtype)

    def _persistent(self, identity: tuple[object, ...]) -> object:
        # The first use of each class comes with its source text, which is only of interest to a reader.
        if len(identity) == 4 and identity[0] == "module" and isinstance(identity[1], Name):
            return identity[1]
        if len(identity) != 6 or identity[0] != "storage":
            raise Refusal("mentions outside data in an unknown way")
        if identity[5] is not None:
            raise Refusal("stores weights as views of each other; save the model again with a newer torch")
        claim = storage_claim(identity[1], identity[2], identity[4])
        if self._claims.setdefault(claim.key, claim) != claim:
            raise Refusal(f"describes the storage {quote(claim.key)} in two ways")
        return claim

    def _locate(self, keys: object, at: int) -> dict[str, int]:
        """Where each storage's numbers begin, given the list of keys and where the storages begin."""
        if not isinstance(keys, list) or len(keys) != len(self._claims):
            raise Refusal("is damaged (its list of storages does not fit its model)")
        places: dict[str, int] = {}
        for key in keys:
            claim = self._claims.get(key) if isinstance(key, str) else None
            if claim is None or key in places:
                raise Refusal("is damaged (its list of storages does not fit its model)")
            numel = int.from_bytes(read_exactly(self._file, at, 8), "little")
            if numel != claim.numel:
                raise Refusal(f"says storage {quote(key)} has {claim.numel} numbers, but it has {numel}")
            places[key] = at + 8
            at += 8 + claim.nbytes
        if at != self._file.size:
            raise Refusal(f"is cut short or damaged ({self._file.size} bytes, but its weights end at {at})")
        return places


def _what_it_is(content: bytes) -> str:
    """What else lies there that often does, and what to do then; empty for anything else."""
    start = content[:_LOOKED_AT].lstrip().lower()
    return next((f" but {words}" for beginning, words in _OTHERS.items() if start.startswith(beginning)), "")


def _check_header(head: BytesIO) -> None:
    if head.getvalue()[: len(_START)] != _START or run_pickle(head).root != _MAGIC:
        raise Refusal(f"{_NOT_TORCH}{_what_it_is(head.getvalue())}")
    if run_pickle(head).root != _VERSION:
        raise Refusal("has an unknown version of the old torch format")
    system = run_pickle(head).root
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refusal("was not written on a little-endian machine; save it again on one")
