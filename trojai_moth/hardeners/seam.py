"""Selective amnesia (Zhu et al., IEEE S&P 2023): forget everything, then learn the labels again.

A few steps on clean images under wrong labels ruin the model: it forgets its classes, and the backdoor with them.
Training under true labels brings the classes back, and nothing in it brings the backdoor back. Public versions keep
batch norm in training mode in both halves, and so does this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.images import ImagePool
from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import generator
from ..core.subject import Subject
from ..rounds.samples import Samples
from .base import Hardener
from .fit_settings import FitSettings
from .trace import HardeningRound
from .trainer import PairVisit, Trainer, class_logits


@record
class SeamSettings(FitSettings):
    """How much is forgotten and how long is recovered."""

    learning_rate: float = Field(default=1e-3, gt=0, le=1e12, description="rate at which recovery starts")
    train_batch_norm: bool = Field(
        default=True, description="update batch-norm statistics and use dropout while training (public code: yes)"
    )
    accuracy_limit: float = Field(
        default=0.02, ge=0, le=1, description="largest drop of held-back accuracy once it has recovered, as a share"
    )
    part_ways: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.9, 0.8, 0.7, 0.6, 0.5),
        max_length=100,
        description="shares of the way to the recovered weights that are tried before all of it is taken back",
    )
    rounds: int = Field(default=1, gt=0, le=1_000_000, description="how often is forgotten and recovered (SEAM: once)")
    forgetting_rate: float = Field(
        default=1.0, gt=0, le=1e12, description="rate of forgetting, as a factor of the learning rate (public code: 1)"
    )
    forgetting_bound: float = Field(
        default=0.2, ge=0, lt=1, description="accuracy at which enough is forgotten, as a share (public code: 0.2)"
    )
    forgetting_images: int = Field(
        default=128, gt=0, le=1_000_000, description="images that are learned under wrong labels (public code: 50)"
    )
    forgetting_steps: int = Field(
        default=100, gt=0, le=1_000_000, description="steps after which forgetting ends in any case"
    )
    recovery_epochs: int = Field(
        default=15,
        gt=0,
        le=1_000_000,
        description="epochs of recovery at most (public code: 10 of 5000 images)",
    )
    recovery_decay: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="factor by which the rate falls over all epochs (public code: 1e-4)",
    )


class Seam(Hardener):
    """Selective amnesia: forget under wrong labels, recover under true ones."""

    name: ClassVar[str] = "seam"
    settings_type: ClassVar[type] = SeamSettings
    settings: SeamSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """A round forgets and recovers; the guard sees what has recovered only."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            accuracies = forget(trainer, settings)
            progress(f"accuracy {accuracies[-1]:.0%} after {len(accuracies)} steps of forgetting")
            return (), recover(trainer, settings)

        return trainer.run(settings.rounds, play, progress)


def forget(trainer: Trainer, settings: SeamSettings) -> list[float]:
    """Learn wrong labels until the accuracy is under the bound; the accuracy, as a share, at each step.

    It is that of the step's own outputs. Statistics of batch norm lag behind the weights, so in evaluation mode it
    would fall before anything is forgotten.
    """
    index = torch.randperm(len(trainer.train), generator=trainer.stream)[: settings.forgetting_images]
    classes = trainer.subject.classes
    accuracies: list[float] = []

    def loss(module: nn.Module, batch: ImagePool) -> Tensor:
        logits = class_logits(module, batch.x)
        accuracies.append(float((logits.argmax(1) == batch.y).float().mean()))
        others = torch.randint(1, classes, (len(batch),), generator=trainer.stream).to(batch.y.device)
        return F.cross_entropy(logits, (batch.y + others) % classes)

    trainer.set_rate(settings.forgetting_rate)
    while len(accuracies) < settings.forgetting_steps:
        trainer.fit(lambda: trainer.random(index, settings.batch), 1, loss)
        if accuracies[-1] < settings.forgetting_bound:
            break
    return accuracies


def recover(trainer: Trainer, settings: SeamSettings) -> float:
    """Learn the true labels until the held-back accuracy is as it was, or for all epochs; the last epoch's loss."""
    for epoch in range(settings.recovery_epochs):
        trainer.set_rate(settings.recovery_decay ** (epoch / settings.recovery_epochs))
        loss = trainer.fit(trainer.clean_batch, trainer.epoch_steps)
        if trainer.guard.is_back():
            break
    return loss
