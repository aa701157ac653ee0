"""Every name that the pickles of a file ask for, found by reading their instructions and running none of them."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from io import BytesIO

from .files import read_exactly
from .pickle_machine import MAX_OPERATIONS, MAX_PICKLE_BYTES
from .refusal import Refusal
from .steady_file import SteadyFile
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
_LONGEST = 300
_UNREAD = "and what lies behind that is not looked at, since no model is as long"


def names_asked_for(file: SteadyFile) -> tuple[str, ...]:
    """All names in the order of their first use, from every pickle that can be found, as far as it can be read.

    As many bytes and instructions are looked at, over all pickles together, as a model that is loaded may have; where
    there is more, the last name says so.
    """
    found: dict[str, None] = {}
    budget = _Budget()
    for name in _names_of_all(file, budget):
        found[name] = None
        if len(found) >= _MAX_NAMES:
            return tuple(found)
    return (*found, _UNREAD) if budget.spent else tuple(found)


class _Budget:
    """What may still be read."""

    def __init__(self) -> None:
        self.bytes, self.instructions, self.spent = MAX_PICKLE_BYTES, MAX_OPERATIONS, False


def _names_of_all(file: SteadyFile, budget: _Budget) -> Iterator[str]:
    for data in _pickles(file, budget):
        stream = BytesIO(data)
        for _ in range(_MAX_PICKLES):
            yield from _names(stream, budget)
            if budget.spent or stream.tell() >= len(data):
                break


def _pickles(file: SteadyFile, budget: _Budget) -> Iterator[bytes]:
    """The bytes in which pickles lie: any entry of a zip that is named like one, else the file's beginning."""
    if read_exactly(file, 0, min(2, file.size)) != b"PK":
        yield read_exactly(file, 0, min(file.size, MAX_PICKLE_BYTES))
        return
    try:
        entries = read_directory(file)
    except Refusal:
        return
    for entry in entries.values():
        if not entry.name.endswith(".pkl") or budget.spent:
            continue
        budget.bytes -= entry.size
        if budget.bytes < 0:
            budget.spent = True
        else:
            yield read_exactly(file, entry.offset, entry.size)


def _names(stream: BytesIO, budget: _Budget) -> Iterator[str]:
    """Names of one pickle, cut where they are absurdly long; ends at its STOP or where it cannot be read any more."""
    texts = _Texts()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            budget.instructions -= 1
            if budget.instructions < 0:
                budget.spent = True
                return
            for name in _name(opcode.name, argument, texts.last):
                yield name[:_LONGEST]
            texts.follow(opcode.name, argument)
    except Exception:  # a damaged pickle ends here, in whatever way its decoder says so
        return


def _name(opcode: str, argument: object, texts: list[str]) -> Iterator[str]:
    if opcode in ("GLOBAL", "INST"):
        yield str(argument)[:_LONGEST].replace(" ", ".", 1)
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
            self._push(str(argument[:_LONGEST] if isinstance(argument, (str, bytes)) else argument))
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
