"""Where the images of scans and hardening come from: what --data and --set data... say."""

from __future__ import annotations

import os

from ..core.channels import Normalisation, Triple, normalisation
from ..core.errors import SettingsError
from ..core.records import Field, record

_PART = "(examples|composed|folder)"


@record
class DataSettings:
    """Where hardening and inversion images come from, and how many."""

    source: str = Field(
        default="examples",
        pattern=rf"^{_PART}(\+{_PART})*$",
        description="examples; composed, i.e. from foregrounds/; folder, i.e. data.folder; or several in equal parts, "
        "with + between them",
    )
    folder: str | None = Field(default=None, description="folder of labelled images, of any size")
    train_per_class: int = Field(
        default=200, gt=0, le=100_000, description="images per class to invert on and to harden with"
    )
    held_per_class: int = Field(default=100, gt=0, le=100_000, description="images per class held back from both")
    held_fraction: float = Field(default=0.3, gt=0, lt=1, description="share of the example images that is held back")
    unseen_images: int = Field(
        default=2000,
        ge=0,
        le=1_000_000,
        description="composed images of all classes together for a last look at what hardening cost; 0: no such look",
    )
    backgrounds: str | None = Field(
        default=None, description="folder of background images for composing (default: procedural)"
    )
    mean: Triple | None = Field(
        default=None,
        description="what the network expects to be taken off its input's channels, of values in [0, 1] (default: what "
        "its configuration says, or what is found by trying)",
    )
    std: Triple | None = Field(default=None, description="what the channels are divided by then")
    expect_accuracy: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="accuracy that is known of the model, as a share: it is not examined where it is clearly less",
    )

    @property
    def normalisation(self) -> Normalisation | None:
        """Mean and std together; SettingsError for one without the other."""
        return normalisation(self.mean, self.std, "data.mean and data.std (--mean, --std)")

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that images are taken from in equal parts, each once."""
        return tuple(dict.fromkeys(self.source.split("+")))


_SOURCES = ("examples", "composed")


def source_settings(data: str, backgrounds: str | None = None) -> dict[str, str | None]:
    """The fields that ``--data`` and ``--backgrounds`` stand for; SettingsError for what is neither known nor a folder.

    >>> source_settings("examples+composed")
    {'source': 'examples+composed', 'folder': None, 'backgrounds': None}
    """
    parts = [data] if os.path.isdir(data) and data not in _SOURCES else data.split("+")
    folders = [part for part in parts if part not in _SOURCES]
    wrong = next((part for part in folders if not os.path.isdir(part)), None)
    if wrong is not None or len(folders) > 1:
        raise SettingsError(
            f"--data {data}: {wrong if wrong is not None else folders[1]} is neither examples, composed nor the only "
            "folder; write one of them, or several with + between them"
        )
    source = "+".join(part if part in _SOURCES else "folder" for part in parts)
    return {"source": source, "folder": folders[0] if folders else None, "backgrounds": backgrounds}
