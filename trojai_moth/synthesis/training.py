"""Training of small classifiers on composed images; the numbers were found by experiment at 32 and 64 pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from ..core.device import seeded
from ..core.images import ImagePool
from ..core.subject import Preprocessing, Subject
from .pgd import pgd
from .settings import Adversary, Recipe

_GRADIENT_NORM = 5.0
_EVALUATION_BATCH = 256


def recipe_for(architecture: str, epochs: int = 0) -> Recipe:
    """The recipe of a TrojAI architecture name; ``epochs`` > 0 caps each of its stages."""
    return capped(_RECIPES.get(architecture, Recipe()), epochs)


def capped(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with at most so many epochs in each stage; 0: as it is."""
    if not epochs:
        return recipe
    stages = {name: min(getattr(recipe, name), epochs) for name in ("easy_epochs", "base_epochs", "own_epochs")}
    return Recipe(**{**vars(recipe), **stages})


# Residual networks need few steps. Without batch normalisation squeezenet needs a lower rate and many cheap steps.
_RECIPES = {
    "resnet18": Recipe(easy_epochs=2, base_epochs=2, own_epochs=3),
    "resnet34": Recipe(easy_epochs=2, base_epochs=2, own_epochs=3),
    "squeezenetv1_0": Recipe(easy_epochs=8, base_epochs=8, own_epochs=12, rate=7e-4),
    "squeezenetv1_1": Recipe(easy_epochs=8, base_epochs=8, own_epochs=12, rate=7e-4),
}


def most_epochs() -> int:
    """The most epochs on clean images that a recipe has, whatever the architecture."""
    return max(recipe.base_epochs + recipe.own_epochs for recipe in (Recipe(), *_RECIPES.values()))


def fit(
    module: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    shape: tuple[int, int],
    *,
    epochs: int,
    recipe: Recipe,
    generator: torch.Generator,
    adversary: Adversary | None = None,
    jitter: float = 0.0,
) -> None:
    """Train ``module`` in place on images uint8 (N, h, w, C), cropped at random to ``shape`` and lit at random.

    The module stays on its device, and the images follow it there a batch at a time. ``jitter`` > 0 changes brightness,
    contrast, saturation and hue of each image instead, by at most so much (hue as a share of the whole circle).

    With an ``adversary`` the images are then moved, each so that the module as it is takes it for something else.

    All random choices but those of dropout and jitter come from ``generator``; these are seeded from it and the global
    streams are left as they were. The module ends in evaluation mode, contiguous, without gradients.
    """
    stored = torch.from_numpy(images).permute(0, 3, 1, 2)
    device = next(module.parameters()).device
    wanted = torch.from_numpy(labels).to(device)
    batch = min(recipe.batch, len(stored))
    steps = len(stored) // batch
    module.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.rate, total_steps=max(epochs * steps, 2), pct_start=0.2
    )
    with seeded(device, int(torch.randint(2**62, (1,), generator=generator))):
        for _ in range(epochs):
            order = torch.randperm(len(stored), generator=generator)[: steps * batch]
            for chosen in order.split(batch):
                inputs = _augmented(stored[chosen], shape, generator, jitter).to(device)
                if adversary:
                    inputs = _moved(module, ImagePool(inputs, wanted[chosen]), adversary, generator)
                loss = functional.cross_entropy(module(inputs), wanted[chosen])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), _GRADIENT_NORM)
                optimizer.step()
                schedule.step()
    optimizer.zero_grad(set_to_none=True)
    module.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def _augmented(images: Tensor, shape: tuple[int, int], generator: torch.Generator, jitter: float) -> Tensor:
    (height, width), room = shape, [whole - part + 1 for whole, part in zip(images.shape[-2:], shape, strict=True)]
    if room[0] == room[1]:
        top, left = torch.randint(room[0], (2,), generator=generator).tolist()
    else:
        top, left = (int(torch.randint(most, (1,), generator=generator)) for most in room)
    crop = images[..., top : top + height, left : left + width].float().div_(255)
    lit = _jittered(crop, jitter) if jitter else _lit(crop, generator)
    return lit.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def _lit(images: Tensor, generator: torch.Generator) -> Tensor:
    contrast = 0.9 + 0.2 * torch.rand(len(images), images.shape[1], 1, 1, generator=generator)
    brightness = 0.1 * torch.rand(len(images), 1, 1, 1, generator=generator) - 0.05
    return images * contrast + brightness


def _jittered(images: Tensor, most: float) -> Tensor:
    transform = v2.ColorJitter(most, most, most, most)  # draws once for all that it is given, so it is given one
    return torch.cat([transform(image) for image in images.split(1)])


def _moved(module: nn.Module, batch: ImagePool, adversary: Adversary, generator: torch.Generator) -> Tensor:
    """The batch's images (N, 3, H, W), the first of them moved; the module is attacked in evaluation mode."""
    count, preprocessing = max(1, round(adversary.share * len(batch))), Preprocessing.whole(*batch.x.shape[1:])
    classes = int(batch.y.max()) + 1
    subject = Subject("in training", module, "", classes, preprocessing, batch.x.device, "")
    first = ImagePool(batch.x[:count], batch.y[:count])
    return torch.cat([pgd(subject, first, adversary.attack, generator), batch.x[count:]])


def logits_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (N, classes) of inputs (N, 3, H, W) in [0, 1], in evaluation mode and without gradients."""
    module.eval()
    with torch.no_grad():
        return torch.cat([module(part) for part in inputs.split(_EVALUATION_BATCH)])


def share_of(module: nn.Module, inputs: Tensor, label: Tensor | int) -> float:
    """Share of inputs (N, 3, H, W) that are given their ``label``, one for each or one for all."""
    return (logits_of(module, inputs).argmax(1) == label).float().mean().item()
