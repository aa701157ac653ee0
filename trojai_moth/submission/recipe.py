"""An Apptainer recipe as it is read: the header, and the sections by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import SettingsError


@dataclass(frozen=True)
class Recipe:
    """``header``: such as From; ``sections``: the text below each %name."""

    header: Mapping[str, str]
    sections: Mapping[str, str]

    @property
    def files(self) -> list[tuple[str, str]]:
        """What %files copies: source, relative to the recipe's folder, and place in the image."""
        pairs = [line.split() for line in self.sections.get("files", "").splitlines() if line.strip()]
        return [(words[0], words[-1]) for words in pairs]


def find_recipe(folder: Path) -> Path:
    """The one recipe of a submission's folder; SettingsError if there is none, or more."""
    found = sorted(folder.glob("*.def"))
    if len(found) != 1:
        raise SettingsError(f"{folder}: holds {len(found)} recipes (*.def), not one; write it anew")
    return found[0]


def read_recipe(path: Path) -> Recipe:
    """Header and sections of a recipe; SettingsError if it has no %post or %runscript."""
    head, *rest = re.split(r"^%(\w+)[^\n]*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    pairs = (line.partition(":") for line in head.splitlines() if ":" in line)
    recipe = Recipe(
        {key.strip(): value.strip() for key, _, value in pairs}, dict(zip(rest[::2], rest[1::2], strict=True))
    )
    missing = [f"%{name}" for name in ("files", "post", "runscript") if not recipe.sections.get(name, "").strip()]
    if missing:
        raise SettingsError(f"{path}: has no {' and no '.join(missing)}; write it anew with trojai-moth container")
    return recipe
