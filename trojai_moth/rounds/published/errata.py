"""Round 1's six models whose published label is wrong, and how they are recognised."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...core.errors import UnreadableModelError
from ...core.images import list_examples, read_image
from ..metadata import MODELS_FOLDER
from ..model_folder import CONFIG_NAMES, ModelFolder
from ..packs import find_packs, unpacked
from ..reading import read_round

# Round 1 stores images at the size that its networks take; later rounds store 256 pixels.
_SIDE = 224
_EXAMPLES = "example_data"
# The test set has 100 models, the train set a thousand.
_FIRST_OF_TRAIN_ALONE, _ID = "id-00000100", re.compile(r"id-\d{8}")


def find_errata(round_dir: Path) -> dict[str, str]:
    """Model id -> what NIST says of its label, for models of round 1 whose published label must not be used.

    Ids are the same in all rounds, so a model must also look like one of round 1: examples of 224 pixels in
    ``example_data`` and no configuration. A set without any id of 100 and above is taken for the test set.
    """
    data = _data()
    if not _has_any(round_dir, [*data["train"], *data["test"]]):
        return {}
    listed = read_round(round_dir)
    train = any(_ID.fullmatch(case.model_id) and case.model_id >= _FIRST_OF_TRAIN_ALONE for case in listed)
    wrong = set(data["train" if train else "test"])
    suspects = [case for case in listed if isinstance(case, ModelFolder) and case.model_id in wrong]
    return {case.model_id: f"{data['reason']} ({data['source']})" for case in suspects if _looks_like_round_1(case)}


def _has_any(round_dir: Path, models: Iterable[str]) -> bool:
    """A look that spares nearly every round the reading of all its models."""
    folders = [folder for folder in (round_dir, round_dir / MODELS_FOLDER) if folder.is_dir()]
    return any(find_packs(folder) for folder in folders) or any(
        (folder / model).is_dir() and not any((folder / model / name).exists() for name in CONFIG_NAMES)
        for folder in folders
        for model in models
    )


def _looks_like_round_1(case: ModelFolder) -> bool:
    if case.names.configured or case.names.examples != _EXAMPLES:
        return False
    try:
        with unpacked(case) as there:
            first = list_examples(there.examples)[:1]
            return [tuple(read_image(path).shape[1:]) for path, _ in first] == [(_SIDE, _SIDE)]
    except UnreadableModelError:
        return False


@cache
def _data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files(__package__) / "errata.json").read_text(encoding="utf-8"))
    return found
