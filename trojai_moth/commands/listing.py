"""``settings`` and ``scanners``: what can be set and chosen, from the records themselves."""

from __future__ import annotations

import click

from ..distance import DistanceSettings
from ..hardening import MothSettings
from ..samples import DataSettings
from ..scanner import scanners
from .options import record_fields


@click.command("scanners")
def list_scanners() -> None:
    """List the installed scanners."""
    for name, kind in sorted(scanners().items()):
        text = (kind.__doc__ or "").strip().splitlines()
        click.echo(f"{name}: {text[0] if text else kind.__module__}")


@click.command("settings")
@click.option("--scanner", default="neural-cleanse", show_default=True, help="Whose settings to show as scanner.*")
def list_settings(scanner: str) -> None:
    """List every setting that --set takes, with its default and meaning."""
    known = scanners()
    if scanner not in known:
        raise click.BadParameter(f"{scanner} is not installed; choose from {', '.join(sorted(known))}")
    groups = {
        "data": DataSettings,
        "moth": MothSettings,
        "scanner": known[scanner].settings_type,
        "distance": DistanceSettings,
    }
    for group, cls in groups.items():
        for name, info in record_fields(cls).items():
            click.echo(f"{group}.{name} = {info.get_default(call_default_factory=True, validated_data={})}")
            click.echo(f"    {info.description}")
