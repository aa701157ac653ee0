"""Scan image classifiers for backdoors, harden the flagged ones with MOTH, scan again, and say what became of them.

Tensor names are the same everywhere: ``x`` images (N, C, H, W) in [0, 1], ``y`` labels (N,), ``mask`` (1, H, W) in
[0, 1], ``pattern`` (C, H, W) in [0, 1], ``logits`` (N, K). A trigger's ``size`` is the L1 norm of its mask in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> module that has it. A module is imported when one of its names is first asked for, since most of them
# need torch, which takes seconds; type checkers read the imports below instead. A test compares the two.
_PUBLIC: Mapping[str, str] = MappingProxyType(
    {
        "Candidate": "scanner",
        "Field": "records",
        "Hardener": "hardener",
        "MothError": "errors",
        "Scanner": "scanner",
        "Trigger": "trigger",
        "generator": "seeding",
        "inspect_model": "loading",
        "load_weights": "weights",
        "read_round": "rounds",
        "record": "records",
        "save_weights": "weights",
    }
)

if TYPE_CHECKING:
    from .core.errors import MothError
    from .core.records import Field, record
    from .core.seeding import generator
    from .hardeners.base import Hardener
    from .hardeners.weights import load_weights, save_weights
    from .loading import inspect_model
    from .rounds.reading import read_round
    from .scanners.base import Scanner
    from .scanners.result import Candidate
    from .triggers.trigger import Trigger

__all__ = [
    "Candidate",
    "Field",
    "Hardener",
    "MothError",
    "Scanner",
    "Trigger",
    "__version__",
    "generator",
    "inspect_model",
    "load_weights",
    "read_round",
    "record",
    "save_weights",
]


# A type checker would take this for a promise that every name exists.
if not TYPE_CHECKING:

    def __getattr__(name):  # noqa: ANN001, ANN202
        """A public name, from its module."""
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
        globals()[name] = value  # so that this is asked once
        return value

    def __dir__():  # noqa: ANN202
        return sorted({*globals(), *_PUBLIC})
