"""Which names a model file may mention, and the few constructors among them, written out to return inert symbols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .bystanders import is_plain, may_stand_beside, never_needed
from .refusal import Refusal
from .symbols import STORAGE_TYPES, Choice, Device, Name, SetOf, TensorClaim, tensor_claim

MODULE_HOMES = ("torch.nn.modules.", "torchvision.models.", "torchvision.ops.", "timm.layers.", "timm.models.")
"""Where the classes of the known architectures live; they stay names all the same."""
DATA_PARALLEL = Name("torch.nn.parallel.data_parallel", "DataParallel")
_FORMAT = Name("timm.layers.format", "Format")
OLD_BACKEND = Name("torch.nn.backends.thnn", "_get_thnn_function_backend")
"""What every module of torch 1.2 has as its attribute ``_backend``; it decides nothing."""


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


def _old_tensor(arguments: tuple[object, ...]) -> object:
    if len(arguments) != 4:
        raise Refusal("describes a tensor in an impossible way")
    return tensor_claim(*arguments)


def _parameter(arguments: tuple[object, ...]) -> object:
    if len(arguments) != 3 or not isinstance(arguments[0], TensorClaim) or arguments[2] != {}:
        raise Refusal("has a parameter with hooks or extra state")
    return arguments[0]


def _device(arguments: tuple[object, ...]) -> object:
    if not arguments or not isinstance(arguments[0], str):
        raise Refusal("names a device in a way that torch.save does not")
    return Device(arguments[0])


def _format(arguments: tuple[object, ...]) -> object:
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise Refusal("names an image format in a way that timm does not")
    return Choice(_FORMAT, arguments[0])


def _backend(arguments: tuple[object, ...]) -> object:
    if arguments:
        raise Refusal("asks for torch's old backend in a way that torch.save does not")
    return OLD_BACKEND


CONSTRUCTORS: Mapping[Name, Callable[[tuple[object, ...]], object]] = MappingProxyType(
    {
        Name("collections", "OrderedDict"): _ordered_dict,
        Name("__builtin__", "set"): _set,
        Name("builtins", "set"): _set,
        Name("torch._utils", "_rebuild_tensor"): _old_tensor,  # torch before 0.4
        Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
        Name("torch._utils", "_rebuild_parameter"): _parameter,
        Name("torch", "device"): _device,
        OLD_BACKEND: _backend,
        _FORMAT: _format,
    }
)
"""From a name to a function of the arguments that the file passes."""


def parse_name(argument: object) -> Name:
    """Turn the argument of a GLOBAL into a name that a model file may mention; raises Refusal."""
    symbol = any_name(argument)
    if not is_stock(symbol) and not may_stand_beside(symbol):
        raise never_needed(symbol)
    return symbol


def any_name(argument: object) -> Name:
    """Turn the argument of a GLOBAL into a name, whatever it is."""
    module, _, name = str(argument).partition(" ")
    return Name(module, name)


def is_module_class(symbol: Name) -> bool:
    """Whether a name is where the classes of known networks live."""
    return symbol.module.startswith(MODULE_HOMES) or symbol == DATA_PARALLEL


def is_stock(symbol: Name) -> bool:
    """Whether a whole module of a known architecture may mention a name."""
    return is_plain(symbol) and (symbol in CONSTRUCTORS or _is_storage(symbol) or is_module_class(symbol))


def _is_storage(symbol: Name) -> bool:
    return symbol.module == "torch" and symbol.name in STORAGE_TYPES
