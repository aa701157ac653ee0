"""Prove that a pickled model has the stock network's structure, so that its weights mean what they would there.

Weights alone do not show a changed stride, a swapped activation, a hook or an attribute that hides a method. A file
that differs from the stock network in any of them describes another function, and a report on the stock one would be
wrong.
"""

from __future__ import annotations

import enum

from torch import nn

from .constructors import OLD_BACKEND
from .refusal import ForeignCode, quote
from .stock_changes import DESCRIPTIVE, DROPPED, LATER, LATER_BY_CLASS, LATER_MODULES, RENAMED
from .structure import members
from .symbols import Choice, Instance, Name, SetOf

_PARALLEL = frozenset({"device_ids", "output_device", "src_device_obj"})
"""What DataParallel adds to a module, apart from ``dim``; where it runs decides nothing."""

_GROUPS = ("_parameters", "_buffers", "_modules")


def attest(pickled: Instance, built: nn.Module, where: str = "") -> None:
    """Compare a file's module tree with the stock one, class by class and attribute by attribute.

    Raises Refusal with the first difference: another class, order or value, hooks, training mode, or an attribute
    that the stock module does not have. Weights are compared elsewhere.
    """
    place = f"its layer {quote(where)}" if where else "its root module"
    if _dotted(type(built)) not in (str(pickled.kind), RENAMED.get(str(pickled.kind))):
        raise _unlike(place, f"is a {quote(pickled.kind)}, not a {_dotted(type(built))}")
    state = pickled.state or {}
    if state.get("training") is not False:
        raise ForeignCode(f"was saved with {place} in training mode; call model.eval() before torch.save")
    _compare_attributes(state, built, place)
    for group in _GROUPS:
        _compare_members(pickled, built, group, place)
    for name, child in members(pickled, "_modules").items():
        if isinstance(child, Instance):
            attest(child, built.get_submodule(name), f"{where}.{name}" if where else name)


def attest_wrapper(wrapper: Instance) -> None:
    """See that a DataParallel does nothing but call the model inside: no hooks, no other attributes; else Refusal."""
    state = {name: value for name, value in (wrapper.state or {}).items() if name not in _PARALLEL}
    if state.pop("dim", 0) != 0 or members(wrapper, "_parameters") or members(wrapper, "_buffers"):
        raise _unlike("its DataParallel", "splits or holds what no stock one does")
    state["training"] = True  # decides nothing in a module that only calls another
    _compare_attributes(state, nn.Module(), "its DataParallel")


def _compare_attributes(state: dict[object, object], built: nn.Module, place: str) -> None:
    kind, expected = type(built).__name__, vars(built)
    ignored = {*_GROUPS, *DROPPED.get(kind, ()), *DESCRIPTIVE.get(kind, ())}
    for name, value in state.items():
        if name in ignored or (name == "_backend" and value == OLD_BACKEND):
            continue
        if name not in expected:
            raise _unlike(place, f"has a strange attribute {quote(name)}")
        if not _same(value, expected[str(name)]):
            wanted = expected[str(name)]
            raise ForeignCode(
                f"is not the stock network: {place} has {name} = {_brief(value)} instead of {wanted!r:.60}"
            )
    lacking = expected.keys() - state.keys() - LATER - LATER_BY_CLASS.get(kind, frozenset()) - ignored
    if lacking:
        raise _unlike(place, f"lacks {', '.join(sorted(lacking))}")


def _compare_members(pickled: Instance, built: nn.Module, group: str, place: str) -> None:
    """Same names in the same order, which decides what a Sequential does, and None in the same places."""
    found = [(name, value is None) for name, value in members(pickled, group).items()]
    expected = [(name, value is None) for name, value in vars(built)[group].items()]
    if found != expected and group == "_modules":
        later = LATER_MODULES.get(type(built).__name__, ())
        expected = [entry for entry in expected if entry[0] not in later]
    if found != expected:
        raise ForeignCode(
            f"is not the stock network: {place} has other {group.strip('_')} than a {_dotted(type(built))}"
        )


def _same(found: object, expected: object) -> bool:
    # The recursion follows the stock module's own values, so a file cannot make it deep.
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return False
        return all(_same(found[key], value) for key, value in expected.items())
    if isinstance(expected, (tuple, list)):
        if type(found) is not type(expected) or len(found) != len(expected):  # type: ignore[arg-type]
            return False
        return all(map(_same, found, expected))  # type: ignore[call-overload]
    return _same_leaf(found, expected)


def _same_leaf(found: object, expected: object) -> bool:
    if isinstance(expected, type):
        return isinstance(found, Name) and str(found) == _dotted(expected)
    if isinstance(expected, enum.Enum):
        return found == Choice(Name(type(expected).__module__, type(expected).__qualname__), expected.value)
    if isinstance(expected, set):
        return isinstance(found, SetOf) and not found.items and not expected
    if type(expected) is float and type(found) is int:
        # Older versions wrote densenet's drop_rate as 0.
        return found == expected
    plain = isinstance(expected, (bool, int, float, str, type(None)))
    return plain and type(found) is type(expected) and found == expected


def _unlike(place: str, how: str) -> ForeignCode:
    return ForeignCode(f"is not the stock network: {place} {how}")


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _brief(value: object) -> str:
    """A file's value for a message, without walking through anything nested."""
    if isinstance(value, (bool, int, float, str, Name, type(None))):
        return quote(value)
    if isinstance(value, tuple) and len(value) <= 8 and all(type(item) in (int, float, bool) for item in value):
        return quote(value)
    return f"a {type(value).__name__}"
