"""METADATA.csv, a round's table of its models: where it lies, and the one place that reads it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Final

import pandas as pd

from ..core.errors import UnreadableModelError

METADATA_FILE: Final = "METADATA.csv"
MODEL_NAME: Final = "model_name"
# Where later rounds keep the model folders, beside METADATA.csv.
MODELS_FOLDER: Final = "models"


def metadata_file(root: Path) -> Path:
    """Where a round's METADATA.csv lies, or would: in its folder, or above it if that is only the models/ of one."""
    whole = Path(os.path.abspath(root))
    above, here = whole.parent / METADATA_FILE, root / METADATA_FILE
    return above if not here.exists() and whole.name == MODELS_FOLDER and above.exists() else here


def read_metadata(path: Path, *columns: str) -> pd.DataFrame:
    """The column model_name, and of ``columns`` those that there are, as text without outer blanks; "" for no text.

    Columns are found in any case and are called here as they are asked for. A row for each model that is named; the
    index is the row's number in the file, from 2. Nothing else is read: what a caller does not ask for, such as labels,
    it cannot see. No rows where there is no such file. UnreadableModelError for what is no table with model names.
    """
    if not path.exists():
        return pd.DataFrame(columns=[MODEL_NAME], dtype=str)
    wanted = (MODEL_NAME, *columns)
    table = _read(path, dtype=str, keep_default_na=False, skip_blank_lines=False, usecols=lambda n: _plain(n) in wanted)
    table = _named(table.rename(columns=_plain), path).apply(lambda column: column.str.strip())
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise UnreadableModelError(f"{path}: has more than one column {twice[0]}; rename all but one")
    table.index += 2
    return table[table[MODEL_NAME] != ""]


def typed_metadata(path: Path) -> pd.DataFrame:
    """The whole table with the types that its columns seem to have; errors as of :func:`read_metadata`."""
    return _named(_read(path, low_memory=False), path)


def _plain(name: object) -> str:
    return str(name).strip().lower()


def _read(path: Path, **options: Any) -> pd.DataFrame:
    if not path.is_file():
        raise UnreadableModelError(f"{path}: is not a file; give a table as CSV text")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cells beyond the last column
            return pd.read_csv(path, index_col=False, **options)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (ValueError, OSError) as error:
        raise UnreadableModelError(f"{path}: cannot be read as CSV text ({error}); save it as such in UTF-8") from None


def _named(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    if MODEL_NAME not in table.columns:
        raise UnreadableModelError(f"{path}: no column {MODEL_NAME}; name the column of model ids so")
    return table
