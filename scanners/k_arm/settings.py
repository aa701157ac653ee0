"""K-Arm's settings: the values of its public code, each under a name; sizes are those of 224 x 224 images.

All sizes scale with the area of the image, and so does what a pixel of the mask costs (one over it), so that the
balance of success and size is the published one at any size of image.
"""

from __future__ import annotations

from ...core.records import Field, record


@record
class KArmSettings:
    """Pre-screening, search, pruning, choice of arms, decision and evidence."""

    images_per_class: int = Field(
        default=10,
        gt=0,
        le=100_000,
        description="images of a class that triggers are searched on (public code: all there are)",
    )
    few_classes: int = Field(
        default=8,
        gt=0,
        le=1_000_000,
        description="up to so many classes, the screen looks at few_top of them (public code)",
    )
    few_top: int = Field(
        default=2,
        gt=0,
        le=1_000_000,
        description="most likely classes of an image that the screen looks at then (public code)",
    )
    top_share: float = Field(
        default=0.25, gt=0, le=1, description="the same as a share of more classes (public code: gamma)"
    )
    universal_share: float = Field(
        default=0.95, gt=0, le=1, description="share of all images with a class among the top that makes it the only "
        "arm, for images of any class (public code: global_theta)",
    )  # fmt: skip
    pair_share: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="share of a victim's images with the target among the top (public code: local_theta)",
    )
    least_probability: float = Field(
        default=1e-8,
        ge=0,
        le=1e12,
        description="sum and median of the target's probability must be above this (public code)",
    )
    victims_per_target: int = Field(
        default=3, gt=0, le=1_000_000, description="arms per target at most, the likeliest (public code)"
    )

    steps: int = Field(default=1000, gt=0, le=1_000_000, description="steps of all arms together (public code)")
    learning_rate: float = Field(default=0.1, gt=0, le=1e12, description="Adam's step size (public code)")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="Adam's decay of the mean (public code)")
    beta2: float = Field(default=0.9, ge=0, lt=1, description="Adam's decay of the square (public code)")
    success_bound: float = Field(
        default=0.99, gt=0, le=1, description="attack success rate that a trigger must reach (public code)"
    )
    centre_side: float = Field(
        default=50.0, ge=0, le=1e12, description="side of the block that a pair's mask starts with (public code)"
    )
    one_colour: bool = Field(
        default=True, description="a pair's trigger has one colour, as TrojAI's polygons have (public code)"
    )
    first_cost: float = Field(
        default=1e-3,
        ge=0,
        le=1e12,
        description="weight of the mask's size, 0 until the first successes (public code)",
    )
    cost_successes: int = Field(
        default=2, gt=0, le=1_000_000, description="successes in a row until the size has a weight at all (public code)"
    )
    patience: int = Field(
        default=5,
        gt=0,
        le=1_000_000,
        description="successes or failures in a row before the weight moves (public code)",
    )
    cost_factor: float = Field(
        default=1.5, gt=1, le=1e12, description="by how much the weight moves, either way (public code)"
    )

    prune: bool = Field(default=True, description="give up arms that do not succeed (public code)")
    prune_hopeless: int = Field(
        default=10,
        ge=0,
        le=1_000_000,
        description="steps after which an arm without any success is dropped (public code)",
    )
    prune_early: int = Field(
        default=20, ge=0, le=1_000_000, description="steps after which prune_early_success is asked for (public code)"
    )
    prune_early_success: float = Field(
        default=0.3, ge=0, le=1, description="best success rate asked for then (public code)"
    )
    prune_late: int = Field(
        default=200, ge=0, le=1_000_000, description="steps after which prune_late_success is asked for (public code)"
    )
    prune_late_success: float = Field(
        default=0.8, ge=0, le=1, description="best success rate asked for then (public code)"
    )
    prune_back_success: float = Field(
        default=1.0, ge=0, le=1, description="the same of an arm of the symmetric check (public code)"
    )

    arms_at_once: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="arms that make a step together; 1: one at a time, as published; 0: as fill a batch, within "
        "largest_turn",
    )
    largest_turn: float = Field(
        default=0.25, gt=0, le=1, description="largest share of the arms that makes a step together (ours)"
    )
    warm_successes: int = Field(
        default=2, gt=0, le=1_000_000, description="smaller and smaller triggers until an arm may be left (public code)"
    )
    random_share: float = Field(default=0.3, ge=0, le=1, description="chance of a random arm (public code: epsilon)")
    speed_from: float = Field(
        default=2500.0, gt=0, le=1e12, description="size from which an arm's speed is reckoned (public code)"
    )
    size_weight: float = Field(
        default=1e4, ge=0, le=1e12, description="weight of 1 / size against speed (public code: beta)"
    )
    enough_successes: int = Field(
        default=60,
        gt=0,
        le=1_000_000,
        description="successes after which the smallest arm ends the search (public code)",
    )
    universal_patience: int = Field(
        default=10,
        ge=0,
        le=1_000_000,
        description="steps without a smaller trigger that end a universal search, once its weight has moved both ways "
        "(public code)",
    )

    universal_bound: float = Field(
        default=1720.0, gt=0, le=1e12, description="largest suspicious universal trigger, pixels (public code)"
    )
    pair_bound: float = Field(
        default=1000.0, gt=0, le=1e12, description="largest suspicious pair trigger, pixels (public code)"
    )
    symmetric_check: bool = Field(
        default=True, description="ask that the way back be ratio_bound times as large (public code)"
    )
    ratio_bound: float = Field(
        default=10.0,
        gt=0,
        le=1e12,
        description="reverse over forward size above which a pair is suspect (public code)",
    )

    candidates: int = Field(
        default=5, gt=0, le=1_000_000, description="arms that evidence is gathered for, the smallest (ours)"
    )
    left_out_candidates: int = Field(
        default=3, ge=0, le=1_000_000, description="arms searched again with images left out (ours)"
    )
    folds: int = Field(
        default=5, gt=1, le=1_000_000, description="parts of a victim's images, each left out once (ours)"
    )
    left_out_steps: int = Field(default=80, gt=0, le=1_000_000, description="steps of each of those searches (ours)")
    jitter: float = Field(
        default=0.025,
        ge=0,
        lt=0.5,
        description="largest shift of a stamped held-back image as a share of its side, and change of its scale; and "
        "60 times that in degrees (ours)",
    )
    batch_images: int = Field(default=0, ge=0, le=100_000, description="images per forward pass; 0: found by itself")
