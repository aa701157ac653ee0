"""Links inside a model's folder: they may point within it, and nowhere else.

The folder itself may be a link, which is how its owner keeps models elsewhere; what lies in it came with the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import UnreadableModelError


def refuse_links_out(folder: Path, names: Iterable[str]) -> None:
    """UnreadableModelError for the first of these entries of ``folder`` that is a link leading out of it."""
    home = os.path.realpath(folder)
    for name in sorted(names):
        path = folder / name
        if path.is_symlink() and os.path.commonpath([home, os.path.realpath(path)]) != home:
            raise UnreadableModelError(f"{path}: a link that leads out of its folder; put the file there")
