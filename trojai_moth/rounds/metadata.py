"""METADATA.csv, a round's table of its models: where it lies, and the one place that reads it."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

import pandas as pd

from ..core.errors import UnreadableModelError
from ..core.files import decode_text, is_utf_16, read_bytes, separator

METADATA_FILE: Final = "METADATA.csv"
MODEL_NAME: Final = "model_name"
# Where later rounds keep the model folders, beside METADATA.csv.
MODELS_FOLDER: Final = "models"
_LINE_END = re.compile(r"\r\n|\r|\n")
_SHOWN = 100


def metadata_file(root: Path) -> Path:
    """Where a round's METADATA.csv lies, or would: in its folder, or above it if that is only the models/ of one."""
    whole = Path(os.path.abspath(root))
    above, here = whole.parent / METADATA_FILE, root / METADATA_FILE
    return above if not here.exists() and whole.name == MODELS_FOLDER and above.exists() else here


def read_metadata(path: Path, *columns: str) -> pd.DataFrame:
    """The column model_name, and of ``columns`` those that there are, as text without outer blanks; "" for no text.

    Columns are found in any case and are called here as they are asked for. A row for each model that is named; the
    index is the row's number in the file, from 2. Nothing else is read: what a caller does not ask for, such as labels,
    it cannot see. No rows where there is no such file. UnreadableModelError for what is no table with model names; a
    row that is odd is as good as it can be read, and spoils no other.
    """
    if not path.exists():
        return pd.DataFrame(columns=[MODEL_NAME], dtype=str)
    header, *rows = _read(path)
    places: dict[str, int] = {}
    for place, name in enumerate(cell.strip().lower() for cell in header):
        if name in (MODEL_NAME, *columns) and places.setdefault(name, place) != place:
            raise UnreadableModelError(f"{path}: has more than one column {name}; rename all but one")
    _require_names(places, path)
    cells = {name: [row[place].strip() for row in rows] for name, place in places.items()}
    table = pd.DataFrame(cells, dtype=str, index=range(2, len(rows) + 2))
    return table[table[MODEL_NAME] != ""]


def typed_metadata(path: Path) -> pd.DataFrame:
    """The whole table with the types that its columns seem to have; errors as of :func:`read_metadata`."""
    rows = _read(path)
    _require_names(rows[0], path)
    text = io.StringIO()
    csv.writer(text).writerows([rows[0], *(row for row in rows[1:] if any(row))])  # an editor may leave empty ones
    text.seek(0)
    return pd.read_csv(text, index_col=False, low_memory=False)


def _require_names(columns: Collection[str], path: Path) -> None:
    if MODEL_NAME not in columns:
        raise UnreadableModelError(f"{path}: no column {MODEL_NAME}; name the column of model ids so")


def _read(path: Path) -> list[list[str]]:
    """The header and all rows below it, each as wide as the header: cells are cut off, or empty ones added."""
    try:
        raw = read_bytes(path)
        raw = raw.removeprefix(codecs.BOM_UTF8).lstrip() if not is_utf_16(raw) else decode_text(raw).encode()
        raw.partition(b"\n")[0].decode()
    except OSError as error:
        raise UnreadableModelError(
            f"{path}: cannot be read ({error.strerror}); put a table there as CSV text"
        ) from None
    except UnicodeDecodeError as error:
        raise UnreadableModelError(f"{path}: cannot be read as CSV text ({error}); save it as such in UTF-8") from None
    # Below the header, text of another encoding is its row's trouble; it is then shown as bytes are.
    header, *rows = _rows(raw.decode(errors="backslashreplace").replace("\0", "\\0")) or [[]]
    width = len(header)
    return [header, *([*row, *[""] * (width - len(row))][:width] for row in rows)]


def _rows(text: str) -> list[list[str]]:
    """Rows as CSV has them. Where that breaks, as at a quote that is never closed, each line is one."""
    mark = separator(_LINE_END.split(text, maxsplit=1)[0])
    try:
        return list(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=mark))
    except csv.Error:
        return [_row(line, mark) for line in _LINE_END.split(text)]


def _row(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:  # a cell that has no end
        return [line[:_SHOWN]]
