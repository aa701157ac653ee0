"""A round's directory as a list of cases; what can not be read becomes a typed skip, never a missing row."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import MothError, UnreadableModelError
from .records import record
from .subject import Preprocessing

CONFIG_FILE = "config.json"
MODEL_FILE = "model.pt"
METADATA_FILE = "METADATA.csv"
_CONFIG_LIMIT = 16 * 1024 * 1024


@record
class CaseConfig:
    """What a model's config.json says of its input and shape; nothing in it tells whether it is poisoned."""

    architecture: str
    classes: int
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Case:
    """One model directory of a round."""

    model_id: str
    directory: Path
    config: CaseConfig

    @property
    def model_file(self) -> Path:
        """The untrusted model file."""
        return self.directory / MODEL_FILE

    @property
    def examples(self) -> Path:
        """The folder of clean example images."""
        return self.directory / "clean_example_data"

    @property
    def foregrounds(self) -> Path:
        """The folder of the classes' signs; sorted file names are the class order."""
        return self.directory / "foregrounds"

    @property
    def logits_file(self) -> Path:
        """The published logits of the clean example images."""
        return self.directory / "clean-example-logits.csv"

    @property
    def poisoned_examples(self) -> Path:
        """The folder of example images that carry the injected trigger. Ground truth: see poisoned.py."""
        return self.directory / "poisoned_example_data"

    @property
    def poisoned_logits_file(self) -> Path:
        """The published logits of the poisoned example images. Ground truth: see poisoned.py."""
        return self.directory / "poisoned-example-logits.csv"


@record
class Skip:
    """A model that can not be examined, and why."""

    model_id: str
    reason: str


def read_round(root: Path) -> list[Case | Skip]:
    """All models of a round-4 layout: the directories id-* and whatever METADATA.csv lists, sorted by name.

    A single model directory is a round of one. Raises UnreadableModelError if there is no model at all.
    """
    if (root / MODEL_FILE).exists() or (root / CONFIG_FILE).exists():
        return [_case_or_skip(root)]
    if not root.is_dir():
        raise UnreadableModelError(f"{root}: no such directory; give a round's folder (the one that holds id-*)")
    # A link that leads nowhere is a model that can not be read, not one that is not there.
    found = {path.name for path in root.glob("id-*") if path.is_dir() or path.is_symlink()}
    names = found | _listed(root / METADATA_FILE)
    if not names:
        raise UnreadableModelError(f"{root}: no id-* folders in it; give the folder that holds the models")
    return [_case_or_skip(root / name) for name in sorted(names)]


def read_case(directory: Path) -> Case:
    """One model directory; UnreadableModelError says what is missing."""
    if not directory.is_dir():
        raise UnreadableModelError(f"{directory}: listed in {METADATA_FILE}, but there is no such folder")
    if not (directory / MODEL_FILE).exists():
        raise UnreadableModelError(f"{directory}: no {MODEL_FILE} in it; unpack the model again")
    return Case(_model_id(directory), directory, read_config(directory / CONFIG_FILE))


def read_config(path: Path) -> CaseConfig:
    """What a config.json says of the model's input and shape, and nothing else of it."""
    data = read_config_text(path)
    size = _whole(data, "cnn_img_size_pixels", path)
    stored = _whole(data, "img_size_pixels", path)
    if stored < size:
        raise UnreadableModelError(f"{path}: img_size_pixels {stored} is below cnn_img_size_pixels {size}")
    architecture = data.get("model_architecture")
    if not isinstance(architecture, str):
        raise UnreadableModelError(f"{path}: model_architecture is missing or not a name")
    classes = _whole(data, "number_classes", path)
    preprocessing = Preprocessing(stored_size=stored, size=size)
    return CaseConfig(architecture=architecture, classes=classes, preprocessing=preprocessing)


def read_config_text(path: Path) -> dict[str, Any]:
    """A config.json as plain JSON: it is jsonpickle text, and decoding that would build objects of its choice."""
    try:
        if path.exists() and not path.is_file():
            raise UnreadableModelError(f"{path}: not a regular file")
        if path.stat().st_size > _CONFIG_LIMIT:
            raise UnreadableModelError(f"{path}: larger than {_CONFIG_LIMIT >> 20} MiB; not a config file")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnreadableModelError(f"{path}: missing; it says the architecture and the input size") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableModelError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise UnreadableModelError(f"{path}: not a JSON object")
    return data


def _whole(data: dict[str, Any], key: str, path: Path) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 100_000:
        raise UnreadableModelError(f"{path}: {key} is {value!r:.40}; a whole number from 1 to 100000 is needed")
    return value


def _case_or_skip(directory: Path) -> Case | Skip:
    try:
        return read_case(directory)
    except MothError as error:
        return Skip(model_id=_model_id(directory), reason=str(error))
    except OSError as error:
        return Skip(model_id=_model_id(directory), reason=f"{directory}: can not be read ({error.strerror})")


def _model_id(directory: Path) -> str:
    """The folder's own name, even of a link: two links may lead to folders that are called the same elsewhere."""
    return os.path.basename(os.path.abspath(directory))


def _listed(metadata: Path) -> set[str]:
    """Model names of METADATA.csv; only that column is read, since labels are not this module's business."""
    if not metadata.exists():
        return set()
    try:
        names = pd.read_csv(metadata, usecols=["model_name"], dtype=str)["model_name"].dropna()
    except (ValueError, OSError) as error:
        raise UnreadableModelError(f"{metadata}: no readable column model_name ({error})") from None
    bad = [name for name in names if Path(name).name != name or name in ("", ".", "..")]
    if bad:
        raise UnreadableModelError(f"{metadata}: model_name {bad[0]!r:.60} is not a folder's name")
    return set(names)
