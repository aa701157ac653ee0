"""Labelled images to find out how a model reads images, where its own folder holds no examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import SettingsError, UnreadableModelError
from ..core.images import read_image
from ..core.seeding import derive_seed
from ..synthesis.compose import as_stored, compose_stored
from .data_settings import DataSettings
from .image_folder import list_labelled, read_stored
from .model_folder import ModelFolder

# As many as every candidate is tried on, see rounds/preprocessing.py.
_TRIED = 100
# What rounds store where nothing says so; larger pictures are made smaller.
_USUAL_SIZE = 256


class NoImagesError(UnreadableModelError):
    """A model without example images, where no other images were given either."""


@dataclass(frozen=True)
class TrialImages:
    """raw (N, 3, s, s) uint8 as a round would store them, y (N,) labels; ``words`` say where they come from."""

    raw: Tensor
    y: Tensor
    words: str


def trial_images(case: ModelFolder, classes: int, settings: DataSettings | None) -> TrialImages:
    """About 100 images of the sources that ``settings`` names, real ones before composed ones.

    NoImagesError where it names none but the model's own examples, or composed images of a model without signs;
    SettingsError for a folder that holds no labelled images of these classes.
    """
    sources = settings.sources if settings else ()
    per_class = math.ceil(_TRIED / classes)
    if settings and settings.folder and "folder" in sources:
        return _of_folder(case, Path(settings.folder), classes, per_class)
    signs = sorted(case.foregrounds.glob("*.png"))
    if settings and signs and "composed" in sources:
        return _composed(case, signs, per_class, settings)
    offer = "--data composed or --data FOLDER" if signs else "--data FOLDER"
    raise NoImagesError(
        f"{case.examples}: no images named class_C_example_N.png, or N.png with its class in N.json; to find out how "
        f"the model reads images, give labelled images of its classes with {offer}"
    )


def _of_folder(case: ModelFolder, folder: Path, classes: int, per_class: int) -> TrialImages:
    listed = list_labelled(folder, classes)
    chosen = [pair for label in range(classes) for pair in [p for p in listed if p[1] == label][:per_class]]
    if len({label for _, label in chosen}) < 2:
        raise SettingsError(f"{folder}: images of one class alone; a scan needs two classes or more")
    stored = _stored_size(case) or min(_USUAL_SIZE, *read_image(chosen[0][0]).shape[1:])
    y = torch.tensor([label for _, label in chosen])
    return TrialImages(read_stored([path for path, _ in chosen], stored), y, f"images of {folder}")


def _composed(case: ModelFolder, signs: list[Path], per_class: int, settings: DataSettings) -> TrialImages:
    images, y = compose_stored(
        signs,
        per_class=per_class,
        stored_size=_stored_size(case) or _USUAL_SIZE,
        generator=derive_seed(0, case.model_id, "trial images"),
        backgrounds=Path(settings.backgrounds) if settings.backgrounds else None,
    )
    return TrialImages(as_stored(images), y, f"images composed of {case.names.foregrounds}/")


def _stored_size(case: ModelFolder) -> int | None:
    return case.config.stored_size or case.config.size
