"""The scanners of this installation, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..core.errors import SettingsError
from ..core.plugins import load_plugins, make_plugin
from .base import Scanner
from .combined import CombinedScanner

GROUP = "trojai_moth.scanners"


def scanners() -> Mapping[str, type[Scanner]]:
    """Every usable scanner of this installation by name; MothError for two of one name or for none at all."""
    return load_plugins(GROUP, "scanner", Scanner)


def make_scanner(name: str, options: Mapping[str, Any], *, described: bool = False) -> Scanner:
    """The scanner of this name with these settings; SettingsError lists the names or says which setting is wrong.

    ``a,b``: both at once, see :mod:`~trojai_moth.scanners.combined`; then ``options`` holds the settings of each under
    its name. described: for networks that are no round's, whose kind of backdoors nobody knows; a scanner may have
    other defaults for these.
    """
    if "," in name:
        return make_combined(name, options, described=described)
    known = scanners()
    if described and name in known:
        options = {**known[name].for_described, **options}
    scanner: Scanner = make_plugin(known, "scanner", name, options)
    return scanner


def make_combined(names: str, options: Mapping[str, Any], *, described: bool = False) -> Scanner:
    """The scanners named in ``a,b`` as one of that name; ``options`` maps each name to its scanner's settings."""
    chosen = split_names(names)
    for key, value in options.items():
        if key not in chosen or not isinstance(value, Mapping):
            raise SettingsError(
                f"--set scanner.{key}: with several scanners write scanner.NAME.SETTING=VALUE with NAME one of "
                f"{', '.join(chosen)}"
            )
    members = [(name, make_scanner(name, options.get(name, {}), described=described)) for name in chosen]

    class Chosen(CombinedScanner):
        name: ClassVar[str] = ",".join(chosen)

    return Chosen(members)


def split_names(names: str) -> list[str]:
    """The names of ``--scanner``; SettingsError when one is given twice, since its settings could not be told apart.

    >>> split_names("k-arm, filter")
    ['k-arm', 'filter']
    """
    found = [name.strip() for name in names.split(",")]
    if "" in found:
        raise SettingsError(f"--scanner {names}: a name is missing; write names with one comma between them")
    twice = [name for position, name in enumerate(found) if name in found[:position]]
    if twice:
        raise SettingsError(f"--scanner {names}: {twice[0]} is named twice; name each scanner once")
    return found


def settings_groups(names: str) -> dict[str, type]:
    """What --set calls the settings of ``--scanner``: scanner.* of one, scanner.NAME.* of each of several."""
    chosen, known = split_names(names), scanners()
    for name in chosen:
        if name not in known:
            raise SettingsError(f"--scanner {name}: not installed; choose from {', '.join(sorted(known))}")
    if len(chosen) == 1:
        return {"scanner": known[chosen[0]].settings_type}
    return {f"scanner.{name}": known[name].settings_type for name in chosen}
