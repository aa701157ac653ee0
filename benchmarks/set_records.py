"""The records of a set of models: one file each, xz of JSON, a line per model; the same records give the same bytes."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "sets"
Record = Mapping[str, Any]


def file_of(name: str) -> Path:
    """Where a set's records are."""
    return RESULTS / f"{name}.jsonl.xz"


@cache
def read_set(name: str) -> tuple[Record, ...]:
    """The committed records of a set, by stratum and model; they are shared, so change copies only."""
    return read_records(file_of(name))


def read_records(file: Path) -> tuple[Record, ...]:
    """The records of one file."""
    return tuple(json.loads(line) for line in lzma.decompress(file.read_bytes()).splitlines())


def write_records(file: Path, records: Sequence[Record]) -> None:
    """All of them, by stratum and model."""
    ordered = sorted(records, key=lambda record: (record["stratum"], record["model_id"]))
    lines = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in ordered)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))
