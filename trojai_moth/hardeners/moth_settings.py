"""MOTH's settings; the paper's and its public code's values where they carry over."""

from __future__ import annotations

import math

from ..core.records import Field, record
from . import Part
from .fit_settings import FitSettings


@record
class MothSettings(FitSettings):
    """A round hardens some pairs for several turns; a turn is a little inversion and a little training."""

    rounds: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="rounds; each picks its pairs anew. 0: by the number of pairs, see visits",
    )
    visits: int = Field(
        default=4,
        gt=0,
        le=1_000_000,
        description="where rounds is 0: turns of a pair on average; all have one, the others go to small triggers",
    )
    least_growth: float = Field(
        default=0.02,
        ge=0,
        le=1e12,
        description="where rounds is 0: ends, after three turns of a pair on average, when the smallest triggers grow "
        "by less than this share while as many pairs have their turn as there are",
    )
    pairs_per_round: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="class pairs hardened together in a round (public code: 1); 0: one per class",
    )
    turns: int = Field(
        default=8, gt=0, le=1_000_000, description="turns of inversion and training in a round (public code: 3)"
    )
    images_per_direction: int = Field(
        default=4, gt=0, le=100_000, description="images per direction that a round's triggers are inverted on"
    )
    first_steps: int = Field(
        default=30, gt=0, le=1_000_000, description="inversion steps at a pair's first visit (public code: 200)"
    )
    later_steps: int = Field(
        default=15,
        gt=0,
        le=1_000_000,
        description="inversion steps at later visits, from the stored trigger (code: 50)",
    )
    turn_steps: int = Field(
        default=5, gt=0, le=1_000_000, description="inversion steps in the turns after a round's first (code: 50)"
    )
    sgd_steps: int = Field(default=5, gt=0, le=1_000_000, description="training steps per turn (public code: 1)")
    first_cost: float = Field(
        default=1e-3, ge=0, le=1e12, description="weight of the mask's size at a pair's first visit"
    )
    later_cost: float = Field(default=1e-2, ge=0, le=1e12, description="weight of the mask's size from then on")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a pair trigger must reach")
    warmup_steps: int = Field(
        default=30, gt=0, le=1_000_000, description="inversion steps of the universal triggers (public code: 500)"
    )
    warmup_bound: float = Field(
        default=0.99, gt=0, le=1, description="success rate that a universal trigger must reach"
    )
    warmup_per_class: int = Field(
        default=4, gt=0, le=100_000, description="images per class in warm-up (public code: 10)"
    )
    warmup_images: int = Field(
        default=80,
        gt=0,
        le=100_000,
        description="images of all classes together in warm-up, but at least one of each: every target "
        "sees them all, so that warm-up grows with the square of the classes (public code: no bound)",
    )
    random_share: float = Field(default=0.3, ge=0, le=1, description="chance that the scheduler takes a random pair")
    largest_share: float = Field(
        default=0.1, gt=0, le=1, description="a trigger over this share of the image is not stamped (code: 0.25)"
    )
    without: tuple[Part, ...] = Field(default=(), description="design parts to leave out: symmetric, dynamic, warmup, "
                                      "scheduler (the paper's ablation)")  # fmt: skip

    def pairs_at_once(self, classes: int) -> int:
        """Class pairs that a round hardens together, of a model of so many classes."""
        return max(1, min(self.pairs_per_round or classes, math.comb(classes, 2)))

    def planned_rounds(self, classes: int) -> int:
        """Rounds after the warm-up for so many classes, unless accuracy or the smallest triggers end it.

        >>> [MothSettings().planned_rounds(classes) for classes in (5, 20, 45)]
        [8, 38, 88]
        """
        return self.rounds or math.ceil(self.visits * math.comb(classes, 2) / self.pairs_at_once(classes))
