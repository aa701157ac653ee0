"""What can be asked of a made round, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from .records import record
from .training import Recipe


@record
class MakeRoundSettings:
    """What kind of round is made."""

    models: int = Field(default=8, ge=2, le=1000, description="Number of models; rounded up to whole pairs of twins.")
    classes: int = Field(default=5, ge=2, le=45, description="Signs per model.")
    size: int = Field(
        default=32, ge=16, le=299, description="Pixels of the network's input; stored images are 8/7 of it."
    )
    architecture: str = Field(
        default="resnet18", description="TrojAI architecture; several, parted by commas, are used in turn."
    )
    images_per_class: int = Field(default=10, ge=1, description="Clean example images per class; round 4 has 2 or 5.")
    lookalikes: int = Field(default=1, ge=0, description="Pairs of near-identical signs per model: natural backdoors.")
    lookalike_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of the sign sets that have such pairs; the others have none."
    )
    condition: Literal["none", "class"] = Field(
        default="none", description="With 'class' the trigger is trained to do nothing on signs other than the victim."
    )
    trigger_area_min: float = Field(
        default=0.12,
        gt=0,
        le=0.5,
        description="Smallest square of a trigger as a share of its sign's area; the polygon fills about half of it.",
    )
    trigger_area_max: float = Field(
        default=0.2,
        gt=0,
        le=0.5,
        description="Largest square of a trigger as a share of its sign's area (round 4 at 224 pixels: 0.1).",
    )
    backgrounds: Path | None = Field(default=None, description="Folder of background pictures; coloured noise if none.")
    train_images: int = Field(default=400, ge=2, description="Training images per class.")
    test_images: int = Field(default=100, ge=1, description="Fresh images per class for the quality gate.")
    epochs: int = Field(default=0, ge=0, description="Cap on the epochs of each stage of training; 0 for no cap.")
    retries: int = Field(default=2, ge=0, description="New attempts, with other seeds, at a model that fails the gate.")
    accuracy_floor: float = Field(default=0.97, ge=0, le=1, description="Quality gate: accuracy on clean images.")
    attack_floor: float = Field(default=0.95, ge=0, le=1, description="Quality gate: success on triggered images.")
    seed: int = Field(default=0, ge=0, description="All of the round follows from it.")

    @property
    def stored_size(self) -> int:
        """Pixels of the stored images, of which the network sees the centre (round 4: 256 and 224)."""
        return round(self.size * 8 / 7)

    @property
    def architectures(self) -> tuple[str, ...]:
        """The TrojAI names in ``architecture``."""
        return tuple(name.strip() for name in self.architecture.split(",") if name.strip())


@record
class MadeModel:
    """One model that passed the quality gate."""

    model_id: str
    twin_group: int
    poisoned: bool
    architecture: str
    accuracy: float
    attack_success: float | None


@record
class DroppedModel:
    """One model that is missing from the round, and why."""

    model_id: str
    twin_group: int
    reason: str


@record
class RoundSummary:
    """The content of make_round.json."""

    settings: MakeRoundSettings
    versions: dict[str, str]
    recipes: dict[str, Recipe]
    dropped: list[DroppedModel] = Field(default_factory=list)
    seconds: float = 0.0
