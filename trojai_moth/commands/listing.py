"""``settings`` and ``scanners``: what can be set and chosen, from the records themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..distance import DistanceSettings
from ..eval.comparison import JudgeSettings
from ..hardener import hardeners
from ..robustness import PgdSettings
from ..samples import DataSettings
from ..scanner import scanners
from .options import record_fields


@click.command("scanners")
def list_scanners() -> None:
    """List the installed scanners."""
    _list(scanners())


@click.command("hardeners")
def list_hardeners() -> None:
    """List the installed hardeners."""
    _list(hardeners())


def _list(known: Mapping[str, type]) -> None:
    for name, kind in sorted(known.items()):
        text = (kind.__doc__ or "").strip().splitlines()
        click.echo(f"{name}: {text[0] if text else kind.__module__}")


@click.command("settings")
@click.option("--scanner", default="neural-cleanse", show_default=True, help="Whose settings to show as scanner.*")
@click.option("--hardener", default="moth", show_default=True, help="Whose settings to show as hardener.*")
def list_settings(scanner: str, hardener: str) -> None:
    """List every setting that --set takes, with its default and meaning."""
    groups: dict[str, type] = {
        "data": DataSettings,
        "hardener": _settings_of(hardeners(), hardener),
        "scanner": _settings_of(scanners(), scanner),
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
