"""MOTH's settings; the paper's and its public code's values where they carry over."""

from __future__ import annotations

from typing import Literal

from ..records import Field, record


@record
class MothSettings:
    """MOTH's settings; the paper's and its public code's values where they carry over."""

    rounds: int = Field(default=16, gt=0, description="rounds of inversion and training")
    pairs_per_round: int = Field(
        default=4, gt=0, description="class pairs hardened together in a round (public code: 1)"
    )
    images_per_direction: int = Field(
        default=8, gt=0, description="images per direction that a round's triggers are inverted on"
    )
    first_steps: int = Field(default=30, gt=0, description="inversion steps at a pair's first visit (public code: 200)")
    later_steps: int = Field(
        default=15, gt=0, description="inversion steps at later visits, from the stored trigger (code: 50)"
    )
    first_cost: float = Field(default=1e-3, ge=0, description="weight of the mask's size at a pair's first visit")
    later_cost: float = Field(default=1e-2, ge=0, description="weight of the mask's size at later visits")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a pair trigger must reach")
    warmup_steps: int = Field(
        default=30, gt=0, description="inversion steps of the universal triggers (public code: 500)"
    )
    warmup_bound: float = Field(
        default=0.99, gt=0, le=1, description="success rate that a universal trigger must reach"
    )
    warmup_per_class: int = Field(default=4, gt=0, description="images per class in warm-up (public code: 10)")
    random_share: float = Field(default=0.3, ge=0, le=1, description="chance that the scheduler takes a random pair")
    ramp_rounds: int = Field(default=20, gt=0, description="rounds until the scheduler goes by gain alone")
    sgd_steps: int = Field(default=40, gt=0, description="training steps per round (public code: 3 per period)")
    recovery_steps: int = Field(
        default=40, ge=0, description="clean steps that may win accuracy back before a round counts"
    )
    rate_growth: float = Field(default=1.25, ge=1, description="factor of the rate after a kept round, up to its start")
    batch: int = Field(
        default=64, gt=1, description="images per training step, half of them stamped (public code: 128)"
    )
    optimiser: Literal["adam", "sgd"] = Field(
        default="adam",
        description="adam (ours: keeps gentle steps effective) or the paper's sgd with Nesterov momentum",
    )
    learning_rate: float = Field(default=5e-4, gt=0, description="rate at the start (sgd: 1e-3 in the Keras code)")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd's Nesterov momentum, adam's first beta")
    clip_norm: float = Field(
        default=1.0, gt=0, description="bound on the gradient's norm per step (ours: gentle steps)"
    )
    largest_share: float = Field(
        default=0.1, gt=0, le=1, description="a trigger over this share of the image is not stamped (code: 0.25)"
    )
    train_batch_norm: bool = Field(
        default=False, description="update batch-norm statistics and use dropout while training"
    )
    accuracy_limit: float = Field(default=0.005, ge=0, description="largest drop of held-back accuracy, as a share")
    back_offs: int = Field(default=6, ge=0, description="rounds in a row that may be taken back before hardening stops")
