"""The hardeners of this installation, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.plugins import load_plugins, make_plugin
from .base import Hardener

GROUP = "trojai_moth.hardeners"


def hardeners() -> Mapping[str, type[Hardener]]:
    """Every usable hardener of this installation by name; MothError for two of one name or for none at all."""
    return load_plugins(GROUP, "hardener", Hardener)


def make_hardener(name: str, options: Mapping[str, Any]) -> Hardener:
    """The hardener of this name with these settings; SettingsError lists the names or says which setting is wrong."""
    hardener: Hardener = make_plugin(hardeners(), "hardener", name, options)
    return hardener
