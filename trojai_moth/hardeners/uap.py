"""Training against a universal adversarial perturbation (Shafahi et al., AAAI 2020, algorithm 3).

One small change of all values, the same for every image, goes up the loss by a step at each batch while the weights go
down it. What it makes robust against is not a trigger, so class distances need not grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..core.images import ImagePool, concatenate
from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import generator
from ..core.subject import Subject
from ..rounds.samples import Samples
from .base import Hardener
from .fit_settings import FitSettings
from .trace import HardeningRound
from .trainer import PairVisit, Trainer, cross_entropy, split_share


@record
class UapSettings(FitSettings):
    """The perturbation, on a scale of [0, 1], and how long it is trained against."""

    rounds: int = Field(default=8, gt=0, le=1_000_000, description="rounds of training, the guard looks after each")
    sgd_steps: int = Field(default=40, gt=0, le=1_000_000, description="training steps per round")
    epsilon: float = Field(default=8 / 255, ge=0, le=1, description="largest change of any value (8/255, as for PGD)")
    step: float = Field(
        default=8 / 255, gt=0, le=1, description="change of every value per batch (algorithm 3: epsilon)"
    )
    clean_share: float = Field(default=0.0, ge=0, lt=1, description="share of a batch that stays as it is (paper: 0)")


class UniversalPerturbation:
    """A change ``value`` (3, H, W) within ``epsilon`` that is added to every image."""

    def __init__(self, subject: Subject, epsilon: float, step: float) -> None:
        self.subject, self.epsilon, self.step = subject, epsilon, step
        self.value = torch.zeros(subject.shape, device=subject.device)

    def on(self, pool: ImagePool) -> ImagePool:
        """The same images with the change, in [0, 1], under their labels."""
        return ImagePool(_add(pool.x, self.value), pool.y)

    def ascend(self, pool: ImagePool) -> None:
        """One step up the loss of these images, back into the box."""
        value = self.value.requires_grad_()
        with self.subject.frozen() as module:
            loss = cross_entropy(module, ImagePool(_add(pool.x, value), pool.y))
            (gradient,) = torch.autograd.grad(loss, value)
        self.value = (value.detach() + self.step * gradient.sign()).clamp(-self.epsilon, self.epsilon)


def _add(x: Tensor, value: Tensor) -> Tensor:
    return (x + value).clamp(0, 1)


class Uap(Hardener):
    """Universal adversarial training: one small change, shared by all images, that grows with the model."""

    name: ClassVar[str] = "uap"
    settings_type: ClassVar[type] = UapSettings
    settings: UapSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """The perturbation lives through all rounds, also those whose weights are taken back."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))
        change = UniversalPerturbation(work, settings.epsilon, settings.step)

        def batch() -> ImagePool:
            images = trainer.clean_batch()
            clean, rest = split_share(images, settings.clean_share)
            change.ascend(rest)
            return concatenate([clean, change.on(rest)])

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            return (), trainer.fit(batch, settings.sgd_steps)

        return trainer.run(settings.rounds, play, progress)
