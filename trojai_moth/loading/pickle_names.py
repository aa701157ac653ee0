"""Every name that the pickles of a file ask for, found by reading their instructions and running none of them."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from .files import file_size, read_exactly
from .pickle_machine import MAX_OPERATIONS, MAX_PICKLE_BYTES
from .refusal import Refusal
from .zip_directory import read_directory

_STRINGS = frozenset(
    {
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_COMPUTED = "a name that it computes"
# Pickles follow each other in the old container only, which has five.
_MAX_PICKLES = 8
_MAX_NAMES = 1000


def names_asked_for(file: BinaryIO) -> tuple[str, ...]:
    """All names in the order of their first use, from every pickle that can be found, as far as it can be read."""
    found: dict[str, None] = {}
    for data in _pickles(file):
        stream = BytesIO(data)
        for _ in range(_MAX_PICKLES):
            for name in _names(stream):
                found[name] = None
                if len(found) >= _MAX_NAMES:
                    return tuple(found)
            if stream.tell() >= len(data):
                break
    return tuple(found)


def _pickles(file: BinaryIO) -> Iterator[bytes]:
    """The bytes in which pickles lie: any entry of a zip that is named like one, else the file's beginning."""
    if read_exactly(file, 0, min(2, file_size(file))) != b"PK":
        yield read_exactly(file, 0, min(file_size(file), MAX_PICKLE_BYTES))
        return
    try:
        entries = read_directory(file)
    except Refusal:
        return
    for entry in entries.values():
        if entry.name.endswith(".pkl") and entry.size <= MAX_PICKLE_BYTES:
            yield read_exactly(file, entry.offset, entry.size)


def _names(stream: BytesIO) -> Iterator[str]:
    """Names of one pickle; ends at its STOP or where it cannot be read any more."""
    texts = _Texts()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number > MAX_OPERATIONS:
                return
            yield from _name(opcode.name, argument, texts.last)
            texts.follow(opcode.name, argument)
    except Exception:  # a damaged pickle ends here, in whatever way its decoder says so
        return


def _name(opcode: str, argument: object, texts: list[str]) -> Iterator[str]:
    if opcode in ("GLOBAL", "INST"):
        yield str(argument).replace(" ", ".", 1)
    elif opcode == "STACK_GLOBAL":
        yield ".".join(texts) if len(texts) == 2 else _COMPUTED
    elif opcode in ("EXT1", "EXT2", "EXT4"):
        yield f"number {argument} of the extension registry"


class _Texts:
    """The last two texts of a pickle and those in its memo, which is where STACK_GLOBAL finds its name."""

    def __init__(self) -> None:
        self.last: list[str] = []
        self._memo: dict[object, str] = {}
        self._fresh = False

    def follow(self, opcode: str, argument: object) -> None:
        """Take in one instruction."""
        if opcode in _STRINGS:
            self._push(str(argument))
        elif opcode in _GETS:
            self._push(self._memo.get(argument, "?"))
        elif opcode in _PUTS or opcode == "MEMOIZE":
            key = len(self._memo) if opcode == "MEMOIZE" else argument
            self._memo[key] = self.last[-1] if self._fresh else "?"
        else:
            self._fresh = False

    def _push(self, text: str) -> None:
        self.last = [*self.last[-1:], text]
        self._fresh = True
