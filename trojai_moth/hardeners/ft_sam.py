"""Fine-tuning with sharpness-aware minimisation (Zhu et al., ICCV 2023).

Plain fine-tuning stays near the backdoored weights: the loss on clean images is flat there. A step of FT-SAM takes its
gradient elsewhere, at the weights that a step up the loss leads to. That step is adaptive (Kwon et al., ICML 2021):
each weight moves in proportion to its size, and the neurons of a backdoor have large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..core.images import ImagePool
from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import generator
from ..core.subject import Subject
from ..rounds.samples import Samples
from .base import Hardener
from .fit_settings import FitSettings
from .trace import HardeningRound
from .trainer import PairVisit, Trainer, cross_entropy


@record
class FtSamSettings(FitSettings):
    """The step up the loss, and how long is fine-tuned."""

    learning_rate: float = Field(default=2e-3, gt=0, le=1e12, description="rate at the start")
    train_batch_norm: bool = Field(
        default=True, description="update batch-norm statistics and use dropout while training (BackdoorBench: yes)"
    )
    accuracy_limit: float = Field(
        default=0.02, ge=0, le=1, description="largest drop of held-back accuracy, as a share"
    )
    epochs: int = Field(
        default=15, gt=0, le=1_000_000, description="epochs, the guard looks after each (BackdoorBench: 100)"
    )
    rho: float = Field(
        default=2.0, ge=0, le=1e12, description="length of the step up, in shares of the weights (BackdoorBench: 2)"
    )
    adaptive: bool = Field(
        default=True, description="scale the step up by each weight's size; without, rho is a length itself"
    )
    rate_decay: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="factor by which the rate falls over all epochs (BackdoorBench: cosine to 0)",
    )


class FtSam(Hardener):
    """Fine-tuning on clean images whose gradients are taken a step up the loss."""

    name: ClassVar[str] = "ft-sam"
    settings_type: ClassVar[type] = FtSamSettings
    settings: FtSamSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """A round is an epoch."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))

        def loss(module: nn.Module, batch: ImagePool) -> Tensor:
            return sharp_loss(module, batch, settings.rho, settings.adaptive)

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            trainer.set_rate(settings.rate_decay ** ((number - 1) / settings.epochs))
            return (), trainer.fit(trainer.clean_batch, trainer.epoch_steps, loss)

        return trainer.run(settings.epochs, play, progress)


def sharp_loss(module: nn.Module, batch: ImagePool, rho: float, adaptive: bool) -> Tensor:
    """The loss at weights a step up; its gradient is the one there, but belongs to the module's own weights.

    For weights w with gradient g the step is rho * w^2 g / |w g|, or without ``adaptive`` rho * g / |g|. Batch-norm
    statistics are updated once only, by the first of two passes.
    """
    weights = dict(module.named_parameters())
    slopes = torch.autograd.grad(cross_entropy(module, batch), list(weights.values()), allow_unused=True)
    sizes = [value.detach().abs() if adaptive else torch.ones_like(value) for value in weights.values()]
    scaled = [size * slope for size, slope in zip(sizes, slopes, strict=True) if slope is not None]
    length = torch.stack([part.norm() for part in scaled]).norm().clamp_min(1e-12)
    moved = {
        name: value if slope is None else value + rho * size**2 * slope / length
        for (name, value), size, slope in zip(weights.items(), sizes, slopes, strict=True)
    }
    state = moved | {name: value.clone() for name, value in module.named_buffers()}

    def up(x: Tensor) -> Any:
        return functional_call(module, state, (x,))

    return cross_entropy(up, batch)
