"""Scan image classifiers for backdoors, harden the flagged ones with MOTH, scan again, and say what became of them.

    import trojai_moth as tm

    model = tm.open_model("round4/id-00000001", data="composed")
    result = tm.scan(model, "neural-cleanse")
    hard = tm.harden(model, "moth")
    tm.judge(model, result)
    tm.distances(hard, pairs=30).plot()
    tm.rescan("round4", out="run")

Tensor names are the same everywhere: ``x`` images (N, C, H, W) in [0, 1], ``y`` labels (N,), ``mask`` (1, H, W) in
[0, 1], ``pattern`` (C, H, W) in [0, 1], ``logits`` (N, K). A trigger's ``size`` is the L1 norm of its mask in pixels.
What is not in ``__all__`` is private.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> where it is. A module is imported when one of its names is first asked for, since most of them need
# torch, which takes seconds; type checkers read the imports below instead. A test compares the two.
_PUBLIC: Mapping[str, str] = MappingProxyType(
    {
        "Candidate": "scanners.result:Candidate",
        "Field": "core.records:Field",
        "Hardener": "hardeners.base:Hardener",
        "Model": "rounds.model:Model",
        "MothError": "core.errors:MothError",
        "ScanResult": "scanners.result:ScanResult",
        "Scanner": "scanners.base:Scanner",
        "Trigger": "triggers.trigger:Trigger",
        "distances": "rounds.distances:distances",
        "generator": "core.seeding:generator",
        "harden": "hardeners.harden:harden",
        "inspect_model": "loading:inspect_model",
        "judge": "verdict.judge_model:judge_model",
        "load_weights": "hardeners.harden:load_hardened",
        "open_model": "rounds.model:open_model",
        "read_round": "rounds.reading:read_round",
        "read_run": "eval.results:read_run",
        "record": "core.records:record",
        "rescan": "eval.rescan:rescan",
        "save_weights": "hardeners.weights:save_weights",
        "scan": "scanners.scan:scan",
        "wrap": "rounds.model:wrap",
    }
)

if TYPE_CHECKING:
    from .core.errors import MothError
    from .core.records import Field, record
    from .core.seeding import generator
    from .eval.rescan import rescan
    from .eval.results import read_run
    from .hardeners.base import Hardener
    from .hardeners.harden import harden
    from .hardeners.harden import load_hardened as load_weights
    from .hardeners.weights import save_weights
    from .loading import inspect_model
    from .rounds.distances import distances
    from .rounds.model import Model, open_model, wrap
    from .rounds.reading import read_round
    from .scanners.base import Scanner
    from .scanners.result import Candidate, ScanResult
    from .scanners.scan import scan
    from .triggers.trigger import Trigger
    from .verdict.judge_model import judge_model as judge

__all__ = [
    "Candidate",
    "Field",
    "Hardener",
    "Model",
    "MothError",
    "ScanResult",
    "Scanner",
    "Trigger",
    "__version__",
    "distances",
    "generator",
    "harden",
    "inspect_model",
    "judge",
    "load_weights",
    "open_model",
    "read_round",
    "read_run",
    "record",
    "rescan",
    "save_weights",
    "scan",
    "wrap",
]


# A type checker would take this for a promise that every name exists.
if not TYPE_CHECKING:

    def __getattr__(name):  # noqa: ANN001, ANN202
        """A public name, from its module."""
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, own = _PUBLIC[name].partition(":")
        value = getattr(import_module(f".{module}", __name__), own)
        globals()[name] = value  # so that this is asked once
        return value

    def __dir__():  # noqa: ANN202
        return sorted({*globals(), *_PUBLIC})
