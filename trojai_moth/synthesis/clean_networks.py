"""A clean network of the same classes, to see which triggers come from the classes and which from this network alone.

Natural backdoors come from the likeness of classes, so another network that was trained on clean images of the same
classes should have them too; an injected one is the subject's own. A hypothesis of ours. It
needs the classes' signs, or clean images enough to train on, which a container on a test server does not have.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import MothError
from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.seeding import derive_seed, generator
from ..core.standard_logits import standardised
from ..core.subject import Subject
from .compose import EASY_SIGNS, as_stored, compose_stored
from .settings import Recipe
from .training import capped, fit, recipe_for
from .untrained import untrained

# An image's values as they are stored.
_WHITE = 255


@record
class SurrogateSettings:
    """Which network a surrogate is and how it is trained."""

    network: Literal["same", "plain"] = Field(
        default="same",
        description="same: the subject's architecture, after make-round's recipe for it; plain: a small one for any "
        "(synthesis/clean_networks.py), trained in a fraction of the time",
    )
    least_accuracy: float = Field(
        default=0.9, ge=0, le=1, description="share of held-back images it must get right to be used"
    )
    attempts: int = Field(default=2, gt=0, le=1_000_000, description="starts from random weights before it is given up")
    epochs: int = Field(default=0, ge=0, le=1_000_000, description="cap on each stage of the recipe; 0: the recipe's")
    easy_per_class: int = Field(
        default=200,
        gt=0,
        le=100_000,
        description="large and straight signs per class to begin with, where signs are at hand",
    )


@dataclass(frozen=True)
class Stage:
    """So many epochs on images uint8 (N, h, w, C) with labels (N,)."""

    images: np.ndarray
    labels: np.ndarray
    epochs: int

    def train(self, module: nn.Module, shape: tuple[int, int], recipe: Recipe, stream: torch.Generator) -> None:
        """Train ``module`` in place, as training.fit does."""
        fit(module, self.images, self.labels, shape, epochs=self.epochs, recipe=recipe, generator=stream)


def clean_stages(train: ImagePool, recipe: Recipe) -> list[Stage]:
    """What a clean twin is trained on in make-round after easy images: clean ones twice, x (N, 3, H, W) in [0, 1]."""
    images, labels = _stored(train.x), train.y.cpu().numpy()
    return [Stage(images, labels, recipe.base_epochs), Stage(images, labels, recipe.own_epochs)]


def train_surrogate(
    subject: Subject,
    train: ImagePool,
    held: ImagePool,
    settings: SurrogateSettings,
    *,
    seed: int,
    foregrounds: Sequence[Path] = (),
    backgrounds: Path | None = None,
) -> Subject | None:
    """A clean subject of the same classes, on the same device; None if it stays too inaccurate.

    Trained from random weights on ``train``, x (N, 3, H, W) in [0, 1] under true labels, best composed ones; accuracy
    is that on ``held``; its logits have the standard scale. ``foregrounds``: the classes' sign pictures, composed with
    ``backgrounds`` into easy images to begin with, without which small networks may never see what tells alike signs
    apart. Nothing of the subject's weights is used, and the result depends on the architecture, the images and the
    seed only.

    Raises SettingsError for an architecture that cannot be built, and MothError for signs that are not one per class,
    a class without images to train on, or no held-back images.
    """
    _check(subject, train, held, foregrounds)
    recipe, shape = _recipe(subject, settings), subject.shape[1:]
    stages = _stages(subject, train, foregrounds, backgrounds, recipe, settings, seed)
    for attempt in range(settings.attempts):
        started = derive_seed(seed, "surrogate", attempt)
        module = _network(subject, settings, started).to(subject.device)
        stream = generator(started, "order")
        for stage in stages:
            stage.train(module, shape, recipe, stream)
        surrogate = replace(
            subject,
            model_id=f"surrogate of {subject.model_id}",
            module=module,
            source_sha256="",
            architecture=subject.architecture if settings.network == "same" else settings.network,
            logit_scale=None,
        )
        if surrogate.accuracy(held.x, held.y) >= settings.least_accuracy:
            return standardised(surrogate, train)
    return None


def _recipe(subject: Subject, settings: SurrogateSettings) -> Recipe:
    recipe = recipe_for(subject.architecture) if settings.network == "same" else RECIPE
    return capped(recipe, settings.epochs)


def _network(subject: Subject, settings: SurrogateSettings, seed: int) -> nn.Module:
    if settings.network == "same":
        return untrained(subject, seed=seed)
    return plain_network(subject.classes, subject.shape, seed=seed)


def _check(subject: Subject, train: ImagePool, held: ImagePool, foregrounds: Sequence[Path]) -> None:
    if foregrounds and len(foregrounds) != subject.classes:
        raise MothError(
            f"surrogate: {len(foregrounds)} signs for {subject.classes} classes; give one per class, or none at all"
        )
    missing = sorted(set(range(subject.classes)) - set(train.y.tolist()))
    if missing:
        raise MothError(f"surrogate: no images of class {missing[0]} to train on; give images of every class")
    if not len(held):
        raise MothError("surrogate: no held-back images to check it on; hold some back")


def _stages(
    subject: Subject,
    train: ImagePool,
    foregrounds: Sequence[Path],
    backgrounds: Path | None,
    recipe: Recipe,
    settings: SurrogateSettings,
    seed: int,
) -> list[Stage]:
    """What a clean twin is trained on in make-round: easy images, then two times clean ones."""
    stages = []
    if foregrounds and recipe.easy_epochs:
        easy, signs = compose_stored(
            foregrounds,
            per_class=settings.easy_per_class,
            stored_size=max(subject.preprocessing.stored_shape),
            generator=derive_seed(seed, "surrogate", "easy"),
            backgrounds=backgrounds,
            settings=EASY_SIGNS,
        )
        stages.append(Stage(_stored(subject.preprocessing(as_stored(easy))), signs.numpy(), recipe.easy_epochs))
    return [*stages, *clean_stages(train, recipe)]


def _stored(x: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] -> uint8 (N, H, W, C), which is what composed ones were made from."""
    whole: np.ndarray = (x * _WHITE).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return whole


# Of the first, the second and every later block.
_CHANNELS = (32, 32, 64)
_SMALLEST_SIDE = 3
_POOLED = 2
RECIPE = Recipe(easy_epochs=2, base_epochs=2, own_epochs=3, rate=3e-3, batch=64)


def plain_network(classes: int, shape: tuple[int, int, int], *, seed: int) -> nn.Module:
    """Blocks of convolution, batch normalisation and pooling down to a side of 2 or 3; random weights from ``seed``.

    The form of the four-block network of few-shot learning (Vinyals et al. 2016, section 4.1.1), as many blocks as the
    image is large. Input (N, *shape) in [0, 1], shape (C, H, W), output logits (N, classes).
    """
    inputs, side = shape[0], min(shape[1:])
    blocks: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        while side // 2 >= _POOLED and (side > _SMALLEST_SIDE or not blocks):
            outputs = _CHANNELS[min(len(blocks), len(_CHANNELS) - 1)]
            blocks.append(_block(inputs, outputs))
            inputs, side = outputs, side // 2
        head = [nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten(), nn.Linear(inputs * _POOLED**2, classes)]
    return nn.Sequential(*blocks, *head)


def _block(inputs: int, outputs: int) -> nn.Module:
    parts: list[tuple[str, nn.Module]] = [
        ("convolution", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),
        ("normalisation", nn.BatchNorm2d(outputs)),
        ("activation", nn.ReLU()),
        ("pooling", nn.MaxPool2d(2)),
    ]
    return nn.Sequential(OrderedDict(parts))
