"""Loading of untrusted model files: nothing that a file contains is ever run.

What needs torch is imported when it is asked for, so that a file can be looked at without it.
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .inspection import Inspection, inspect_model
from .own_code import allowing_architectures

if TYPE_CHECKING:
    from .architectures import ARCHITECTURES, build_architecture
    from .load import LoadedModel, load_model

__all__ = [
    "ARCHITECTURES",
    "Inspection",
    "LoadedModel",
    "allowing_architectures",
    "build_architecture",
    "inspect_model",
    "load_model",
]

_HOMES = MappingProxyType(
    {
        **{"ARCHITECTURES": "architectures", "build_architecture": "architectures"},
        **{"LoadedModel": "load", "load_model": "load"},
    }
)


def __getattr__(name: str) -> Any:
    """What is asked for, from the module where it is."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
