"""Links inside a model's folder: they may point within it, and nowhere else.

The folder itself may be a link, which is how its owner keeps models elsewhere; what lies in it came with the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import UnreadableModelError


def refuse_links_out(folder: Path, names: Iterable[str], root: Path | None = None) -> None:
    """UnreadableModelError for the first of these entries of ``folder`` that is a link leading out of ``root``.

    root: the model's folder; ``folder`` itself without one.
    """
    home = os.path.realpath(root or folder)
    for name in sorted(names):
        path = folder / name
        if path.is_symlink() and os.path.commonpath([home, os.path.realpath(path)]) != home:
            raise UnreadableModelError(f"{path}: a link that leads out of the model's folder; put the file there")
