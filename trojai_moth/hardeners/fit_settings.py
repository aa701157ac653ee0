"""What every hardener can be told about its training; apart from the trainer, so that it can be read without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from ..core.records import Field, record
from ..triggers.precision import PrecisionChoice


@record
class FitSettings:
    """How weights are changed and what it may cost; hardeners add their own settings to these."""

    batch: int = Field(default=64, gt=1, le=100_000, description="images per training step")
    optimiser: Literal["adam", "sgd"] = Field(
        default="adam", description="adam (ours: keeps gentle steps effective) or sgd with Nesterov momentum"
    )
    learning_rate: float = Field(default=5e-4, gt=0, le=1e12, description="rate at the start")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd's Nesterov momentum, adam's first beta")
    clip_norm: float = Field(default=1.0, gt=0, le=1e12, description="bound on the gradient's norm per step")
    train_batch_norm: bool = Field(
        default=False, description="update batch-norm statistics and use dropout while training"
    )
    average_decay: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="a round's weights are the exponential moving average of those after each training step, with this "
        "decay; 0: the last ones",
    )
    recovery_steps: int = Field(
        default=40, ge=0, le=1_000_000, description="clean steps that may win accuracy back before a round counts"
    )
    part_ways: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.5, 0.25),
        max_length=100,
        description="shares of a round's way that are tried before all of it is taken back",
    )
    rate_growth: float = Field(
        default=1.25, ge=1, le=1e12, description="factor of the rate after a kept round, up to its start"
    )
    accuracy_limit: float = Field(
        default=0.005, ge=0, le=1, description="largest drop of held-back accuracy, as a share"
    )
    back_offs: int = Field(
        default=6, ge=0, le=1_000_000, description="rounds in a row that may be taken back before hardening stops"
    )
    precision: PrecisionChoice = Field(
        default="auto",
        description="auto: train and invert in bf16 where that is faster; accuracy is always fp32's; "
        "compiled: invert through torch.compile, too, where that is faster",
    )
