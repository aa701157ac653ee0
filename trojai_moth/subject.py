"""One loaded model with all that is needed to ask it questions, and nothing that says whether it is poisoned."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .records import Field, record


@record
class Preprocessing:
    """How stored images become the model's input: read as RGB, centre crop, divide by 255; nothing else (round 4)."""

    stored_size: int = Field(gt=0, description="side of the stored images in pixels")
    size: int = Field(gt=0, description="side of the model's input in pixels, cropped from the centre")

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) uint8 with h, w >= size -> (N, 3, size, size) float32 in [0, 1]."""
        top = (images.shape[-2] - self.size) // 2
        left = (images.shape[-1] - self.size) // 2
        return images[..., top : top + self.size, left : left + self.size].float() / 255.0


@dataclass(frozen=True)
class Subject:
    """A model under examination. Scanners and hardeners see this and images, never a label or a path."""

    model_id: str
    module: nn.Module
    architecture: str
    classes: int
    preprocessing: Preprocessing
    device: torch.device
    source_sha256: str

    @property
    def size(self) -> int:
        """Side of the input in pixels."""
        return self.preprocessing.size

    @torch.no_grad()
    def logits(self, x: Tensor, batch: int = 64) -> Tensor:
        """Images (N, 3, size, size) in [0, 1] -> logits (N, classes), in inference mode, on the subject's device."""
        with self.frozen():
            parts = [self.module(part.to(self.device)).float() for part in x.split(batch)]
        return torch.cat(parts) if parts else torch.empty(0, self.classes, device=self.device)

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Share of images (N, 3, size, size) whose largest logit is at label y (N,); nan without images."""
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
