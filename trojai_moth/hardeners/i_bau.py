"""Adversarial unlearning by implicit hypergradient (Zeng et al., ICLR 2022).

A game of two: one change, shared by all images and of bounded length, goes up the loss; the weights go down the loss on
changed images under their true labels. The change is an answer to the weights, so their gradient has a second part, by
way of the change. It follows from the implicit function theorem, with a fixed-point iteration in place of an inverse.

The authors' notebook makes the change on images that carry the true trigger; here, as in the paper, only clean ones are
used. Their code updates no batch-norm statistics, which is the default here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

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
class IBauSettings(FitSettings):
    """The shared change, the two losses, and how long the game is."""

    learning_rate: float = Field(default=1e-3, gt=0, le=1e12, description="rate at the start (code: 1e-3)")
    accuracy_limit: float = Field(
        default=0.02, ge=0, le=1, description="largest drop of held-back accuracy, as a share"
    )
    rounds: int = Field(
        default=10, gt=0, le=1_000_000, description="how often a change is made from nothing and unlearned (code: 5)"
    )
    size: float = Field(
        default=0.18,
        gt=0,
        le=1e12,
        description="largest root mean square of the change, on a scale of [0, 1] (code: L2 norm 10 at 32 pixels)",
    )
    ascent_steps: int = Field(default=20, gt=0, le=1_000_000, description="steps up the loss that make a change")
    ascent_share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="length of such a step, as a share of the largest change (ours)",
    )
    unlearning_steps: int = Field(
        default=20, gt=0, le=1_000_000, description="training steps per round (code: an epoch)"
    )
    changed_share: float = Field(
        default=0.2, gt=0, le=1, description="share of a training batch that carries the change (code: 0.01)"
    )
    iterations: int = Field(default=5, gt=0, le=1_000_000, description="fixed-point iterations K (I-BAU: 5)")
    inner_batch: int = Field(
        default=32, gt=0, le=100_000, description="images that the change's own loss is of, in the hypergradient"
    )
    inner_rate: float = Field(default=0.1, gt=0, le=1e12, description="rate of the fixed-point map (code: 0.1)")
    inner_weight: float = Field(
        default=0.001, ge=0, le=1e12, description="weight of the squared norm in the change's own loss (code: 0.001)"
    )


class IBau(Hardener):
    """Adversarial unlearning: a shared change goes up the loss, the weights go down their implicit hypergradient."""

    name: ClassVar[str] = "i-bau"
    settings_type: ClassVar[type] = IBauSettings
    settings: IBauSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """A round makes a change and unlearns it."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            change = shared_change(trainer, settings)

            def loss(module: nn.Module, batch: ImagePool) -> Tensor:
                near = trainer.random(torch.arange(len(trainer.train)), settings.inner_batch)
                return unlearning_loss(module, batch, near, change, settings)

            return (), trainer.fit(trainer.clean_batch, settings.unlearning_steps, loss)

        return trainer.run(settings.rounds, play, progress)


def shared_change(trainer: Trainer, settings: IBauSettings) -> Tensor:
    """A change (C, H, W) of at most ``size`` that goes up the loss on batch after batch, from nothing."""
    subject = trainer.subject
    change = torch.zeros(subject.shape, device=subject.device)
    radius = settings.size * change.numel() ** 0.5
    for _ in range(settings.ascent_steps):
        batch, change = trainer.clean_batch(), change.requires_grad_()
        with subject.frozen() as module:
            (slope,) = torch.autograd.grad(cross_entropy(module, changed(batch, change)), change)
        step = settings.ascent_share * radius / slope.norm().clamp_min(1e-12)
        change = within(change.detach() + step * slope, radius)
    return change


def within(change: Tensor, radius: float) -> Tensor:
    """The change, made shorter where its L2 norm is over ``radius``."""
    return change * (radius / change.norm().clamp_min(radius))


def changed(pool: ImagePool, change: Tensor) -> ImagePool:
    """The same images with the change, in [0, 1], under their labels."""
    return ImagePool((pool.x + change).clamp(0, 1), pool.y)


def unlearning_loss(
    module: nn.Module, batch: ImagePool, near: ImagePool, change: Tensor, settings: IBauSettings
) -> Tensor:
    """Loss on a batch of which the last share carries the change, with the hypergradient as its gradient.

    near: images on which the change is the best answer to the weights.
    """
    clean, rest = split_share(batch, 1 - settings.changed_share)

    def outer(change: Tensor) -> Tensor:
        return cross_entropy(module, concatenate([clean, changed(rest, change)]))

    def inner(change: Tensor) -> Tensor:
        return settings.inner_weight * change.square().sum() - cross_entropy(module, changed(near, change))

    return hypergradient_loss(outer, inner, change, rate=settings.inner_rate, iterations=settings.iterations)


def hypergradient_loss(
    outer: Callable[[Tensor], Tensor],
    inner: Callable[[Tensor], Tensor],
    change: Tensor,
    *,
    rate: float,
    iterations: int,
) -> Tensor:
    """The value of ``outer`` at ``change``; its gradient takes into account that ``change`` minimises ``inner``.

    Both are functions of the change and, unseen here, of weights w. The change is the fixed point of the map
    phi = change - rate * d inner / d change, so d outer / dw is the partial derivative plus v * d phi / dw, where
    v = v * d phi / d change + d outer / d change; v is found by ``iterations`` substitutions from 0.
    """
    change = change.detach().requires_grad_()
    value = outer(change)
    (slope,) = torch.autograd.grad(value, change, retain_graph=True)
    (inner_slope,) = torch.autograd.grad(inner(change), change, create_graph=True)
    mapped = change - rate * inner_slope
    solution = slope
    for _ in range(iterations - 1):
        (pulled,) = torch.autograd.grad(mapped, change, solution, retain_graph=True)
        solution = pulled + slope
    response = (mapped * solution).sum()
    # The response has a gradient that counts, and a value that does not.
    return value + response - response.detach()
