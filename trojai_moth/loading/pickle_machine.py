"""A reader of the pickles that torch.save writes, which builds inert symbols and cannot call anything.

Only the instructions of pickle protocol 2 that torch.save itself produces are known. Names stay names, objects stay
:class:`~trojai_moth.loading.symbols.Instance`, and only what loading/constructors.py writes out can be called. What may
stand beside a checkpoint's weights, see loading/bystanders.py, is an Instance that nobody looks into.
Time and memory are linear in the length of the pickle: nothing is copied that the file can mention twice.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType

from .bystanders import is_value_maker, not_stock
from .constructors import CONSTRUCTORS, any_name, is_module_class, is_stock, parse_name
from .refusal import STATE_DICT_MEND, ForeignCode, Refusal, quote
from .symbols import Instance, Name

MAX_PICKLE_BYTES = 32 << 20
"""The largest stock model's pickle has 0.3 MB, with embedded class sources 0.4 MB."""
MAX_OPERATIONS = 500_000
"""The largest stock model needs about 120,000."""

_OPCODES = MappingProxyType({opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes})
_UNDECODABLE = "is cut short or damaged (its pickle cannot be decoded)"


@dataclass(frozen=True)
class PickleContent:
    """A pickle's symbols, and the first thing in it that a stock network's whole module does not have, if any.

    ``names`` are all those that it mentions, in the order of their first use.
    """

    root: object
    foreign: Refusal | None
    names: tuple[Name, ...] = ()


def run_pickle(
    stream: BytesIO, persistent: Callable[[tuple[object, ...]], object] | None = None, *, tolerant: bool = False
) -> PickleContent:
    """Read one pickle from the stream's position; the stream ends up behind it.

    ``persistent`` turns a persistent id, a non-empty tuple, into a symbol; None refuses all of them.
    Raises Refusal for anything that is damaged, unknown or too large. ``tolerant`` is for looking at a file that will
    not be loaded: names and calls that no model needs become symbols as well, which still cannot do anything.
    """
    machine = _Machine(persistent, tolerant)
    for _ in range(MAX_OPERATIONS):
        opcode, argument = _next_instruction(stream)
        if opcode == "STOP":
            return PickleContent(machine.result(), machine.foreign, tuple(machine.names))
        machine.step(opcode, argument)
    raise Refusal(f"has a pickle of more than {MAX_OPERATIONS} instructions")


def _next_instruction(stream: BytesIO) -> tuple[str, object]:
    """Name and argument of the next instruction; the arguments of unknown ones are not even decoded."""
    opcode = _OPCODES.get(stream.read(1))
    if opcode is None:
        raise Refusal(_UNDECODABLE)
    if opcode.name not in _KNOWN:
        raise Refusal(f"uses the pickle instruction {opcode.name}, which torch.save does not write; nothing was run")
    if opcode.arg is None:
        return opcode.name, None
    try:
        return opcode.name, opcode.arg.reader(stream)
    except ValueError:
        raise Refusal(_UNDECODABLE) from None


def no_persistent_ids(_: tuple[object, ...]) -> object:
    """Refuse every persistent id."""
    raise Refusal("mentions outside data where none belongs")


class _Machine:
    """The stack, the stacks below the marks, and the memo of one pickle."""

    def __init__(self, persistent: Callable[[tuple[object, ...]], object] | None, tolerant: bool) -> None:
        self._tolerant = tolerant
        self._persistent = persistent or no_persistent_ids
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self.foreign: Refusal | None = None
        self.names: dict[Name, None] = {}

    def step(self, opcode: str, argument: object) -> None:
        """Carry out one instruction of those in _KNOWN."""
        if opcode in _PUSH_ARGUMENT:
            self._stack.append(argument)
        elif opcode in _PUSH_NEW:
            self._stack.append(_PUSH_NEW[opcode]())
        else:
            _HANDLERS[opcode](self, argument)

    def result(self) -> object:
        """The one value that is left at the end."""
        if len(self._stack) != 1 or self._below:
            raise Refusal("is damaged (its pickle leaves more or less than one object)")
        return self._stack[0]

    def pop(self) -> object:
        """Take the top of the stack."""
        if not self._stack:
            raise Refusal("is damaged (its pickle takes more than it put)")
        return self._stack.pop()

    def top(self) -> object:
        """Look at the top of the stack."""
        value = self.pop()
        self._stack.append(value)
        return value

    def to_mark(self) -> list[object]:
        """Take everything above the last mark."""
        if not self._below:
            raise Refusal("is damaged (its pickle lacks a mark)")
        items, self._stack = self._stack, self._below.pop()
        return items

    def proto(self, argument: object) -> None:
        if argument != 2:
            raise Refusal(f"has pickle protocol {quote(argument)}; save it with torch.save's default protocol 2")

    def mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def long1(self, argument: object) -> None:
        # Longer integers than the legacy format's 80-bit magic number have no use and cannot be printed.
        if not isinstance(argument, int) or argument.bit_length() > 128:
            raise Refusal("holds an absurdly long integer")
        self._stack.append(argument)

    def tuple1(self, _: object) -> None:
        self._stack.append((self.pop(),))

    def tuple2(self, _: object) -> None:
        second, first = self.pop(), self.pop()
        self._stack.append((first, second))

    def tuple3(self, _: object) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self._stack.append((first, second, third))

    def tuple_to_mark(self, _: object) -> None:
        items = self.to_mark()
        self._stack.append(tuple(items))

    def put(self, argument: object) -> None:
        self._memo[_index(argument)] = self.top()

    def get(self, argument: object) -> None:
        if argument not in self._memo:
            raise Refusal("is damaged (its pickle refers to what it never stored)")
        self._stack.append(self._memo[_index(argument)])

    def append(self, _: object) -> None:
        self._extend([self.pop()])

    def appends(self, _: object) -> None:
        self._extend(self.to_mark())

    def _extend(self, items: list[object]) -> None:
        target = self.top()
        if _is_bystander(target):
            return
        if not isinstance(target, list):
            raise Refusal("is damaged (its pickle appends to something that is not a list)")
        target.extend(items)

    def setitem(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def setitems(self, _: object) -> None:
        self._update(self.to_mark())

    def _update(self, items: list[object]) -> None:
        target = self.top()
        if _is_bystander(target):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise Refusal("is damaged (its pickle fills something that is not a dictionary)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a deeply nested tuple would overflow the interpreter's stack.
            if type(key) not in (str, int):
                self._note(Refusal("has a dictionary whose keys are neither text nor numbers; save its state_dict()"))
                continue
            if key in target:
                raise Refusal(f"sets {quote(key)} twice")
            target[key] = value

    def name(self, argument: object) -> None:
        symbol = any_name(argument) if self._tolerant else parse_name(argument)
        if not is_stock(symbol):
            self._note(not_stock(symbol))
        self.names[symbol] = None
        self._stack.append(symbol)

    def persistent_id(self, _: object) -> None:
        value = self.pop()
        if not isinstance(value, tuple) or not value:
            raise Refusal("mentions outside data in an unknown way")
        self._stack.append(self._persistent(value))

    def new_object(self, _: object) -> None:
        arguments, kind = self.pop(), self.pop()
        fits = isinstance(kind, Name) and (not is_module_class(kind) or arguments == ())
        if not isinstance(kind, Name) or not (fits or self._tolerant):
            raise Refusal("creates an object that is not a plain module")
        self._stack.append(Instance(kind))

    def reduce(self, _: object) -> None:
        arguments, function = self.pop(), self.pop()
        known = isinstance(function, Name) and function in CONSTRUCTORS
        if isinstance(function, Name) and not known and (self._tolerant or is_value_maker(function)):
            self._stack.append(Instance(function))
            return
        if not isinstance(function, Name) or not known:
            what = quote(function) if isinstance(function, Name) else "something that is not a function"
            raise ForeignCode(f"asks to call {what}; nothing of it was run; {STATE_DICT_MEND}")
        if not isinstance(arguments, tuple):
            raise Refusal(f"is damaged (arguments of {function})")
        self._stack.append(CONSTRUCTORS[function](arguments))

    def build(self, _: object) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Instance) and target.state is None and isinstance(state, dict):
            target.state = state
        elif _is_bystander(target):
            return
        # A state dict's version numbers; nothing else may be hung on a dictionary.
        elif not (isinstance(target, dict) and isinstance(state, dict) and state.keys() == {"_metadata"}):
            if self._tolerant:
                return
            raise Refusal("sets attributes of something that is not a new module")

    def _note(self, foreign: Refusal) -> None:
        self.foreign = self.foreign or foreign


def _is_bystander(target: object) -> bool:
    """Whether it is an object that stands beside weights, whose content is of no interest."""
    return isinstance(target, Instance) and not is_module_class(target.kind)


def _index(argument: object) -> int:
    if not isinstance(argument, int):
        raise Refusal("is damaged (memo index)")
    return argument


_PUSH_ARGUMENT = frozenset({"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE"})

_PUSH_NEW: Mapping[str, Callable[[], object]] = MappingProxyType(
    {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_TUPLE": tuple,
        "EMPTY_LIST": list,
        "EMPTY_DICT": dict,
    }
)

_HANDLERS: Mapping[str, Callable[[_Machine, object], None]] = MappingProxyType(
    {
        "PROTO": _Machine.proto,
        "MARK": _Machine.mark,
        "LONG1": _Machine.long1,
        "TUPLE1": _Machine.tuple1,
        "TUPLE2": _Machine.tuple2,
        "TUPLE3": _Machine.tuple3,
        "TUPLE": _Machine.tuple_to_mark,
        "BINPUT": _Machine.put,
        "LONG_BINPUT": _Machine.put,
        "BINGET": _Machine.get,
        "LONG_BINGET": _Machine.get,
        "APPEND": _Machine.append,
        "APPENDS": _Machine.appends,
        "SETITEM": _Machine.setitem,
        "SETITEMS": _Machine.setitems,
        "GLOBAL": _Machine.name,
        "BINPERSID": _Machine.persistent_id,
        "NEWOBJ": _Machine.new_object,
        "REDUCE": _Machine.reduce,
        "BUILD": _Machine.build,
    }
)

_KNOWN = frozenset({"STOP", *_PUSH_ARGUMENT, *_PUSH_NEW, *_HANDLERS})
