"""Pickles that hold data alone, as CIFAR's batches do: dictionaries, lists, text, numbers and arrays of numpy.

No name in one is imported and nothing is called: the three that numpy's arrays need are understood, others refused.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np

from .refusal import Refusal, quote

T = TypeVar("T")

MAX_PLAIN_OPERATIONS: Final = 2_000_000
"""The 50,000 images of CIFAR-100 need 300,000."""
_NUMBERS = re.compile(r"[|<>=]?([uif][1248]|b1)")
_DAMAGED = "is damaged (its pickle cannot be decoded); fetch it again from its source"
_LARGEST_PROTOCOL = 3
_MOST_AXES = 8

_ARRAY, _NDARRAY, _DTYPE, _BYTES = "array", "ndarray", "dtype", "bytes"
_NAMES = {
    **{f"numpy.{core}.multiarray _reconstruct": _ARRAY for core in ("core", "_core")},
    **{"numpy ndarray": _NDARRAY, "numpy dtype": _DTYPE, "_codecs encode": _BYTES},
}
_VALUES = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_COUNTS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2}
_TO_MARK = frozenset({"TUPLE", "APPENDS", "SETITEMS"})


@dataclass(frozen=True)
class _Name:
    kind: str


@dataclass(eq=False)
class _Kind:
    """A type of numbers, whose order of bytes follows later."""

    text: str


@dataclass(eq=False)
class _Array:
    """An array, which is filled later."""

    values: np.ndarray | None = None


class _Mark:
    pass


def read_plain_pickle(content: bytes) -> dict[str, object]:
    """The dictionary that a pickle holds, with text as keys; raises Refusal for anything but plain data.

    Python 2's text is text, and an array of numbers is a numpy array where it is a value of the dictionary.
    """
    machine = _Machine(len(content))
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count > MAX_PLAIN_OPERATIONS:
                raise Refusal(f"has a pickle of more than {MAX_PLAIN_OPERATIONS} instructions")
            machine.step(opcode.name, argument)
        root = machine.take(1)[0]
    except (ValueError, IndexError, KeyError, TypeError, OverflowError):
        raise Refusal(_DAMAGED) from None
    if not isinstance(root, dict):
        raise Refusal("holds something else than a dictionary")
    return {key: value.values if isinstance(value, _Array) else value for key, value in root.items()}


class _Machine:
    """The stack and the memo. What does not fit them is an IndexError, KeyError, TypeError or ValueError."""

    def __init__(self, length: int) -> None:
        self._stack: list[object] = []
        self._memo: dict[object, object] = {}
        # A file may mention one long text very often: together they have no more bytes than itself.
        self._left = length

    def step(self, name: str, argument: object) -> None:
        """Carry out one instruction; Refusal for one that plain data do not need."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _COUNTS:
            items = self.take(_COUNTS[name])
            self._finish(name, items)
        elif name in _TO_MARK:
            items = self._to_mark()
            self._finish(name, items)
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif name != "STOP":
            raise Refusal(f"uses the pickle instruction {name}, which plain data do not need; nothing was run")

    def take(self, count: int) -> list[object]:
        """The last ones on the stack."""
        items = self._stack[-count:]
        if len(items) != count or any(isinstance(item, _Mark) for item in items):
            raise IndexError
        del self._stack[-count:]
        return items

    def _to_mark(self) -> list[object]:
        items: list[object] = []
        while not isinstance(self._stack[-1], _Mark):
            items.append(self._stack.pop())
        self._stack.pop()
        return items[::-1]

    def _finish(self, name: str, items: list[object]) -> None:
        if name.startswith("TUPLE"):
            self._stack.append(tuple(items))
        elif name.startswith("APPEND"):
            _of_type(list, self._stack[-1]).extend(items)
        else:
            target = _of_type(dict, self._stack[-1])
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[key if isinstance(key, str) else _of_type(bytes, key).decode()] = value

    def proto(self, argument: object) -> None:
        if _of_type(int, argument) > _LARGEST_PROTOCOL:
            raise Refusal(f"has pickle protocol {quote(argument)}; save it with protocol 2, as CIFAR's files are")

    def empty_list(self, _: object) -> None:
        self._stack.append([])

    def empty_dict(self, _: object) -> None:
        self._stack.append({})

    def mark(self, _: object) -> None:
        self._stack.append(_Mark())

    def put(self, argument: object) -> None:
        self._memo[argument] = self._stack[-1]

    def get(self, argument: object) -> None:
        self._stack.append(self._memo[argument])

    def name(self, argument: object) -> None:
        kind = _NAMES.get(_of_type(str, argument))
        if kind is None:
            raise Refusal(f"asks for {quote(str(argument).replace(' ', '.'))}, which no images need; nothing was run")
        self._stack.append(_Name(kind))

    def reduce(self, _: object) -> None:
        """What the names stand for with these arguments."""
        function, given = self.take(2)
        kind, first = _of_type(_Name, function).kind, _of_type(tuple, given)[0]
        if kind == _ARRAY:
            self._stack.append(_Array())
        elif kind == _BYTES:
            self._stack.append(self._encoded(first))
        elif kind == _DTYPE and isinstance(first, str) and _NUMBERS.fullmatch(first):
            self._stack.append(_Kind(first))
        else:
            raise Refusal(f"holds an array of {quote(first)}, which are no numbers")

    def build(self, _: object) -> None:
        """Give an array its numbers, or a type of numbers the order of their bytes."""
        target, given = self.take(2)
        state = _of_type(tuple, given)
        if isinstance(target, _Kind):
            if state[1] not in ("<", ">", "|", "="):
                raise ValueError
            target.text = f"{state[1]}{target.text.lstrip('<>|=')}"
        else:
            _, shape, kind, by_columns, data = state
            content = data if isinstance(data, bytes) else self._encoded(data)
            order: Literal["C", "F"] = "F" if by_columns else "C"
            values = _array(_of_type(tuple, shape), _of_type(_Kind, kind).text, content, order)
            _of_type(_Array, target).values = values
        self._stack.append(target)

    def _encoded(self, text: object) -> bytes:
        content = _of_type(str, text).encode("latin-1")
        self._left -= len(content)
        if self._left < 0:
            raise Refusal(_DAMAGED)
        return content


def _of_type(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _array(shape: tuple[object, ...], kind: str, content: bytes, order: Literal["C", "F"]) -> np.ndarray:
    sizes = [_of_type(int, size) for size in shape[:_MOST_AXES]]
    dtype = np.dtype(kind)
    if min(sizes, default=0) < 0 or math.prod(sizes) * dtype.itemsize != len(content):
        raise ValueError
    return np.frombuffer(content, dtype).reshape(sizes, order=order)


_HANDLERS: dict[str, Callable[[_Machine, object], None]] = {
    "PROTO": _Machine.proto,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "MARK": _Machine.mark,
    **{"BINPUT": _Machine.put, "LONG_BINPUT": _Machine.put, "BINGET": _Machine.get, "LONG_BINGET": _Machine.get},
    **{"GLOBAL": _Machine.name, "REDUCE": _Machine.reduce, "BUILD": _Machine.build},
}
