"""Inversion without the target's own features: how much larger a trigger must be that may not look like its target.

After Class Subspace Orthogonalization (CSO, arXiv 2512.08129, equations 4 and 5): a channel mask M holds what the
network recognises the target's clean images by, and the search is punished for features along M f(target). A natural
trigger needs those features, an injected one does not. CSO adds the penalty to a detector's loss; here the size of a
trigger is what counts, and the smallest mask that works is kept whatever its features. So a trigger works on an image
only where its features also stay clear of the target's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine import Engine, Gradient
from ..errors import MothError
from ..images import ImagePool
from ..inversion import InversionSettings, invert, make_task, random_start
from ..plan import Plan
from ..records import Field, record
from ..subject import Subject
from ..trigger import Trigger
from .cut import Cut, last_cut


@record
class SuppressionSettings:
    """How the target's features are found and kept away from."""

    convolutions_behind: int = Field(
        default=1, gt=0, description="convolutions that must follow the place where features are compared"
    )
    mask_steps: int = Field(default=200, gt=0, description="optimiser steps for the target's channel mask")
    mask_rate: float = Field(default=0.1, gt=0, description="Adam's step size for it")
    weight: float = Field(
        default=1.0, ge=0, description="weight of the likeness beside the cross-entropy; 0: nothing is suppressed"
    )
    allowed: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="how far a trigger may go from the victim's likeness to the target (0) to that of the target's "
        "own images (1)",
    )


@record
class Suppression:
    """Sizes in pixels of the smallest trigger with and without the target's features, on the same images.

    ``growth`` = ln(suppressed_size / size). Where no trigger does without them, ``found`` is false and
    ``suppressed_size`` the whole image, so that the growth is a lower bound of what it stands for. ``victim_likeness``
    and ``target_likeness``: the mean cosine in [0, 1] between clean images' features and the target's masked ones.
    """

    size: float = Field(gt=0)
    suppressed_size: float = Field(gt=0)
    growth: float
    found: bool
    victim_likeness: float = Field(ge=0, le=1)
    target_likeness: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class _Likeness:
    """How like the target features are; references (m, C) of length 1 are the target's masked ones."""

    place: str
    references: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N,): mean over the references of relu(cosine), equation 5."""
        ours = F.normalize(features.float().mean((2, 3)), dim=1)
        return F.relu(ours @ self.references.T).mean(1)


class _SuppressingEngine(Engine):
    """An engine whose gradient is that of cross-entropy + weight * likeness, and which counts no hit that is alike."""

    def __init__(self, subject: Subject, likeness: _Likeness, weight: float, most: float) -> None:
        self.likeness, self.weight, self.most = likeness, weight, most  # the probe in __init__ asks for gradients
        super().__init__(subject)

    def _gradient(self, plan: Plan, images: Tensor, target: Tensor, weight: Tensor) -> Gradient:
        module = self._module(plan)
        x = plan.laid_out(images.detach()).requires_grad_()
        with torch.enable_grad():
            features, logits = Cut(module, self.likeness.place, x[:1]).both(x)
            like = self.likeness(features)
            loss = F.cross_entropy(logits, target, reduction="none") + self.weight * like
            (gradient,) = torch.autograd.grad(loss, (x,), grad_outputs=weight)
        hit = (logits.detach().argmax(1) == target) & (like.detach() <= self.most)
        return Gradient(loss.detach(), hit, gradient)


def suppressed_growth(
    subject: Subject,
    images: ImagePool,
    trigger: Trigger,
    settings: SuppressionSettings,
    inversion: InversionSettings,
    *,
    seed: int,
) -> Suppression:
    """K = ln(d_cso / d0) of the pair that ``trigger`` is for.

    images: clean ones of victim and target, x (N, 3, H, W) in [0, 1]. Both sizes are found here, in fp32, from the same
    random start, so that they differ in the suppression alone; of the trigger only victim and target are used. The
    likeness that is allowed lies ``settings.allowed`` of the way from the victim's clean images to the target's.

    Raises MothError when victim or target has no images, when the network has no place to compare features at, when it
    finds the target no more like itself than the victim, and when there is no trigger even with the target's features.
    """
    victims, targets = images.x[images.victims(trigger.victim, trigger.target)], images.x[images.y == trigger.target]
    pair = f"suppressed inversion {trigger.victim} -> {trigger.target}"
    if not len(victims) or not len(targets):
        raise MothError(f"{pair}: a class has no images; give at least one of each")
    with last_cut(subject, settings.convolutions_behind) as cut:
        likeness = _learn(cut, targets.to(subject.device), trigger.target, settings)
        with torch.no_grad():
            levels = [
                float(likeness(cut.features(clean.to(subject.device))).mean().clamp(0, 1))
                for clean in (victims, targets)
            ]
    if not levels[0] < levels[1]:  # nan, too
        raise MothError(f"{pair}: the target's images are no more like their class than the victim's; leave it out")
    most = levels[0] + settings.allowed * (levels[1] - levels[0])
    size = _size(subject, images, trigger, inversion, seed, _SuppressingEngine(subject, likeness, 0.0, math.inf))
    if size is None:
        raise MothError(f"{pair}: no trigger was found at all; give more inversion steps")
    bound = most if settings.weight else math.inf
    engine = _SuppressingEngine(subject, likeness, settings.weight, bound)
    found = _size(subject, images, trigger, inversion, seed, engine)
    suppressed = found if found is not None else float(subject.size**2)
    return Suppression(
        size=size,
        suppressed_size=suppressed,
        growth=math.log(suppressed / size),
        found=found is not None,
        victim_likeness=levels[0],
        target_likeness=levels[1],
    )


def _learn(cut: Cut, targets: Tensor, target: int, settings: SuppressionSettings) -> _Likeness:
    """Equation 4: the channel mask M with CE(rest(M f)) - CE(rest((1 - M) f)) least on the target's clean images."""
    with torch.no_grad():
        features = cut.features(targets)
    labels = torch.full((len(targets),), target, device=targets.device)
    raw = torch.zeros(features.shape[1], 1, 1, device=targets.device, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=settings.mask_rate)
    with torch.enable_grad():
        for _ in range(settings.mask_steps):
            mask = torch.sigmoid(raw)
            with_mask, without = cut.rest(torch.cat([mask * features, (1 - mask) * features])).chunk(2)
            loss = F.cross_entropy(with_mask, labels) - F.cross_entropy(without, labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    masked = (torch.sigmoid(raw.detach()) * features).float().mean((2, 3))
    return _Likeness(cut.name, F.normalize(masked, dim=1))


def _size(
    subject: Subject, images: ImagePool, trigger: Trigger, inversion: InversionSettings, seed: int, engine: Engine
) -> float | None:
    """Of the smallest trigger in pixels; None when none reached the success bound."""
    task = make_task(images.y, [(trigger.victim, trigger.target)])
    result = invert(subject, images.x, task, inversion, random_start(task, subject.size, seed), engine=engine)
    return float(result.size[0]) if bool(result.converged[0]) else None
