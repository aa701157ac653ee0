"""What is asked of trigger inversion: its settings, and problems over one pool of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.records import Field, record
from .precision import PrecisionChoice
from .trigger import AnyPair


@record
class InversionSettings:
    """How triggers are searched; defaults after MOTH section IV and its public code where nothing else is said."""

    steps: int = Field(
        default=150, gt=0, description="optimiser steps at most (public code: 1000 to measure, 200 to harden)"
    )
    success_bound: float = Field(default=0.9, gt=0, le=1, description="attack success rate that a trigger must reach")
    learning_rate: float = Field(default=0.1, gt=0, description="Adam's step size")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="Adam's decay of the mean")
    beta2: float = Field(default=0.9, ge=0, lt=1, description="Adam's decay of the square")
    initial_cost: float = Field(default=1e-3, ge=0, description="weight of the mask's size (in pixels) at the start")
    patience: int = Field(
        default=5, gt=0, description="successes or failures in a row before the weight moves (code: 10)"
    )
    cost_up: float = Field(default=1.5, gt=1, description="factor of the weight after successes")
    cost_down: float = Field(default=1.8371, gt=1, description="divisor of the weight after failures, 1.5 ** 1.5")
    stall_steps: int = Field(
        default=60, gt=0, description="stop a row that has not shrunk by 1 percent in so many steps"
    )
    batch_images: int = Field(default=0, ge=0, description="images per forward pass; 0: found by itself")
    precision: PrecisionChoice = Field(
        default="fp32", description="auto: bf16 where that is faster, and what is found is checked again in fp32"
    )
    recheck_steps: int = Field(
        default=20, ge=0, description="fp32 steps for a trigger that works in bf16 and fails in fp32; 0: no check"
    )


@dataclass(frozen=True)
class InversionTask:
    """P problems over one pool of images.

    victims (P): class or None for a universal trigger; targets (P,) int64; index (P, n) into the pool; weight (P, n)
    summing to 1 in each row, 0 where a row has fewer than n images.
    """

    victims: tuple[int | None, ...]
    targets: Tensor
    index: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.victims)

    def part(self, rows: list[int]) -> InversionTask:
        """The problem of these rows alone."""
        victims = tuple(self.victims[row] for row in rows)
        return InversionTask(victims, self.targets[rows], self.index[rows], self.weight[rows])


def make_task(y: Tensor, pairs: Sequence[AnyPair]) -> InversionTask:
    """Rows for (victim, target) pairs over the pool's labels y (N,): all images of the victim, or of all but target."""
    chosen = [torch.nonzero(y == v if v is not None else y != t).flatten() for v, t in pairs]
    width = max((len(index) for index in chosen), default=0)
    index = torch.zeros(len(pairs), width, dtype=torch.int64)
    weight = torch.zeros(len(pairs), width)
    for row, images in enumerate(chosen):
        if len(images) == 0:
            raise ValueError(f"pair {pairs[row]} has no images to invert on")
        index[row, : len(images)] = images
        weight[row, : len(images)] = 1.0 / len(images)
    targets = torch.tensor([target for _, target in pairs], dtype=torch.int64)
    return InversionTask(tuple(victim for victim, _ in pairs), targets, index, weight)
