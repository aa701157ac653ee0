"""What a round's METADATA.csv says a model was made under, for counts that are split by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..rounds.metadata import MODEL_NAME, metadata_file, read_metadata

# Column -> name in a table.
_COLUMNS = {"number_example_images": "images per class", "cnn_img_size_pixels": "pixels", "number_classes": "classes"}
_TYPE, _CONDITION, _GROUP, _LOOKALIKES = "triggers_0_type", "triggers_0_condition", "twin_group", "lookalike_pairs"


def read_conditions(round_dir: Path) -> dict[str, dict[str, str]]:
    """Model id -> name of a condition -> its value; {} without METADATA.csv. MothError when it cannot be read.

    A clean model has no trigger; it stands under the trigger condition of its poisoned twin, so that both are counted
    in one row.
    """
    table = read_metadata(metadata_file(round_dir), *_COLUMNS, _TYPE, _CONDITION, _GROUP, _LOOKALIKES)
    rows = [{column: text for column, text in row.items() if text != "None"} for row in table.to_dict("records")]
    by_group = {_group(row): row.get(_CONDITION) or "none" for row in rows if row.get(_TYPE)}
    found = {}
    for row in rows:
        known = {name: row[column] for column, name in _COLUMNS.items() if row.get(column)}
        if _group(row) in by_group:
            known["trigger condition"] = by_group[_group(row)]
        if _LOOKALIKES in table:
            known["look-alike pairs"] = str(len(row.get(_LOOKALIKES, "").split()))
        found[row[MODEL_NAME]] = known
    return found


def _group(row: Mapping[str, str]) -> str:
    """Of its twins; a model without any is its own."""
    return row.get(_GROUP) or row[MODEL_NAME]
