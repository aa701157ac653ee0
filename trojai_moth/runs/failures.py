"""Why a model could not be examined, as one of a few kinds, and which of them are worth another try."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from ..core.device import is_out_of_memory
from ..core.errors import MissingDependencyError, MothError, PluginError, SettingsError, UnreadableModelError
from ..core.time_limit import TimeLimitExceeded

# unreadable: the model's own files; settings: what was asked for cannot be done with it; plugin: a scanner or hardener
# broke its contract; worker died: the process that was at it, again and again; error: anything nobody thought of.
FailureKind = Literal["unreadable", "out of memory", "out of time", "worker died", "plugin", "settings", "error"]

# How often a model is tried again in the same turn. A broken file stays broken and the same seed fails the same way,
# but half the batch may fit into memory. A worker that died is not listed: another process must take its model up.
RETRIES: Mapping[FailureKind, int] = MappingProxyType({"out of memory": 1})


class OutOfMemory(MothError):
    """A scan that ended for lack of memory and may be tried again with smaller batches."""


def kind_of(error: BaseException) -> FailureKind:
    """The kind of a failure that ended a model's turn."""
    if isinstance(error, PluginError):
        return {"time-out": "out of time", "out of memory": "out of memory"}.get(error.kind, "plugin")  # type: ignore[return-value]
    kinds: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], FailureKind], ...] = (
        (UnreadableModelError, "unreadable"),
        ((SettingsError, MissingDependencyError), "settings"),
        (OutOfMemory, "out of memory"),
        (TimeLimitExceeded, "out of time"),
    )
    for classes, kind in kinds:
        if isinstance(error, classes):
            return kind
    return "out of memory" if is_out_of_memory(error) else "error"
