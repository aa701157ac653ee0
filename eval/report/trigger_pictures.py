"""The triggers that a run kept, as pictures for its report: a strip per class pair."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import RunDirectoryError
from ...core.images import as_colours
from ...runs.trigger_files import KeptTriggers, read_triggers

PARTS = ("image of the victim", "mask", "trigger on grey", "image with the trigger")
# Pairs of one scan that a page shows; the journal keeps more.
MOST_PAIRS = 4
# More than this makes a file that no browser likes.
LIMIT_BYTES = 16 << 20
_log = logging.getLogger(__name__)
_GREY, _WHITE, _GAP = 128, 255, 2


def trigger_pictures(scans: Mapping[str, Mapping[str, Path]]) -> tuple[dict[str, Any], int]:
    """By model id and stage, a list of [victim or None, target, data URI]; and how many models had no room.

    scans: by model id and stage, the journal's record, the models to show first at the beginning. A damaged file is
    left out with a warning.
    """
    found: dict[str, Any] = {}
    room, left_out = LIMIT_BYTES, 0
    for model_id, records in scans.items():
        shown = {stage: strips for stage, record in records.items() if (strips := _strips(record))}
        size = sum(len(uri) for strips in shown.values() for _, _, uri in strips)
        if size > room:
            left_out += 1
        elif shown:
            room -= size
            found[model_id] = shown
    return found, left_out


def _strips(record: Path) -> list[list[Any]]:
    try:
        kept = read_triggers(record)
    except RunDirectoryError as error:
        _log.warning("%s", error)
        return []
    if kept is None:
        return []
    return [[victim, target, strip(kept, row)] for row, (victim, target) in enumerate(kept.pairs[:MOST_PAIRS])]


def strip(kept: KeptTriggers, row: int) -> str:
    """PARTS of one trigger side by side, as a PNG in a data URI."""
    mask = kept.mask[row].astype(np.float64) / _WHITE
    pattern, image = (as_colours(part[row].astype(np.float64)) for part in (kept.pattern, kept.image))
    cells = [image, np.repeat(mask * _WHITE, 3, axis=0), _on(mask, pattern, np.full_like(image, _GREY))]
    cells.append(_on(mask, pattern, image))
    gap = np.full((3, image.shape[1], _GAP), _WHITE)
    wide = np.concatenate([part for cell in cells for part in (cell, gap)][:-1], axis=2).round().astype(np.uint8)
    if kept.bgr:
        wide = wide[::-1]
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(wide.transpose(1, 2, 0))).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _on(mask: NDArray[np.float64], pattern: NDArray[np.float64], image: NDArray[np.float64]) -> NDArray[np.float64]:
    stamped: NDArray[np.float64] = image + mask * (pattern - image)
    return stamped
