"""Where the images of scans and hardening come from: what --data and --set data... say."""

from __future__ import annotations

import os

from ..core.channels import Channels, Normalisation, normalisation
from ..core.errors import SettingsError
from ..core.records import Field, record

# More than any machine's memory holds; how many fit is asked when it is known how large they are.
_MOST_IMAGES = 1_000_000
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
    folder: str | None = Field(default=None, description="folder or file of labelled images, of any size")
    train_per_class: int = Field(
        default=200, gt=0, le=_MOST_IMAGES, description="images per class to invert on and to harden with"
    )
    held_per_class: int = Field(default=100, gt=0, le=_MOST_IMAGES, description="images per class held back from both")
    held_fraction: float = Field(default=0.3, gt=0, lt=1, description="share of the example images that is held back")
    unseen_images: int = Field(
        default=2000,
        ge=0,
        le=_MOST_IMAGES,
        description="composed images of all classes together for a last look at what hardening cost; 0: no such look",
    )
    backgrounds: str | None = Field(
        default=None, description="folder of background images for composing (default: procedural)"
    )
    mean: Channels | None = Field(
        default=None,
        description="what the network expects to be taken off its input's channels, of values in [0, 1]; one number is "
        "for all of them (default: what its configuration says, or what is found by trying)",
    )
    std: Channels | None = Field(default=None, description="what the channels are divided by then")
    entry: str | None = Field(
        default=None, description="entry of a weights file that is used where several fit, such as state_dict_ema"
    )
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

    def fewer(self, share: float) -> str:
        """The options that ask for this share of the images per class.

        >>> DataSettings().fewer(0.1)
        '--set data.train_per_class=20 --set data.held_per_class=10'
        """
        total = int(share * (self.train_per_class + self.held_per_class))
        held = max(1, min(self.held_per_class, total // 3))
        train = max(1, min(self.train_per_class, total - held))
        return f"--set data.train_per_class={train} --set data.held_per_class={held}"


_SOURCES = ("examples", "composed")


def source_settings(data: str, backgrounds: str | None = None) -> dict[str, str | None]:
    """The fields that ``--data`` and ``--backgrounds`` stand for; SettingsError for what is neither known nor there.

    >>> source_settings("examples+composed")
    {'source': 'examples+composed', 'folder': None, 'backgrounds': None}
    """
    parts = [data] if os.path.exists(data) and data not in _SOURCES else data.split("+")
    folders = [part for part in parts if part not in _SOURCES]
    wrong = next((part for part in folders if not os.path.exists(part)), None)
    if wrong is not None or len(folders) > 1:
        raise SettingsError(
            f"--data {data}: {wrong if wrong is not None else folders[1]} is neither examples, composed nor the only "
            "folder or file of images; write one of them, or several with + between them"
        )
    source = "+".join(part if part in _SOURCES else "folder" for part in parts)
    return {"source": source, "folder": folders[0] if folders else None, "backgrounds": backgrounds}
