"""A table of image files and their labels: CSV, or with tabulators or semicolons between its cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.errors import SettingsError
from ..core.files import open_text, separator
from ..core.image_file import is_image
from .image_folder import Listing
from .image_source import Found

# What people call the two columns, without spaces, strokes and capitals; the more telling names first.
_FILES = (
    *("file", "filename", "filepath", "path", "image", "imagename", "imagepath", "imagefile", "imagefilename"),
    *("img", "imgname", "imgpath", "imagefilepath", "fname"),
)
_LABELS = (
    *("label", "class", "target", "classid", "labelid", "targetid", "y", "classindex", "labelindex", "classnumber"),
    *("category", "classname", "labelname", "categoryid", "categoryname"),
)
_LONGEST_HEADING = 10_000
_LONGEST_CELL = 4096
_SHOWN = 8


def find_in_table(table: Path, folder: Path | None = None) -> Found:
    """The images that a table names; SettingsError where it cannot be read, or an image is not there.

    Columns are found by their usual names (``file``, ``path``, ``image``; ``label``, ``class``, ``class_id``); without
    a heading they are the first two. Labels are numbers or names. Paths begin at ``folder``, by default the table's.
    """
    found, folder = Listing(), folder or table.parent
    try:
        for line, name, label in _rows(table):
            path = folder / name
            if not path.is_file():
                raise SettingsError(
                    f"{table}: line {line} names {name[:200]}, which is not in {folder}; paths begin there"
                )
            found.take(path, label)
    except (OSError, ValueError, csv.Error) as error:
        raise SettingsError(f"{table}: not a table of images ({error}); save it as CSV in UTF-8") from None
    if not found.images:
        left_out = f" that is read (left out: {found.left_out})" if found.left_out else ""
        raise SettingsError(f"{table}: names no image{left_out}; it needs a line for each, with its file and its class")
    return found.found()


def _rows(table: Path) -> Iterator[tuple[int, str, str]]:
    """Line, file and label of each image."""
    with open_text(table) as file:
        mark = separator(file.readline(_LONGEST_HEADING))
        file.seek(0)
        rows = csv.reader(file, delimiter=mark, skipinitialspace=True)
        places: tuple[int, int] | None = None
        for cells in rows:
            if not any(cells):  # an editor may leave empty lines
                continue
            if places is None:
                places = _columns(table, cells)
                if _places(cells):
                    continue
            if len(cells) <= max(places) or not cells[places[1]].strip():
                raise SettingsError(f"{table}: line {rows.line_num} has no label; add it, or take the line out")
            name, label = (cells[place].strip() for place in places)
            if len(name) > _LONGEST_CELL or "\0" in name:
                raise SettingsError(f"{table}: line {rows.line_num} names no file; mend it, or take it out")
            yield rows.line_num, name, label


def _columns(table: Path, cells: Sequence[str]) -> tuple[int, int]:
    """Where file and label stand; SettingsError where neither the heading nor the first line tells."""
    places = _places(cells)
    if places:
        return places
    if len(cells) > 1 and is_image(Path(cells[0].strip())):
        return 0, 1
    heading = ", ".join(cell[:40] for cell in cells[:_SHOWN]) + (", ..." if len(cells) > _SHOWN else "")
    raise SettingsError(
        f"{table}: its columns are {heading}; call that of the files file, and that of their classes label"
    )


def _places(cells: Sequence[str]) -> tuple[int, int] | None:
    plain = [re.sub(r"[\s_.-]", "", cell).lower() for cell in cells]
    found = [next((plain.index(name) for name in names if name in plain), None) for names in (_FILES, _LABELS)]
    return (found[0], found[1]) if found[0] is not None and found[1] is not None else None
