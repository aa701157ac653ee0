"""Tables as CSV text that a spreadsheet takes for what it is: text of a run never becomes a formula there."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

# What spreadsheets take for the beginning of a formula, or skip before one; the last four are the wide forms of signs.
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV, without its index; text that would be a formula, headings too, begins with an apostrophe."""
    shown = table.rename(columns=plain_cell)
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            cells = [plain_cell(cell) for cell in table.iloc[:, place]]
            shown.isetitem(place, pd.Series(cells, index=table.index, dtype=object))
    return shown.to_csv(index=False)


def plain_cell(value: Any) -> Any:
    r"""A cell as it may stand in a CSV file; numbers stay numbers, also those that are written as text.

    >>> [plain_cell(cell) for cell in ("=1+1", "-5", "-5+A1", -5, "\t@x", "a=b")]
    ["'=1+1", '-5', "'-5+A1", -5, "'\t@x", 'a=b']
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # pandas would let a lone one end the row
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
