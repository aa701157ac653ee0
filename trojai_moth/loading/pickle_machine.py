"""A reader of the pickles that torch.save writes, which builds inert symbols and can not call anything.

Only the instructions of pickle protocol 2 that torch.save itself produces are known. Names stay names, objects stay
:class:`~trojai_moth.loading.symbols.Instance`, and the few constructors in ``_CONSTRUCTORS`` are written out here.
Time and memory are linear in the length of the pickle: nothing is copied that the file can mention twice.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

from .refusal import Refusal, quote
from .symbols import STORAGE_TYPES, Instance, Name, SetOf, TensorClaim, tensor_claim

MAX_PICKLE_BYTES = 32 << 20
"""The largest stock model's pickle has 0.3 MB, with embedded class sources 0.5 MB."""
MAX_OPERATIONS = 500_000
"""The largest stock model needs about 120,000."""

_MODULE_HOMES = ("torch.nn.modules.", "torchvision.models.", "torchvision.ops.")


def run_pickle(stream: BytesIO, persistent: Callable[[tuple[object, ...]], object] | None = None) -> object:
    """Read one pickle from the stream's position and return its symbols; the stream ends up behind it.

    ``persistent`` turns a persistent id, a non-empty tuple, into a symbol; None refuses all of them.
    Raises Refusal for anything that is damaged, unknown or too large.
    """
    machine = _Machine(persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_OPERATIONS:
                raise Refusal(f"has a pickle of more than {MAX_OPERATIONS} instructions")
            machine.step(opcode.name, argument)
    except ValueError:
        raise Refusal("is cut short or damaged (its pickle can not be decoded)") from None
    return machine.result()


def no_persistent_ids(_: tuple[object, ...]) -> object:
    """Refuse every persistent id."""
    raise Refusal("mentions outside data where none belongs")


def parse_name(argument: object) -> Name:
    """Turn the argument of a GLOBAL into a name that a model file may mention; raises Refusal."""
    module, _, name = str(argument).partition(" ")
    symbol = Name(module, name)
    plain = name.isascii() and name.isidentifier() and module.isascii()
    if plain and (symbol in _CONSTRUCTORS or _is_storage(symbol) or module.startswith(_MODULE_HOMES)):
        return symbol
    raise Refusal(f"asks for {quote(symbol)}, which no model of a known architecture needs; nothing of it was run")


def _is_storage(symbol: Name) -> bool:
    return symbol.module == "torch" and symbol.name in STORAGE_TYPES


class _Machine:
    """The stack, the stacks below the marks, and the memo of one pickle."""

    def __init__(self, persistent: Callable[[tuple[object, ...]], object] | None) -> None:
        self._persistent = persistent or no_persistent_ids
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[int, object] = {}

    def step(self, opcode: str, argument: object) -> None:
        """Carry out one instruction."""
        if opcode in _PUSH_ARGUMENT:
            self._stack.append(argument)
        elif opcode in _PUSH_NEW:
            self._stack.append(_PUSH_NEW[opcode]())
        elif opcode in _HANDLERS:
            _HANDLERS[opcode](self, argument)
        else:
            raise Refusal(f"uses the pickle instruction {opcode}, which torch.save does not write; nothing was run")

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

    def stop(self, _: object) -> None:
        """The decoder ends here by itself."""

    def proto(self, argument: object) -> None:
        if argument != 2:
            raise Refusal(f"has pickle protocol {quote(argument)}; save it with torch.save's default protocol 2")

    def mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def long1(self, argument: object) -> None:
        # Longer integers than the legacy format's 80-bit magic number have no use and can not be printed.
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
        if not isinstance(target, dict) or len(items) % 2:
            raise Refusal("is damaged (its pickle fills something that is not a dictionary)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a deeply nested tuple would overflow the interpreter's stack.
            if type(key) not in (str, int):
                raise Refusal("has a dictionary whose keys are neither text nor numbers")
            if key in target:
                raise Refusal(f"sets {quote(key)} twice")
            target[key] = value

    def name(self, argument: object) -> None:
        self._stack.append(parse_name(argument))

    def persistent_id(self, _: object) -> None:
        value = self.pop()
        if not isinstance(value, tuple) or not value:
            raise Refusal("mentions outside data in an unknown way")
        self._stack.append(self._persistent(value))

    def new_object(self, _: object) -> None:
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, Name) or not kind.module.startswith(_MODULE_HOMES) or arguments != ():
            raise Refusal("creates an object that is not a plain module")
        self._stack.append(Instance(kind))

    def reduce(self, _: object) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or function not in _CONSTRUCTORS:
            what = quote(function) if isinstance(function, Name) else "something that is not a function"
            raise Refusal(f"asks to call {what}; nothing of it was run")
        if not isinstance(arguments, tuple):
            raise Refusal(f"is damaged (arguments of {function})")
        self._stack.append(_CONSTRUCTORS[function](arguments))

    def build(self, _: object) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Instance) and target.state is None and isinstance(state, dict):
            target.state = state
        # A state dict's version numbers; nothing else may be hung on a dictionary.
        elif not (isinstance(target, dict) and isinstance(state, dict) and len(state) == 1 and "_metadata" in state):
            raise Refusal("sets attributes of something that is not a new module")


def _index(argument: object) -> int:
    if not isinstance(argument, int):
        raise Refusal("is damaged (memo index)")
    return argument


def _ordered_dict(arguments: tuple[object, ...]) -> object:
    if arguments:
        raise Refusal("fills an OrderedDict in a way that torch.save does not")
    return {}


def _set(arguments: tuple[object, ...]) -> object:
    if len(arguments) != 1 or not isinstance(arguments[0], list):
        raise Refusal("makes a set in a way that torch.save does not")
    return SetOf(arguments[0])


def _tensor(arguments: tuple[object, ...]) -> object:
    if len(arguments) != 6 or arguments[5] != {}:
        raise Refusal("has a tensor with hooks or extra state")
    return tensor_claim(*arguments[:4])


def _parameter(arguments: tuple[object, ...]) -> object:
    if len(arguments) != 3 or not isinstance(arguments[0], TensorClaim) or arguments[2] != {}:
        raise Refusal("has a parameter with hooks or extra state")
    return replace(arguments[0], parameter=True)


_CONSTRUCTORS: dict[Name, Callable[[tuple[object, ...]], object]] = {
    Name("collections", "OrderedDict"): _ordered_dict,
    Name("__builtin__", "set"): _set,
    Name("builtins", "set"): _set,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
}

_PUSH_ARGUMENT = frozenset({"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE"})

_PUSH_NEW: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}

_HANDLERS: dict[str, Callable[[_Machine, object], None]] = {
    "PROTO": _Machine.proto,
    "STOP": _Machine.stop,
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
