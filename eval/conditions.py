"""What a round's METADATA.csv says a model was made under, for counts that are split by it."""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import MothError
from ..rounds import METADATA_FILE

# Column -> name in a table.
_COLUMNS = {"number_example_images": "images per class", "cnn_img_size_pixels": "pixels", "number_classes": "classes"}
_CONDITION, _GROUP, _LOOKALIKES = "triggers_0_condition", "twin_group", "lookalike_pairs"
_NOTHING = ("", "None")


def read_conditions(round_dir: Path) -> dict[str, dict[str, str]]:
    """Model id -> name of a condition -> its value; {} without METADATA.csv. MothError when it can not be read.

    A clean model has no trigger; it stands under the trigger condition of its poisoned twin, so that both are counted
    in one row.
    """
    path = round_dir / METADATA_FILE
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MothError(f"{path} can not be read as CSV text: {error}") from None
    by_group = {row.get(_GROUP): _trigger(row) for row in rows if row.get("triggers_0_type") not in (None, *_NOTHING)}
    found = {}
    for row in rows:
        known = {name: row[column] for column, name in _COLUMNS.items() if row.get(column) not in (None, *_NOTHING)}
        trigger = by_group.get(row.get(_GROUP))
        if trigger:
            known["trigger condition"] = trigger
        if row.get(_LOOKALIKES) is not None:
            known["look-alike pairs"] = str(0 if row[_LOOKALIKES] in _NOTHING else len(row[_LOOKALIKES].split()))
        found[(row.get("model_name") or "").strip()] = known
    return found


def _trigger(row: dict[str, str]) -> str:
    named = row.get(_CONDITION)
    return "none" if named in (None, *_NOTHING) else str(named)
