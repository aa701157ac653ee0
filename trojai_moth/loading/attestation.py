"""Prove that a pickled model has the stock network's structure, so that its weights mean what they would there.

Weights alone do not show a changed stride, a swapped activation, a hook or an attribute that hides a method. A file
that differs from the stock network in any of them describes another function, and a report on the stock one would be
wrong.
"""

from __future__ import annotations

from types import MappingProxyType

from torch import nn

from .refusal import Refusal, quote
from .structure import members
from .symbols import Instance, Name, SetOf

_RENAMED = MappingProxyType(
    {
        "torchvision.models.mobilenet.MobileNetV2": "torchvision.models.mobilenetv2.MobileNetV2",
        "torchvision.models.mobilenet.InvertedResidual": "torchvision.models.mobilenetv2.InvertedResidual",
        "torchvision.models.mobilenet.ConvBNReLU": "torchvision.ops.misc.Conv2dNormActivation",
    }
)
"""Classes of torchvision 0.5 to 0.8 that have another name today."""

_LATER = frozenset(
    {
        "_backward_pre_hooks",
        "_forward_hooks_always_called",
        "_forward_hooks_with_kwargs",
        "_forward_pre_hooks_with_kwargs",
        "_is_full_backward_hook",
        "_load_state_dict_post_hooks",
        "_non_persistent_buffers_set",
        "_state_dict_pre_hooks",
    }
)
"""Attributes that torch 1.4 to 1.7 did not give to its modules yet."""

_LATER_BY_CLASS = MappingProxyType(
    {
        # Read only when the padding mode is not "zeros".
        "Conv2d": frozenset({"_reversed_padding_repeated_twice"}),
        # Descriptive only.
        "Conv2dNormActivation": frozenset({"out_channels"}),
        "InvertedResidual": frozenset({"_is_cn", "out_channels"}),
        # None in networks without auxiliary classifiers, then simply absent.
        "GoogLeNet": frozenset({"aux1", "aux2"}),
        "Inception3": frozenset({"AuxLogits"}),
    }
)

_LATER_MODULES = MappingProxyType({"Inception3": ("maxpool1", "maxpool2", "avgpool", "dropout")})
"""Layers without weights that older versions called as functions."""

_DROPPED = MappingProxyType({"Conv2d": frozenset({"_padding_repeated_twice"})})
"""Attributes that only older versions have; torch 1.5's name of _reversed_padding_repeated_twice."""

_GROUPS = ("_parameters", "_buffers", "_modules")


def attest(pickled: Instance, built: nn.Module, where: str = "") -> None:
    """Compare a file's module tree with the stock one, class by class and attribute by attribute.

    Raises Refusal with the first difference: another class, order or value, hooks, training mode, or an attribute
    that the stock module does not have. Weights are compared elsewhere.
    """
    place = f"its layer {quote(where)}" if where else "its root module"
    if _RENAMED.get(str(pickled.kind), str(pickled.kind)) != _dotted(type(built)):
        raise Refusal(f"is not the stock network: {place} is a {quote(pickled.kind)}, not a {_dotted(type(built))}")
    state = pickled.state or {}
    if state.get("training") is not False:
        raise Refusal(f"was saved with {place} in training mode; call model.eval() before torch.save")
    _compare_attributes(state, built, place)
    for group in _GROUPS:
        _compare_members(pickled, built, group, place)
    for name, child in members(pickled, "_modules").items():
        if isinstance(child, Instance):
            attest(child, built.get_submodule(name), f"{where}.{name}" if where else name)


def _compare_attributes(state: dict[object, object], built: nn.Module, place: str) -> None:
    kind, expected = type(built).__name__, vars(built)
    for name, value in state.items():
        if name in _GROUPS or name in _DROPPED.get(kind, ()):
            continue
        if name not in expected:
            raise Refusal(f"is not the stock network: {place} has a strange attribute {quote(name)}")
        if not _same(value, expected[str(name)]):
            wanted = expected[str(name)]
            raise Refusal(f"is not the stock network: {place} has {name} = {_brief(value)} instead of {wanted!r:.60}")
    lacking = expected.keys() - state.keys() - _LATER - _LATER_BY_CLASS.get(kind, frozenset())
    if lacking:
        raise Refusal(f"is not the stock network: {place} lacks {', '.join(sorted(lacking))}")


def _compare_members(pickled: Instance, built: nn.Module, group: str, place: str) -> None:
    """Same names in the same order, which decides what a Sequential does, and None in the same places."""
    found = [(name, value is None) for name, value in members(pickled, group).items()]
    expected = [(name, value is None) for name, value in vars(built)[group].items()]
    if found != expected and group == "_modules":
        later = _LATER_MODULES.get(type(built).__name__, ())
        expected = [entry for entry in expected if entry[0] not in later]
    if found != expected:
        raise Refusal(f"is not the stock network: {place} has other {group.strip('_')} than a {_dotted(type(built))}")


def _same(found: object, expected: object) -> bool:
    # The recursion follows the stock module's own values, so a file can not make it deep.
    if isinstance(expected, type):
        return isinstance(found, Name) and str(found) == _dotted(expected)
    if isinstance(expected, set):
        return isinstance(found, SetOf) and not found.items and not expected
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return False
        return all(_same(found[key], value) for key, value in expected.items())
    if type(found) is not type(expected):
        return False
    if isinstance(expected, (tuple, list)):
        assert isinstance(found, (tuple, list))
        return len(found) == len(expected) and all(map(_same, found, expected))
    return isinstance(expected, (bool, int, float, str, type(None))) and found == expected


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _brief(value: object) -> str:
    """A file's value for a message, without walking through anything nested."""
    if isinstance(value, (bool, int, float, str, Name, type(None))):
        return quote(value)
    if isinstance(value, tuple) and len(value) <= 8 and all(type(item) in (int, float, bool) for item in value):
        return quote(value)
    return f"a {type(value).__name__}"
