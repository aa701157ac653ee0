"""A network with the images that it is examined with: what the functions of the public API take."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..core.classifier import classes_of, find_output, measure_batch_norms
from ..core.device import prepare_process, resolve_device
from ..core.errors import SettingsError
from ..core.images import ImagePool
from ..core.notebook import html_table
from ..core.records import from_dict
from ..core.seeding import derive_seed, generator
from ..core.subject import Preprocessing, Subject
from ..loading import load_model
from ..loading.own_code import allowing_architectures
from ..triggers.distance import weights_hash
from .class_accuracy import check_images
from .data_settings import DataSettings, source_settings
from .model_folder import ModelFolder
from .open_folder import OpenedFolder, open_folder
from .preprocessing import few_of, find_normalisation, read_as
from .reading import read_case, read_weights
from .samples import Choice, Samples, collect_samples, held_back, with_unseen

# The images that hardening holds back, or those that it trains on.
On = Literal["held", "train"]
_WHITE = 255.0
# Of grey images without a dimension for their channel.
_GREY_DIMENSIONS = 3


@dataclass(frozen=True, repr=False)
class Model:
    """A network and its images; made by :func:`open_model` and :func:`wrap`.

    subject: the network, images x (N, C, H, W) in [0, 1] -> logits (N, K). samples: images to invert on and to harden
    with, and others held back. seed: of this model; scans and hardening derive theirs from it.
    """

    subject: Subject
    samples: Samples
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    class_names: tuple[str, ...] | None = None

    @property
    def described(self) -> bool:
        """Whether it is a network of somebody's own, and of no round, so that nobody knows its kind of backdoors."""
        return True

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
    def described(self) -> bool:
        """Whether its folder has a model.json, or it is a weights file by itself."""
        return self.folder.config.described

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

    source: a model folder of a round (``id-########``) or one with a model.json; or a weights file of a known
    ``architecture``, which may be ``package.module:factory``, code that is then imported. data: where the images come
    from: examples, composed, a folder or file of labelled images, or several with + between them. A weights file may
    have ``images`` x (N, C, H, W) in [0, 1] and ``labels`` (N,) instead, and a module must: see :func:`wrap`. settings:
    further fields of DataSettings, such as mean and std where the network expects another normalisation than the usual
    ones, which are tried. device: auto, cpu or cuda:N. The same seed gives the same images.

    Raises UnreadableModelError for what cannot be read or loaded safely, SettingsError for arguments that do not fit.

    >>> import trojai_moth as tm
    >>> from trojai_moth.testing import PlantedNet, planted_images
    >>> pool = planted_images(10)
    >>> tm.open_model(PlantedNet(), images=pool.x, labels=pool.y, device="cpu")
    <Model PlantedNet: PlantedNet, 3 classes, 16 pixels, cpu; 21 images to train on, 9 held back>
    """
    if isinstance(source, nn.Module):
        if images is None or labels is None:
            raise SettingsError("open_model: a module needs images= and labels= as well")
        return wrap(source, images, labels, device=device, seed=seed, settings=settings)
    target = resolve_device(device)
    prepare_process(target)
    with allowing_architectures([architecture] if architecture else []):
        if images is not None and labels is not None and architecture is not None:
            loaded = load_model(Path(os.path.realpath(source)), architecture=architecture)
            own = _Network(loaded.module, Path(source).stem, loaded.architecture, loaded.sha256)
            return _own(own, images, labels, target, seed, _data(settings))
        if images is not None or labels is not None:
            raise SettingsError(
                "open_model: images= and labels= go together, and belong to a module or to weights with architecture="
            )
        chosen = _data({**source_settings(data, backgrounds), **(settings or {})})
        return open_from_path(Path(source), chosen, target, seed)


def wrap(
    module: nn.Module,
    images: Tensor | np.ndarray,
    labels: Tensor | np.ndarray | Sequence[int],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    device: str = "auto",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """A classifier of one's own with labelled images of its classes, to scan, harden and measure; it stays as it is.

    module: takes (N, C, H, W) and gives logits or probabilities (N, K); also in a tuple, list or dictionary, and one
    number for two classes. images: (N, C, H, W) or (N, H, W), in [0, 1] or uint8, before any mean is taken off; labels:
    (N,) from 0 to K - 1. Of each class a share is held back. mean, std: what the module expects to be taken off the
    channels, of values in [0, 1]; without them none and the usual ones are tried. class_names: of the K classes.
    settings: fields of DataSettings. The same seed gives the same split.

    Raises SettingsError for arguments that do not fit, UnreadableModelError for images that are not of its classes.

    >>> import trojai_moth as tm
    >>> from trojai_moth.testing import PlantedNet, planted_images
    >>> pool = planted_images(10)
    >>> tm.wrap(PlantedNet(), pool.x, pool.y, class_names=["stop", "yield", "go"], device="cpu").class_names
    ('stop', 'yield', 'go')
    """
    target = resolve_device(device)
    prepare_process(target)
    given = {key: tuple(value) for key, value in (("mean", mean), ("std", std)) if value is not None}
    kind = type(module).__name__
    own = _Network(copy.deepcopy(module), name or kind, kind, "")
    model = _own(own, images, labels, target, seed, _data({**(settings or {}), **given}))
    if class_names is not None and len(class_names) != model.classes:
        raise SettingsError(f"wrap: {len(class_names)} class_names for {model.classes} classes; name every class once")
    return replace(model, class_names=tuple(map(str, class_names)) if class_names is not None else None)


def _data(settings: Mapping[str, Any] | None) -> DataSettings:
    return from_dict(DataSettings, dict(settings or {}), source="settings")


def open_from_path(
    source: Path, data: DataSettings, device: torch.device, seed: int, only: Choice | None = None
) -> FolderModel:
    """The model of a folder, or of a weights file whose network the user named; errors as of open_model."""
    folder = read_weights(source) if source.is_file() else read_case(source, named=True)
    return open_from_folder(folder, data, device, seed, only)


def open_from_folder(
    folder: ModelFolder, data: DataSettings, device: torch.device, seed: int, only: Choice | None = None
) -> FolderModel:
    """The model of a folder with the images that ``data`` names, ``only`` of some classes; errors as of open_model."""
    opened = open_folder(folder, device, data)
    own = derive_seed(seed, folder.model_id)
    samples = collect_samples(folder, opened, data, derive_seed(own, "images"), only)
    names = opened.class_names or folder.config.class_names
    return FolderModel(opened.subject, samples, own, data, names, folder=folder, opened=opened)


@dataclass(frozen=True)
class _Network:
    """A module with its name, its architecture, and the hash of the file it is from; empty where there is none."""

    module: nn.Module
    name: str
    architecture: str
    sha256: str


def _own(
    own: _Network,
    images: Tensor | np.ndarray,
    labels: Tensor | np.ndarray | Sequence[int],
    device: torch.device,
    seed: int,
    data: DataSettings,
) -> Model:
    """A network with images of the caller's."""
    pool = _checked(images, labels)
    channels, height, width = pool.x.shape[1:]
    plain = Preprocessing.whole(channels, height, width)
    network, few = own.module.float().to(device).eval(), few_of(pool).x.to(device)
    measure_batch_norms(network, [few])
    output = find_output(network, few, where=own.name)
    classes = classes_of(network, few, output)
    subject = Subject(own.name, network, own.architecture, classes, plain, device, own.sha256, output=output)
    if int(pool.y.max()) >= subject.classes:
        raise SettingsError(f"labels go to {int(pool.y.max())}, but the network has {subject.classes} classes")
    normalisation = data.normalisation or find_normalisation(subject, pool)
    subject = read_as(subject, replace(plain, normalisation=normalisation), [few])
    check_images(
        subject,
        pool,
        "images",
        order="labels",
        mend="give images of its classes under their labels",
        expected=data.expect_accuracy,
    )
    if not own.sha256:
        subject = replace(subject, source_sha256=weights_hash(subject))
    return Model(subject, _split(pool, data.held_fraction, seed), derive_seed(seed, own.name), data)


def _checked(images: Tensor | np.ndarray, labels: Tensor | np.ndarray | Sequence[int]) -> ImagePool:
    x, y = torch.as_tensor(images).detach().cpu(), torch.as_tensor(labels).detach().long().cpu()
    x = x.float() / _WHITE if x.dtype == torch.uint8 else x.float()
    x = x[:, None] if x.dim() == _GREY_DIMENSIONS else x
    shape = tuple(x.shape)
    if len(shape) != _GREY_DIMENSIONS + 1 or not all(shape) or tuple(y.shape) != shape[:1]:
        raise SettingsError(
            f"images of shape {tuple(images.shape)} and labels of shape {tuple(y.shape)}; give (N, C, H, W) and (N,)"
        )
    if not bool(((x >= 0) & (x <= 1)).all()) or int(y.min()) < 0:
        raise SettingsError(
            "images must be in [0, 1], or uint8, before a mean is taken off (mean=, std=), and labels at least 0"
        )
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
