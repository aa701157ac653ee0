"""Finding scanners and hardeners: classes that installed packages, this one among them, register as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from .errors import MothError, SettingsError
from .records import from_dict


def load_plugins(group: str, noun: str) -> dict[str, Any]:
    """Every class of an entry-point group by name; MothError for two of one name or for none at all."""
    found: dict[str, Any] = {}
    for entry in entry_points(group=group):
        if entry.name in found:
            raise MothError(f"two installed packages offer the {noun} {entry.name!r}; uninstall one of them")
        try:
            found[entry.name] = entry.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise MothError(f"the {noun} {entry.name!r} ({entry.value}) can not be imported: {reason}") from None
    if not found:
        raise MothError(f"no {noun} is installed; run: pip install -e . (they register when installed)")
    return found


def make_plugin(known: Mapping[str, Any], noun: str, name: str, options: Mapping[str, Any]) -> Any:
    """The plugin of this name with these settings; SettingsError lists the names or says which setting is wrong."""
    if name not in known:
        raise SettingsError(f"--{noun} {name}: not installed; choose from {', '.join(sorted(known))}")
    kind = known[name]
    return kind(from_dict(kind.settings_type, dict(options), source=f"{noun} {name}"))
