"""model.json: what its owner says of a network that is no round's, so that a folder of such folders is a round."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.channels import normalisation
from ..core.errors import MothError, UnreadableModelError
from ..core.records import Field, from_dict, read_json, record
from .config_file import CaseConfig

DESCRIPTION_FILE = "model.json"
_LIMIT_BYTES = 4 << 20
_MOST_CLASSES = 100_000
_LONGEST_SIDE = 4096


@record
class ModelDescription:
    """The contents of model.json. None: not said, and found out where that can be done."""

    architecture: str | None = Field(
        default=None,
        description="a name of torchvision's or timm's, an installed one, or package.module:factory, which is imported "
        "only where the user names it as well",
    )
    weights: str | None = Field(default=None, description="the weights file in the same folder, where there are others")
    entry: str | None = Field(default=None, description="the entry of the weights file that is used, e.g. state_dict")
    classes: int | None = Field(default=None, ge=2, le=_MOST_CLASSES, description="number of classes")
    class_names: tuple[str, ...] | None = Field(default=None, description="a name for every class, in their order")
    channels: int | None = Field(default=None, ge=1, le=1000, description="channels of the input")
    size: tuple[int, int] | None = Field(default=None, description="height and width of the input in pixels")
    mean: tuple[float, ...] | None = Field(default=None, description="taken off the input in [0, 1], by channel")
    std: tuple[float, ...] | None = Field(default=None, description="what the channels are divided by then")
    images: str | None = Field(
        default=None, description="labelled images of its classes, in the same folder or the one above"
    )
    accuracy: float | None = Field(default=None, ge=0, le=1, description="share of such images that it gets right")

    def __post_init__(self) -> None:
        """ValueError for parts that do not go together."""
        if self.class_names is not None and self.classes not in (None, len(self.class_names)):
            raise ValueError(f"{len(self.class_names)} class_names for {self.classes} classes")
        if self.class_names is not None and len(set(self.class_names)) < len(self.class_names):
            raise ValueError("two class_names are the same")
        if self.size is not None and not all(0 < side <= _LONGEST_SIDE for side in self.size):
            raise ValueError(f"size {self.size} is not two sides of 1 to {_LONGEST_SIDE} pixels")
        for name in ("weights", "images"):
            if (value := getattr(self, name)) is not None and (not value.strip() or "\0" in value):
                raise ValueError(f"{name} is empty")


def read_description(path: Path) -> ModelDescription:
    """What a model.json says; UnreadableModelError, which names the file and the key, for what makes no sense."""
    try:
        data = read_json(path, limit=_LIMIT_BYTES)
        return from_dict(ModelDescription, _as_pairs(data), source=str(path))
    except UnreadableModelError:
        raise
    except OSError as error:
        raise UnreadableModelError(f"{path}: cannot be read ({error.strerror})") from None
    except MothError as error:
        raise UnreadableModelError(str(error)) from None


def _as_pairs(data: Any) -> Any:
    """One number for the size of a square, and for the mean and standard deviation of one channel."""
    if not isinstance(data, dict):
        return data
    pairs = {name: [data[name]] for name in ("mean", "std") if isinstance(data.get(name), int | float)}
    size = data.get("size")
    return {**data, **pairs, **({"size": [size, size]} if isinstance(size, int) else {})}


def described_config(said: ModelDescription, folder: Path) -> CaseConfig:
    """The same as a round's configuration would say it; UnreadableModelError for images that lie elsewhere."""
    where = folder / DESCRIPTION_FILE
    try:
        expected = normalisation(said.mean, said.std, str(where))
    except MothError as error:
        raise UnreadableModelError(str(error)) from None
    classes = said.classes or (len(said.class_names) if said.class_names else None)
    height, width = said.size or (None, None)
    return CaseConfig(
        architecture=said.architecture,
        classes=classes,
        size=height,
        width=width,
        normalisation=expected,
        channels=said.channels,
        class_names=said.class_names,
        entry=said.entry,
        images=_images(said.images, folder),
        expect_accuracy=said.accuracy,
        described=True,
    )


def _images(name: str | None, folder: Path) -> str | None:
    """The path of the model's own images, which may lie in its folder or beside it: others' files are none of its."""
    if name is None:
        return None
    path = folder / name
    allowed = os.path.realpath(folder.resolve().parent)
    if os.path.commonpath([allowed, os.path.realpath(path)]) != allowed:
        raise UnreadableModelError(
            f"{folder / DESCRIPTION_FILE}: images {name!r:.80} lie outside of the model's folder and the one above; "
            "move them, or leave this out and give them with --data"
        )
    if not path.exists():
        raise UnreadableModelError(
            f"{folder / DESCRIPTION_FILE}: images {name!r:.80} are not there; correct it, or give others with --data"
        )
    return str(path)


def weights_name(said: ModelDescription, there: Sequence[str], folder: Path) -> str | None:
    """The weights file that it names; None where it names none. UnreadableModelError where that is not there."""
    if said.weights is None:
        return None
    if said.weights not in there:
        raise UnreadableModelError(
            f"{folder / DESCRIPTION_FILE}: weights {said.weights!r:.80} are no file of this folder; correct the name"
        )
    return said.weights
