"""What may stand beside the weights of a checkpoint: settings, figures, an optimizer's state.

A checkpoint is a dictionary of which only the weights are wanted. What else is in it stays an inert symbol that nobody
looks at, so it decides nothing, and need not be understood. Names that lead to running something are refused all the
same, wherever they stand: a file that mentions them is no mere checkpoint.
"""

from __future__ import annotations

import sys

from .refusal import STATE_DICT_MEND, ForeignCode, OtherClass, quote
from .symbols import Name

_VALUES = {
    "_codecs": ("encode",),
    "argparse": ("Namespace",),
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "pathlib": ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "types": ("SimpleNamespace",),
    "typing": ("Any", "Dict", "List", "Optional", "Tuple", "Union"),
    "uuid": ("UUID",),
    "builtins": (
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range"),
        *("set", "slice", "str", "tuple"),
    ),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.random.bit_generator": ("__pyx_unpickle_SeedSequence",),
    "numpy.random._pickle": ("__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"),
    "torch": ("Size",),
}
_OTHER_HOMES = {
    "__builtin__": "builtins",
    "pathlib._local": "pathlib",
    "numpy._core.multiarray": "numpy.core.multiarray",
}
"""Modules that have the same things under another name, in another version of Python or of the library."""
_HOMES = {**{home: home for home in _VALUES}, **_OTHER_HOMES}
_CALLED = frozenset(Name(home, name) for home, own in _HOMES.items() for name in _VALUES[own])
"""Makers of plain values: a checkpoint may call them, and gets an inert symbol."""

_DTYPES = frozenset(
    {
        *("bfloat16", "bool", "complex64", "float", "float16", "float32", "float64", "half"),
        *("int8", "int16", "int32", "int64", "long", "uint8"),
    }
)
_LIBRARIES = ("torch", "torchvision", "numpy")
_CLASS_HOMES = (
    *("torch.amp.", "torch.cuda.amp.", "torch.nn.", "torch.optim.", "torchvision.transforms.", "numpy.random."),
)
"""Where, in packages that are full of functions which run things, classes are that programs keep with their weights."""
_NO_PACKAGES = frozenset({*sys.stdlib_module_names, "__builtin__", "copy_reg", "commands", "urllib2"})
"""Modules of Python itself, under old names too; of these only what is listed above is a mere value."""


def is_plain(symbol: Name) -> bool:
    """Whether a name is a plain one: a dotted one of newer pickles leads anywhere."""
    return symbol.name.isascii() and symbol.name.isidentifier() and symbol.module.isascii()


def is_value_maker(symbol: Name) -> bool:
    """Whether a call of it makes a plain value, and is left as an inert symbol."""
    return symbol in _CALLED


def may_stand_beside(symbol: Name) -> bool:
    """Whether a checkpoint may mention a name: a plain value's, or a class of the program that saved it."""
    if not is_plain(symbol) or not all(part.isidentifier() for part in symbol.module.split(".")):
        return False
    package = symbol.module.partition(".")[0]
    if is_value_maker(symbol) or symbol.module == "__main__" or (symbol.module == "torch" and symbol.name in _DTYPES):
        return True
    if package in _LIBRARIES:
        return symbol.module.startswith(_CLASS_HOMES)
    return package not in _NO_PACKAGES


def never_needed(symbol: Name) -> ForeignCode:
    """Why a file that mentions any other name is refused, whatever it is."""
    mend = f"; {STATE_DICT_MEND}" if symbol.module.partition(".")[0] in _LIBRARIES else ""
    return ForeignCode(
        f"asks for {quote(symbol)}, which no model of a known architecture needs; nothing of it was run{mend}"
    )


def not_stock(symbol: Name) -> OtherClass:
    """Why a whole module that mentions such a name is not loaded."""
    what = f"asks for {quote(symbol)}, which no stock network needs; nothing of it was run"
    if symbol.module == "__main__":
        return OtherClass(
            f"{what}; move that class into a module of its own and name what builds it, --architecture "
            "module:factory, or save the state_dict() of a stock network"
        )
    return OtherClass(
        f"{what}; name the code that builds it, --architecture package.module:factory, save a stock network alone or "
        "its state_dict(), or, where you know its maker, give --trust-pickle, which runs the file"
    )
