"""``plugins``, ``scanners``, ``hardeners``, ``settings``: what can be chosen and set, from the classes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import MothError
from .base import command
from .options import record_fields

if TYPE_CHECKING:
    from ..core.plugins import Plugin

_COLUMNS = ("kind", "name", "version", "origin", "what it is")


@command("plugins")
def list_plugins() -> None:
    """List every installed scanner and hardener with its version and origin.

    One that cannot be used is listed with the reason. Two of one name are refused: exit code 2, after the list.
    """
    from ..core.plugins import find_plugins

    found = [plugin for kind in (_scanners(), _hardeners()) for plugin in find_plugins(*kind)]
    rows = [_COLUMNS, *(_row(plugin) for plugin in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for row in rows:
        padded = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*padded, row[-1]]))
    double = next((plugin.problem for plugin in found if plugin.double), None)
    if double:
        raise MothError(double)


def _row(plugin: Plugin) -> tuple[str, ...]:
    text = f"cannot be used: {plugin.problem}" if plugin.problem else plugin.summary
    return (plugin.kind, plugin.name, plugin.version, f"{plugin.distribution}, {plugin.module}", text)


@command("scanners")
def list_scanners() -> None:
    """List the installed scanners."""
    _list(*_scanners())


@command("hardeners")
def list_hardeners() -> None:
    """List the installed hardeners."""
    _list(*_hardeners())


def _scanners() -> tuple[str, str, type]:
    """Where scanners are found, what one is called, and its base."""
    from ..scanners.base import Scanner
    from ..scanners.registry import GROUP

    return GROUP, "scanner", Scanner


def _hardeners() -> tuple[str, str, type]:
    """The same of hardeners."""
    from ..hardeners.base import Hardener
    from ..hardeners.registry import GROUP

    return GROUP, "hardener", Hardener


def _list(group: str, noun: str, base: type) -> None:
    from ..core.plugins import find_plugins, load_plugins

    load_plugins(group, noun, base)  # which refuses an installation with two of one name or with none
    for plugin in find_plugins(group, noun, base):
        click.echo(f"{plugin.name}: {_row(plugin)[-1]}")


@command("settings")
@click.option("--scanner", default="neural-cleanse", show_default=True, help="Whose settings to show; or NAME,NAME.")
@click.option("--hardener", default="moth", show_default=True, help="Whose settings to show as hardener.*")
def list_settings(scanner: str, hardener: str) -> None:
    """List every setting that --set takes, with its default and meaning."""
    from ..eval.comparison import JudgeSettings
    from ..hardeners.registry import hardeners
    from ..rounds.data_settings import DataSettings
    from ..scanners.registry import settings_groups
    from ..synthesis.settings import PgdSettings
    from ..triggers.distance_records import DistanceSettings

    groups: dict[str, type] = {
        "data": DataSettings,
        "hardener": _settings_of(hardeners(), hardener),
        **settings_groups(scanner),
        "distance": DistanceSettings,
        "judge": JudgeSettings,
        "robustness": PgdSettings,
    }
    for group, cls in groups.items():
        for name, info in record_fields(cls).items():
            click.echo(f"{group}.{name} = {info.get_default(call_default_factory=True, validated_data={})}")
            click.echo(f"    {info.description}")


def _settings_of(known: Mapping[str, Any], name: str) -> type:
    if name not in known:
        raise click.BadParameter(f"{name} is not installed; choose from {', '.join(sorted(known))}")
    settings: type = known[name].settings_type
    return settings
