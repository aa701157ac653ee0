"""A network with the images that it is examined with: what the functions of the public API take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.device import prepare_process, resolve_device
from ..core.errors import SettingsError
from ..core.images import ImagePool
from ..core.notebook import html_table
from ..core.records import from_dict
from ..core.seeding import derive_seed, generator
from ..core.subject import Preprocessing, Subject
from ..loading import load_model
from ..triggers.distance import weights_hash
from .class_accuracy import check_images
from .data_settings import DataSettings, source_settings
from .model_folder import ModelFolder
from .open_folder import OpenedFolder, open_folder
from .preprocessing import find_normalisation
from .reading import read_case
from .samples import Choice, Samples, collect_samples, held_back, with_unseen

# The images that hardening holds back, or those that it trains on.
On = Literal["held", "train"]


@dataclass(frozen=True, repr=False)
class Model:
    """A network and its images; made by :func:`open_model`.

    subject: the network, images x (N, 3, H, W) in [0, 1] -> logits (N, K). samples: images to invert on and to harden
    with, and others held back. seed: of this model; scans and hardening derive theirs from it.
    """

    subject: Subject
    samples: Samples
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)

    @property
    def name(self) -> str:
        """Its id."""
        return self.subject.model_id

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self.subject.classes

    @property
    def accuracy(self) -> float:
        """Share in [0, 1] of the held-back clean images that it gets right; nan without any."""
        return self.subject.accuracy(self.samples.clean.x, self.samples.clean.y)

    @property
    def signs(self) -> Sequence[Path]:
        """Pictures of what its classes show, one per class, where they are at hand."""
        return ()

    def to_harden(self) -> Samples:
        """The samples, with new images beside them for a last look at what hardening cost where some can be made."""
        return self.samples

    def images_to_measure(self, on: On) -> ImagePool:
        """The images that class distances are measured on; SettingsError where there are none."""
        images = self.samples.held if on == "held" else self.samples.train
        if len(images) == 0:
            raise SettingsError(f"{self.name}: too few examples to hold any back; measure on train (--on train)")
        return images

    @property
    def of_all_classes(self) -> ImagePool | None:
        """Images of all classes where those to measure on may be of some; None where these are all there are."""
        return None

    def measured_words(self, on: On) -> str:
        """What class distances are measured on, and how it is read, for records."""
        return f"{self.samples.description}; {on} images; read as {self.subject.preprocessing.words}"

    def originals(self, on: On) -> list[int] | None:
        """Images per class that are not augmented copies of others; None if all are of their own kind, or not known."""
        return None

    def __repr__(self) -> str:
        """One line."""
        return f"<Model {self.subject.words}; {self.samples.words}>"

    def _repr_html_(self) -> str:
        rows = {
            "network": f"{self.subject.architecture}, {self.classes} classes",
            "input": self.subject.preprocessing.words,
            "device": str(self.subject.device),
            "images": self.samples.words,
            "accuracy, held back": f"{self.accuracy:.1%}",
        }
        return html_table(self.name, rows)


@dataclass(frozen=True, repr=False, kw_only=True)
class FolderModel(Model):
    """A model of a round, with the folder that it came from."""

    folder: ModelFolder
    opened: OpenedFolder

    @property
    def signs(self) -> Sequence[Path]:
        """Its foregrounds, in the order of the classes."""
        return self.folder.signs

    @property
    def of_all_classes(self) -> ImagePool | None:
        """Its examples, if it has any."""
        return self.opened.examples if len(self.opened.examples) else None

    def to_harden(self) -> Samples:
        """The samples, and newly composed images where images are composed."""
        return with_unseen(self.samples, self.folder, self.opened, self.data, derive_seed(self.seed, "images"))

    def originals(self, on: On) -> list[int] | None:
        """Of the examples in that part; None where images are composed, or a folder's."""
        if self.data.source == "composed" or (on == "train" and "examples" not in self.data.sources):
            return None
        examples, held = (
            torch.bincount(pool.y, minlength=self.classes) for pool in (self.opened.examples, self.samples.clean)
        )
        return [int(count) for count in (held if on == "held" else examples - held)]


def open_model(
    source: str | Path | nn.Module,
    *,
    data: str = "examples",
    backgrounds: str | None = None,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    architecture: str | None = None,
    device: str = "auto",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """A network with the images to examine it with, loaded without running anything that its file holds.

    source: a model folder of a round (``id-########``), whose images are ``data``: examples, composed, a path to
    labelled images, or several with + between them; or a weights file of a known ``architecture``; or a module. The
    latter two need ``images`` x (N, 3, H, H) in [0, 1] and ``labels`` (N,); of each class a share is held back.
    settings: further fields of DataSettings, such as mean and std where the network expects another normalisation than
    the usual ones, which are tried. device: auto, cpu or cuda:N. The same seed gives the same images.

    Raises UnreadableModelError for what cannot be read or loaded safely, SettingsError for arguments that do not fit.

    >>> import trojai_moth as tm
    >>> from trojai_moth.testing import PlantedNet, planted_images
    >>> pool = planted_images(10)
    >>> tm.open_model(PlantedNet(), images=pool.x, labels=pool.y, device="cpu")
    <Model PlantedNet: PlantedNet, 3 classes, 16 pixels, cpu; 21 images to train on, 9 held back>
    """
    target = resolve_device(device)
    prepare_process(target)
    if isinstance(source, nn.Module) or architecture is not None:
        chosen = from_dict(DataSettings, dict(settings or {}), source="open_model: settings")
        return _own(source, images, labels, architecture, target, seed, chosen)
    if images is not None or labels is not None:
        raise SettingsError("open_model: images and labels belong to a module or to weights with architecture=")
    chosen = from_dict(DataSettings, {**source_settings(data, backgrounds), **(settings or {})}, source="open_model")
    return open_from_folder(read_case(Path(source), named=True), chosen, target, seed)


def open_from_folder(
    folder: ModelFolder, data: DataSettings, device: torch.device, seed: int, only: Choice | None = None
) -> FolderModel:
    """The model of a folder with the images that ``data`` names, ``only`` of some classes; errors as of open_model."""
    opened = open_folder(folder, device, data)
    own = derive_seed(seed, folder.model_id)
    samples = collect_samples(folder, opened, data, derive_seed(own, "images"), only)
    return FolderModel(opened.subject, samples, own, data, folder=folder, opened=opened)


def _own(
    source: str | Path | nn.Module,
    images: Tensor | None,
    labels: Tensor | None,
    architecture: str | None,
    device: torch.device,
    seed: int,
    data: DataSettings,
) -> Model:
    """A module, or weights of a known architecture, with images of the caller's."""
    if images is None or labels is None:
        raise SettingsError("open_model: a module, or weights with architecture=, needs images= and labels= as well")
    pool = _checked(images, labels)
    if isinstance(source, nn.Module):
        module, name, sha256 = source, type(source).__name__, ""
        kind = name
    else:
        loaded = load_model(Path(os.path.realpath(source)), architecture=architecture)
        module, name, sha256, kind = loaded.module, Path(source).stem, loaded.sha256, loaded.architecture
    size = int(pool.x.shape[-1])
    module = module.to(device).eval()
    with torch.no_grad():
        classes = int(module(pool.x[:1].to(device)).shape[-1])
    if int(pool.y.max()) >= classes:
        raise SettingsError(f"open_model: labels go to {int(pool.y.max())}, but the network has {classes} classes")
    plain = Preprocessing(stored_size=size, size=size)
    subject = Subject(name, module, kind, classes, plain, device, sha256)
    normalisation = data.normalisation or find_normalisation(subject, pool)
    subject = subject.reading(replace(plain, normalisation=normalisation))
    check_images(
        subject,
        pool,
        "open_model: images",
        order="labels",
        mend="give images of its classes under their labels",
        expected=data.expect_accuracy,
    )
    if not sha256:
        subject = replace(subject, source_sha256=weights_hash(subject))
    return Model(subject, _split(pool, data.held_fraction, seed), derive_seed(seed, name), data)


def _checked(images: Tensor, labels: Tensor) -> ImagePool:
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or not shape[0] or tuple(labels.shape) != shape[:1]:
        raise SettingsError(
            f"open_model: images of shape {shape} and labels of shape {tuple(labels.shape)}; give (N, 3, H, H) and (N,)"
        )
    x, y = images.detach().float().cpu(), labels.detach().long().cpu()
    if not bool(((x >= 0) & (x <= 1)).all()) or int(y.min()) < 0:
        raise SettingsError("open_model: images must be in [0, 1] and labels at least 0")
    return ImagePool(x, y)


def _split(pool: ImagePool, held_fraction: float, seed: int) -> Samples:
    """Each class split at random; a class of one image has none held back."""
    stream = generator(seed, "split")
    train: list[Tensor] = []
    held: list[Tensor] = []
    for label in sorted(set(pool.y.tolist())):
        own = pool.positions(label)
        own = own[torch.randperm(len(own), generator=stream)]
        kept = held_back(len(own), held_fraction)
        held.append(own[:kept])
        train.append(own[kept:])
    to_train, back = (pool.take(torch.cat(index)) for index in (train, held))
    return Samples(to_train, back, back, "images given by the caller")
