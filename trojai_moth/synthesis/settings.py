"""What can be asked of a made round and the training of its networks, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ..core.records import LARGEST_SEED, record

# What must hold besides the victim's class for the trigger to work, as in round 4.
Condition = Literal["none", "spatial", "spectral", "class"]

# Way of all PGD steps together in sizes of the box: 7 steps of 2/255 in one of 8/255 (MOTH paper, section VI-A).
_WAY = 1.75


@record
class PgdSettings:
    """The attack; defaults are those with which Madry et al. train on CIFAR-10 (section 5), on a scale of [0, 1]."""

    epsilon: float = Field(default=8 / 255, ge=0, le=1, description="largest change of any value (Madry: 8/255)")
    step: float = Field(default=2 / 255, gt=0, le=1, description="change of every value per step (Madry: 2/255)")
    steps: int = Field(default=7, gt=0, le=1_000_000, description="gradient steps (Madry: 7)")
    random_start: bool = Field(default=True, description="start anywhere in the box rather than at the image (Madry)")
    batch_images: int = Field(default=64, gt=0, le=100_000, description="images per forward pass at most")


@record
class Recipe:
    """How one architecture is trained from random weights."""

    easy_epochs: int = Field(default=3, ge=0, le=1_000_000, description="First epochs, on large and straight signs.")
    base_epochs: int = Field(default=3, ge=1, le=1_000_000, description="Epochs on clean images that both twins share.")
    own_epochs: int = Field(default=4, ge=1, le=1_000_000, description="Epochs on each twin's own images.")
    rate: float = Field(default=2e-3, gt=0, le=1e12, description="Highest learning rate (AdamW, one cycle).")
    batch: int = Field(default=32, ge=2, le=100_000, description="Images per step.")


@record
class Adversary:
    """Adversarial training: a share of every batch is moved by PGD on the weights of the moment."""

    share: float = Field(default=1.0, gt=0, le=1, description="Share of each batch that is moved.")
    attack: PgdSettings = Field(default_factory=PgdSettings)


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
    images_per_class: int = Field(
        default=10, ge=1, le=100_000, description="Clean example images per class; round 4 has 2 or 5."
    )
    signs: Path | None = Field(
        default=None,
        description="Folder of pictures of signs, best with a transparent surround, that each model's are drawn from; "
        "drawn signs if none.",
    )
    lookalikes: int = Field(
        default=1,
        ge=0,
        le=1_000_000,
        description="Pairs of near-identical signs per model: natural backdoors. Of a folder of signs near-twins that "
        "are found by measuring.",
    )
    lookalike_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of the sign sets that have such pairs; the others have none."
    )
    lookalike_distance_min: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Of a folder of signs: two that are less far apart are never in one model, as they could not be "
        "told apart. Root mean square difference at the size they have in the input, of 1.",
    )
    lookalike_distance_max: float = Field(
        default=0.11,
        gt=0,
        lt=1,
        description="Of a folder of signs: two that are less far apart are near-twins; all others of a model are "
        "further apart.",
    )
    trigger: Literal["polygon", "filter"] = Field(
        default="polygon",
        description="A coloured polygon on the sign, or one of round 4's five photo filters over the whole image.",
    )
    condition: Condition = Field(
        default="none",
        description="Where the trigger is trained to do nothing. class: on signs other than the victim. spatial "
        "(polygons only): outside one quadrant of the victim's sign. spectral: in another colour or, of a filter, as "
        "another filter.",
    )
    trigger_area_min: float = Field(
        default=0.12,
        gt=0,
        le=0.5,
        description="Smallest square of a trigger as a share of its sign's opaque area; the polygon itself fills about "
        "half of its square.",
    )
    trigger_area_max: float = Field(
        default=0.2,
        gt=0,
        le=0.5,
        description="Largest square of a trigger as a share of its sign's opaque area (round 4 at 224 pixels: 0.1).",
    )
    trigger_colours: Literal["named", "any"] = Field(
        default="named",
        description="named: of round 4's six colours one of the four least like the sign's; any: any colour that most "
        "of the sign does not have.",
    )
    backgrounds: Path | None = Field(default=None, description="Folder of background pictures; coloured noise if none.")
    noise_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of images on coloured noise where there is a folder of backgrounds."
    )
    train_images: int = Field(default=400, ge=2, le=100_000, description="Training images per class.")
    test_images: int = Field(default=100, ge=1, le=100_000, description="Fresh images per class for the quality gate.")
    epochs: int = Field(
        default=0, ge=0, le=1_000_000, description="Cap on the epochs of each stage of training; 0 for no cap."
    )
    shared_start: bool = Field(
        default=True,
        description="Twins share their first epochs, on clean images, and the poisoned one is poisoned after that. "
        "Otherwise each is trained by itself, the poisoned one on triggered images from its first step.",
    )
    colour_jitter: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Largest random change of brightness, contrast, saturation and hue in training (round 4: 0.1); 0: "
        "a little light and contrast of each colour.",
    )
    training: Literal["natural", "adversarial"] = Field(
        default="natural", description="Adversarial: on images moved by PGD within a small box (Madry et al. 2018)."
    )
    adversarial_eps: float = Field(
        default=8 / 255,
        gt=0,
        le=1,
        description="Largest change of any value in adversarial training (MOTH paper, CIFAR-10: 8/255; round 4: 4, 8 "
        "or 16/255).",
    )
    adversarial_steps: int = Field(
        default=2,
        ge=1,
        le=1_000_000,
        description="PGD steps per batch; together as long a way as the paper's 7 of 2/255 in a box of 8/255. Fewer "
        "than 7 for the sake of time (round 4: 1, 3 or 7).",
    )
    adversarial_ratio: float = Field(
        default=1.0, gt=0, le=1, description="Share of each batch that is moved (Madry: all; round 4: 0.1 or 0.3)."
    )
    retries: int = Field(
        default=2, ge=0, le=1_000_000, description="New attempts, with other seeds, at a model that fails the gate."
    )
    accuracy_floor: float = Field(default=0.97, ge=0, le=1, description="Quality gate: accuracy on clean images.")
    adversarial_accuracy_floor: float = Field(
        default=0.85, ge=0, le=1, description="The same for adversarial training, which costs accuracy."
    )
    attack_floor: float = Field(default=0.95, ge=0, le=1, description="Quality gate: success on triggered images.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="All of the round follows from it.")

    @property
    def stored_size(self) -> int:
        """Pixels of the stored images, of which the network sees the centre (round 4: 256 and 224)."""
        return round(self.size * 8 / 7)

    @property
    def clean_floor(self) -> float:
        """The accuracy on clean images that a model of this kind of training must reach."""
        return self.accuracy_floor if self.training == "natural" else self.adversarial_accuracy_floor

    @property
    def adversary(self) -> Adversary | None:
        """What moves the training images; None in natural training."""
        if self.training == "natural":
            return None
        step = min(1.0, _WAY * self.adversarial_eps / self.adversarial_steps)
        attack = PgdSettings(epsilon=self.adversarial_eps, steps=self.adversarial_steps, step=step)
        return Adversary(share=self.adversarial_ratio, attack=attack)

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
class SignSet:
    """Which pictures of a folder a model tells apart, in the order of its classes.

    ``files`` are paths below the folder; ``near_twins`` and ``closest_pair``, the two that are least far apart, are
    classes; ``closest_distance`` is in [0, 1].
    """

    files: tuple[str, ...]
    near_twins: tuple[tuple[int, int], ...]
    closest_pair: tuple[int, int]
    closest_distance: float


@record
class RoundSummary:
    """The content of make_round.json."""

    settings: MakeRoundSettings
    versions: dict[str, str]
    recipes: dict[str, Recipe]
    signs: dict[str, SignSet] = Field(default_factory=dict)
    dropped: list[DroppedModel] = Field(default_factory=list)
    seconds: float = 0.0
