"""A network of one's own, asked with labelled images what it is, and written down in model.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..core.errors import UnreadableModelError
from ..core.files import list_folder, write_text
from ..core.records import to_dict
from .class_accuracy import ClassAccuracy, class_accuracy
from .class_names import read_names
from .data_settings import DataSettings
from .description import DESCRIPTION_FILE, ModelDescription, described_config, read_description, weights_name
from .model_folder import ModelFolder, find_weights, model_id_of
from .open_folder import OpenedFolder, open_folder
from .samples import first_images

# Images that the accuracy is measured on, of all classes together.
_MOST_IMAGES = 2000


@dataclass(frozen=True)
class Described:
    """What was found out: ``said`` is the description, whole, and ``accuracy`` what it was checked by."""

    path: Path
    said: ModelDescription
    opened: OpenedFolder
    accuracy: ClassAccuracy

    @property
    def text(self) -> str:
        """The contents of model.json, without what is not known."""
        known = {name: value for name, value in to_dict(self.said).items() if value is not None}
        return json.dumps(known, indent=2, ensure_ascii=False) + "\n"


def find_model(place: Path, said: ModelDescription) -> tuple[Path, ModelDescription]:
    """The folder of a weights file, or that folder, and what was said before with what is said now over it.

    UnreadableModelError where none or several of the folder's files hold weights.
    """
    folder = place.parent if place.is_file() else place
    before = folder / DESCRIPTION_FILE
    known = read_description(before) if before.exists() else ModelDescription()
    given = {name: value for name, value in vars(said).items() if value is not None}
    if place.is_file():
        given["weights"] = place.name
    merged = replace(known, **given)
    if merged.weights is None:
        there = [path.name for path in list_folder(folder)]
        found = weights_name(merged, there, folder) or find_weights(there)
        if found is None:
            raise UnreadableModelError(f"{folder}: none or several of its files hold weights; give the weights file")
        merged = replace(merged, weights=found)
    return folder, merged


def describe_model(
    place: Path, said: ModelDescription, data: DataSettings, *, names: Path | None = None, images: str | None = None
) -> Described:
    """Load the model of a folder or weights file and complete what is ``said`` of it; nothing is written.

    names: a file with a name for every class. images: how model.json is to name the images, where it can.
    Errors are those of :func:`~trojai_moth.rounds.open_folder.open_folder`: a network that cannot be loaded, images
    that are not of its classes, an accuracy near chance.
    """
    folder, given = find_model(place, said)
    given = replace(given, images=images or given.images, entry=data.entry or given.entry)
    if names is not None:
        given = replace(given, class_names=read_names(names, given.classes))
    config = replace(described_config(given, folder), expect_accuracy=None)
    case = ModelFolder(model_id_of(folder.resolve().name), folder, config, linked_model=folder / (given.weights or ""))
    opened = open_folder(case, torch.device("cpu"), data)
    pool = first_images(case, opened, data, _MOST_IMAGES)
    found = class_accuracy(opened.subject, pool)
    _, height, width = opened.subject.shape
    reading = opened.subject.preprocessing.normalisation
    complete = replace(
        given,
        classes=opened.subject.classes,
        class_names=opened.class_names or given.class_names,
        channels=opened.subject.shape[0],
        size=(height, width),
        mean=reading.mean if reading else None,
        std=reading.std if reading else None,
        accuracy=round(found.overall, 4),
    )
    return Described(folder / DESCRIPTION_FILE, complete, opened, found)


def write_description(found: Described) -> None:
    """Put model.json beside the weights."""
    write_text(found.path, found.text)
