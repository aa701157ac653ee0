"""A run's tables for other tools: CSV, and parquet where pyarrow is installed; columns: docs/results-schema.md."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ...core.errors import MissingDependencyError
from ...core.files import write_atomically, write_text
from ..csv_text import csv_text
from .run_view import RunView, candidate_rows

CANDIDATE_TYPES = {
    "victim": "Int64", "target": "Int64", "rank": "Int64", "held_images": "Int64",
    "size": "float64", "success": "float64", "held_success": "float64", "left_out_success": "float64",
    "jitter_success": "float64", "reverse_size": "float64",
    "model": "str", "stage": "str", "kind": "str", "scanner": "str",
}  # fmt: skip
"""Types of the candidates' columns; victim is empty for a trigger of any class."""


def export_tables(view: RunView) -> dict[str, pd.DataFrame]:
    """``results``, a row per model, and ``candidates``, a row per trigger that a scan looked at in full."""
    candidates = candidate_rows(view.models)
    numbers = {name: kind for name, kind in CANDIDATE_TYPES.items() if kind != "str"}
    return {"results": view.rows, "candidates": candidates.astype(numbers)}


def write_tables(tables: dict[str, pd.DataFrame], folder: Path, *, parquet: bool) -> list[Path]:
    """Write every table into the folder; the CSVs come first, so that they are there whatever happens then."""
    written = []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        write_text(written[-1], csv_text(table))
    if not parquet:
        return written
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "export: parquet needs pyarrow; pip install 'trojai-moth[parquet]', or --no-parquet"
        ) from None
    for name, table in tables.items():
        written.append(folder / f"{name}.parquet")
        write_atomically(written[-1], _text_columns(table).to_parquet)
    return written


def _text_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of text as such even when all of them are empty, which would else be written as of no type."""
    text = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    return table.astype({name: "string" for name in text if not pd.api.types.is_bool_dtype(table[name])})
