"""Triggers inverted anew each time, from a random start and in full: what MOTH's rivals train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.subject import Subject
from ..triggers.inversion import invert, random_start
from ..triggers.precision import PrecisionChoice
from ..triggers.task import InversionSettings, make_task
from ..triggers.trigger import AnyPair, Trigger
from .fit_settings import FitSettings
from .trainer import PairVisit

T = TypeVar("T")


@record
class TriggerSettings(FitSettings):
    """Training on inverted triggers; MOTH's values where it has the same setting."""

    passes: int = Field(default=2, gt=0, le=1_000_000, description="how often every target or pair has its turn")
    inversion_steps: int = Field(
        default=60, gt=0, le=1_000_000, description="inversion steps (public code: 200 a pair, 500 a target)"
    )
    initial_cost: float = Field(
        default=1e-3, ge=0, le=1e12, description="weight of the mask's size at the start (public code)"
    )
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a trigger must reach")
    sgd_steps: int = Field(default=40, gt=0, le=1_000_000, description="training steps per round")
    largest_share: float = Field(
        default=0.1, gt=0, le=1, description="a trigger over this share of the image is not stamped (code: 0.25)"
    )

    @property
    def inversion(self) -> InversionSettings:
        """All steps are run: a row may stall but not stop."""
        return in_full(self.inversion_steps, self.success_bound, self.initial_cost, self.precision)


def in_full(steps: int, success_bound: float, initial_cost: float, precision: PrecisionChoice) -> InversionSettings:
    """Settings of an inversion that runs all of its steps."""
    return InversionSettings(
        steps=steps, success_bound=success_bound, initial_cost=initial_cost, stall_steps=steps, precision=precision
    )


def fresh_triggers(
    subject: Subject,
    images: ImagePool,
    pairs: Sequence[AnyPair],
    settings: InversionSettings,
    seed: int,
) -> tuple[list[PairVisit], list[Trigger]]:
    """Invert all (victim, target) pairs at once: every one with its size in pixels, and the triggers that work.

    The size is None for a pair without a trigger that works, which is then neither stamped nor counted as a size.
    """
    task = make_task(images.y.cpu(), pairs)
    result = invert(subject, images.x, task, settings, random_start(task, subject.shape, seed))
    converged = result.converged.tolist()
    found = [result.trigger(row) if works else None for row, works in enumerate(converged)]
    visits = [(v, t, trigger.size if trigger else None) for (v, t), trigger in zip(pairs, found, strict=True)]
    return visits, [trigger for trigger in found if trigger]


def small_enough(triggers: Sequence[Trigger], area: int, share: float) -> list[Trigger]:
    """Those of less than this share of an image of ``area`` pixels: a larger one leaves nothing to recognise."""
    return [trigger for trigger in triggers if trigger.size < share * area]


def turns(items: Sequence[T], per_round: int, passes: int, stream: torch.Generator) -> list[list[T]]:
    """Every item ``passes`` times in one shuffled order, cut into rounds in which no item is twice.

    >>> [sorted(part) for part in turns([0, 1, 2], 3, 2, torch.Generator())]
    [[0, 1, 2], [0, 1, 2]]
    """
    order = [items[position] for position in torch.randperm(len(items), generator=stream).tolist()]
    every, width = order * passes, min(per_round, len(items))
    return [every[start : start + width] for start in range(0, len(every), max(width, 1))]
