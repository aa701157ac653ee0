"""Finding scanners and hardeners: classes that installed packages, this one among them, register as entry points."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import MothError, SettingsError, one_line
from .records import from_dict


@dataclass(frozen=True)
class Plugin:
    """One registered class. ``kind`` scanner or hardener; ``value`` where it is, as ``module:class``.

    ``problem`` completes "the scanner 'x' ..." and says why it cannot be used; None for one that can.
    """

    kind: str
    name: str
    value: str
    distribution: str
    version: str
    loaded: Any = None
    problem: str | None = None
    double: bool = False

    @property
    def module(self) -> str:
        """The module that the class is imported from."""
        return self.value.partition(":")[0]

    @property
    def summary(self) -> str:
        """The first line of its docstring, or the name of its module."""
        text = (self.loaded.__doc__ or "").strip().splitlines() if self.loaded else []
        return text[0].strip() if text else self.module

    @property
    def complaint(self) -> str:
        """What is wrong with it, as a sentence."""
        return f"the {self.kind} {self.name!r} ({self.value}) {self.problem}"


class PluginTable(dict[str, Any]):
    """Usable classes by name, and beside them ``broken``: those that cannot be used."""

    def __init__(self, plugins: list[Plugin]) -> None:
        super().__init__({plugin.name: plugin.loaded for plugin in plugins if plugin.problem is None})
        self.broken = {plugin.name: plugin for plugin in plugins if plugin.problem is not None}


def find_plugins(group: str, noun: str, base: type) -> list[Plugin]:
    """Everything that is registered in an entry-point group, by name, whether it can be used or not."""
    found = [_load(entry, noun, base) for entry in entry_points(group=group)]
    times = Counter(plugin.name for plugin in found)
    return sorted(
        (_refused(plugin, found) if times[plugin.name] > 1 else plugin for plugin in found),
        key=lambda plugin: (plugin.name, plugin.distribution),
    )


def load_plugins(group: str, noun: str, base: type) -> PluginTable:
    """Every usable class of an entry-point group by name; MothError for two of one name or where none can be used."""
    plugins = find_plugins(group, noun, base)
    for plugin in plugins:
        if plugin.double:
            raise MothError(str(plugin.problem))
    table = PluginTable(plugins)
    if not plugins:
        raise MothError(f"no {noun} is installed; run: pip install -e . (they register when installed)")
    if not table:
        raise MothError("; ".join(plugin.complaint for plugin in plugins))
    return table


def make_plugin(known: Mapping[str, Any], noun: str, name: str, options: Mapping[str, Any]) -> Any:
    """The plugin of this name with these settings; SettingsError lists the names or says which setting is wrong."""
    if name not in known:
        broken = known.broken.get(name) if isinstance(known, PluginTable) else None
        if broken:
            raise SettingsError(f"--{noun} {name}: {broken.complaint}")
        raise SettingsError(f"--{noun} {name}: not installed; choose from {', '.join(sorted(known))}")
    kind = known[name]
    return kind(from_dict(kind.settings_type, dict(options), source=f"{noun} {name}"))


def _load(entry: EntryPoint, noun: str, base: type) -> Plugin:
    home = getattr(entry, "dist", None)
    plugin = Plugin(
        kind=noun,
        name=entry.name,
        value=entry.value,
        distribution=home.name if home else "unknown",
        version=home.version if home else "unknown",
    )
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
        return replace(plugin, problem=f"cannot be imported: {one_line(error)}")
    problem = _misfit(loaded, noun, base)
    return replace(plugin, problem=problem) if problem else replace(plugin, loaded=loaded)


def _misfit(loaded: Any, noun: str, base: type) -> str | None:
    if not (inspect.isclass(loaded) and issubclass(loaded, base)):
        return f"is no {noun}: its class must derive from {base.__module__}.{base.__name__}"
    abstract: frozenset[str] = getattr(loaded, "__abstractmethods__", frozenset())
    missing = [*sorted(abstract), *(name for name in ("name", "settings_type") if not hasattr(loaded, name))]
    return f"is not finished: it lacks {', '.join(missing)}" if missing else None


def _refused(plugin: Plugin, found: list[Plugin]) -> Plugin:
    homes = ", ".join(sorted(other.distribution for other in found if other.name == plugin.name))
    problem = f"two installed packages offer the {plugin.kind} {plugin.name!r} ({homes}); uninstall one of them"
    return replace(plugin, problem=problem, double=True)
