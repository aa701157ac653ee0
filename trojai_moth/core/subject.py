"""One loaded model with all that is needed to ask it questions, and nothing that says whether it is poisoned."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .channels import COLOURS, Normalisation
from .classifier import Classifier, as_classifier
from .outputs import OutputReading
from .records import Field, record

_WHITE = 255.0
# Weights of red, green and blue in grey.
_LUMINANCE = (0.299, 0.587, 0.114)
# Larger images go through a network in smaller batches, or a few would take gigabytes.
_FULL_BATCH_SIDE = 512

Colours = Literal["RGB", "BGR", "grey", "as stored"]
Scaling = Literal["/255", "min-max"]
Fit = Literal["crop", "resize"]
_COLOURS_OF: dict[int, Colours] = {1: "grey", COLOURS: "RGB"}


def side_words(height: int, width: int) -> str:
    """A size in pixels, as short as it can be said.

    >>> side_words(224, 224), side_words(32, 64)
    ('224', '32 x 64')
    """
    return str(height) if height == width else f"{height} x {width}"


def width_of(shape: Sequence[int]) -> int | None:
    """Of (height, width) the width, as records hold it: None where it is the height."""
    height, width = shape
    return None if width == height else width


def colours_of(channels: int) -> Colours:
    """What so many channels show, where nothing says more."""
    return _COLOURS_OF.get(channels, "as stored")


@record
class Preprocessing:
    """How stored images become the model's input; which of the ways it is, is found in rounds/preprocessing.py.

    Whatever it is, a model's input is in [0, 1], so that a scanner or hardener works on it without asking: a mean and
    standard deviation are taken off inside of the subject's module.
    """

    stored_size: int = Field(gt=0, description="height of the stored images in pixels")
    size: int = Field(gt=0, description="height of the model's input in pixels")
    fit: Fit = Field(default="crop", description="cropped from the centre, or the whole image made smaller")
    colours: Colours = Field(default="RGB", description="order of the channels; BGR in round 1, grey for one channel")
    scaling: Scaling = Field(
        default="/255",
        description="divided by 255, or by image: its smallest value to 0 and its largest to 1 (rounds 1 to 3)",
    )
    normalisation: Normalisation | None = Field(default=None, description="what the network expects besides")
    stored_width: int | None = Field(default=None, gt=0, description="of the stored images; None: they are square")
    width: int | None = Field(default=None, gt=0, description="of the model's input; None: it is square")
    channels: int = Field(default=3, gt=0, description="channels of the model's input")

    @staticmethod
    def whole(channels: int, height: int, width: int) -> Preprocessing:
        """Of images that are taken as they are, in [0, 255] by channel."""
        wide, colours = width_of((height, width)), colours_of(channels)
        return Preprocessing(
            stored_size=height, size=height, stored_width=wide, width=wide, channels=channels, colours=colours
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the model's input."""
        return self.channels, self.size, self.width or self.size

    @property
    def stored_shape(self) -> tuple[int, int]:
        """(h, w) of the stored images."""
        return self.stored_size, self.stored_width or self.stored_size

    def __call__(self, images: Tensor) -> Tensor:
        """(N, c, h, w) uint8 as stored, at least as large as the input -> (N, C, H, W) float32 in [0, 1]."""
        return self.finish(self.fitted(images))

    def fitted(self, images: Tensor) -> Tensor:
        """(N, c, h, w) uint8 -> (N, c, H, W) uint8: cropped or made smaller, and nothing else."""
        height, width = self.shape[1:]
        if self.fit == "resize" and tuple(images.shape[-2:]) != (height, width):
            small = functional.interpolate(images.float(), (height, width), mode="bilinear", antialias=True)
            return small.round().clamp(0, _WHITE).to(torch.uint8)
        top = (images.shape[-2] - height) // 2
        left = (images.shape[-1] - width) // 2
        return images[..., top : top + height, left : left + width]

    def finish(self, images: Tensor) -> Tensor:
        """(N, c, H, W) uint8 -> (N, C, H, W) float32 in [0, 1]: colours and scaling, after everything else was done.

        Grey is made of three colours by their luminance (ITU-R BT.601), as Pillow does. An image of one single value
        is all 0 under min-max.
        """
        x = images.float()
        if self.colours == "BGR":
            x = x.flip(1)
        elif self.colours == "grey" and x.shape[1] == COLOURS:
            x = (x * x.new_tensor(_LUMINANCE).view(1, -1, 1, 1)).sum(1, keepdim=True).round()
        if self.scaling == "/255":
            return x / _WHITE
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        return (x - low) / (high - low).clamp_min(1)

    @property
    def words(self) -> str:
        """E.g. ``RGB, /255, crop 224 of 256``."""
        size, stored = (side_words(*shape) for shape in (self.shape[1:], self.stored_shape))
        place = f"whole {size}" if size == stored else f"{self.fit} {size} of {stored}"
        return f"{self.colours}, {self.scaling}, {place}" + (
            f", {self.normalisation.words}" if self.normalisation else ""
        )


@dataclass(frozen=True)
class LogitScale:
    """What was done to a network's logits: a factor on its layer ``head``, or, without one, a hook on its output.

    centred: what that layer adds to the logits of all classes alike is taken off, too.
    """

    factor: float
    head: str | None
    centred: bool = False


@dataclass(frozen=True)
class Subject:
    """A model under examination. Scanners and hardeners see this and images, never a label or a path.

    logit_scale: how its logits were brought to a standard scale (core/standard_logits.py); None: as the file has them.
    output: how the network's output becomes logits, which the module does.
    """

    model_id: str
    module: nn.Module
    architecture: str
    classes: int
    preprocessing: Preprocessing
    device: torch.device
    source_sha256: str
    logit_scale: LogitScale | None = None
    output: OutputReading = field(default_factory=OutputReading)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the input."""
        return self.preprocessing.shape

    @property
    def size(self) -> int:
        """Height of the input in pixels, which is its side where it is square."""
        return self.preprocessing.size

    @property
    def area(self) -> int:
        """Pixels of the input, H * W."""
        return self.shape[1] * self.shape[2]

    @property
    def size_words(self) -> str:
        """E.g. ``224 pixels``, ``28 pixels of 1 channel``."""
        channels, height, width = self.shape
        beside = "" if channels == COLOURS else f" of {channels} channel{'s' if channels > 1 else ''}"
        return f"{side_words(height, width)} pixels{beside}"

    @property
    def words(self) -> str:
        """E.g. ``id-00000001: resnet50, 20 classes, 224 pixels, cpu``."""
        return f"{self.model_id}: {self.architecture}, {self.classes} classes, {self.size_words}, {self.device}"

    @property
    def network(self) -> nn.Module:
        """The network as its file holds it, without what makes it take images in [0, 1] and give logits."""
        return self.module.network if isinstance(self.module, Classifier) else self.module

    def reading(self, preprocessing: Preprocessing) -> Subject:
        """The same network fed in another way; the weights are shared."""
        module = as_classifier(self.network, preprocessing.normalisation, self.output).to(self.device)
        return replace(self, module=module, preprocessing=preprocessing)

    def __repr__(self) -> str:
        """One line, without the network's layers."""
        return f"<Subject {self.words}>"

    @torch.no_grad()
    def logits(self, x: Tensor, batch: int = 64) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits (N, classes), in inference mode, on the subject's device."""
        count = max(1, min(batch, batch * _FULL_BATCH_SIDE**2 // (x.shape[-1] * x.shape[-2])))
        with self.frozen():
            parts = [self.module(part.to(self.device)).float() for part in x.split(count)]
        return torch.cat(parts) if parts else torch.empty(0, self.classes, device=self.device)

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Share of images (N, C, H, W) whose largest logit is at label y (N,); nan without images."""
        if len(x) == 0:
            return float("nan")
        return float((self.logits(x).argmax(1) == y.to(self.device)).float().mean())

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """Evaluation mode and no weight gradients inside; every module's mode and flag as before afterwards."""
        with _restored(self.module):
            self.module.eval()
            self.module.requires_grad_(False)
            yield self.module

    @contextmanager
    def trainable(self, *, train_batch_norm: bool = False) -> Iterator[nn.Module]:
        """Weight gradients inside; batch-norm statistics and dropout stay in evaluation mode unless asked for."""
        with _restored(self.module):
            self.module.train(train_batch_norm)
            self.module.requires_grad_(True)
            yield self.module

    def clone(self) -> Subject:
        """The same subject around a deep copy of the module, so that the original stays as it is."""
        return replace(self, module=copy.deepcopy(self.module))


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
