"""Symmetric feature differencing: whether a trigger changes the features that tell its two classes apart, or others.

After Ex-Ray (Liu et al., 2022, "Complex Backdoor Detection by Symmetric Feature Differencing", section 4) and its
public code. Between two sets of images the smallest channel mask m is sought that, mixing the features f at one place
both ways, exchanges the classes:

    m f(B) + (1 - m) f(A) -> the class of B   and   m f(A) + (1 - m) f(B) -> the class of A.

m1 is the mask between the victim's and the target's images, m2 the one between the victim's images and the same ones
with the trigger on. A natural trigger puts the target's own features on, so m1 and m2 are alike; an injected one has
features of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import MothError
from ..records import Field, record
from ..subject import Subject
from ..trigger import squash
from .cut import Cut, last_cut


@record
class DifferencingSettings:
    """How the channel masks are sought; defaults after Ex-Ray's public code where nothing else is said."""

    convolutions_behind: int = Field(
        default=1, gt=0, description="convolutions that must follow the place where features are mixed (paper: 1)"
    )
    epochs: int = Field(
        default=200,
        gt=0,
        description="optimiser steps for the channel masks (code: 400 of half the size, for the same masks)",
    )
    learning_rate: float = Field(default=0.1, gt=0, description="Adam's step size (code: 0.05)")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="Adam's decay of the mean")
    beta2: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="Adam's decay of the square (code: 0.999, with which the large gradient of one failing step stops "
        "the masks from shrinking further)",
    )
    start: float = Field(default=4.0, description="u at the start, where the mask is tanh(u) / 2 + 1/2")
    margin_weight: float = Field(
        default=100.0,
        gt=0,
        description="weight of the mean logit margin while a direction fails (code: 10 times the sum of 10 images)",
    )
    pairs: int = Field(default=30, gt=0, description="pairs of images to mix at most")


@record
class Differencing:
    """What the two masks of one directed pair have in common.

    ``place`` is the module whose output was mixed and ``channels`` how many it has. ``class_channels`` = sum m1 and
    ``trigger_channels`` = sum m2, in channels. ``shared_channels`` = sum min(m1, m2) / sum m1 and
    ``shared_channels_trigger`` = sum min(m1, m2) / sum m2, Ex-Ray's two similarities. The accuracies are shares of the
    mixed images that get the wanted class with the other sets' mask: m1 on the trigger, m2 on the classes.
    """

    place: str
    channels: int
    class_channels: float = Field(ge=0)
    trigger_channels: float = Field(ge=0)
    shared_channels: float = Field(ge=0, le=1)
    shared_channels_trigger: float = Field(ge=0, le=1)
    class_mask_to_target: float = Field(ge=0, le=1)
    class_mask_to_victim: float = Field(ge=0, le=1)
    trigger_mask_to_target: float = Field(ge=0, le=1)
    trigger_mask_to_victim: float = Field(ge=0, le=1)

    @property
    def cross_accuracy(self) -> float:
        """Mean of the four accuracies."""
        to_target = self.class_mask_to_target + self.trigger_mask_to_target
        return (to_target + self.class_mask_to_victim + self.trigger_mask_to_victim) / 4


def difference_features(
    subject: Subject,
    victims: Tensor,
    targets: Tensor,
    stamped: Tensor,
    settings: DifferencingSettings,
    *,
    victim: int,
    target: int,
) -> Differencing:
    """Compare the channels that tell victim from target with those that the trigger uses.

    victims (n, 3, H, W) and targets (m, 3, H, W) are images in [0, 1] of the two classes, and stamped (n, 3, H, W) the
    victim's images with the trigger on, in the same order. They are mixed pair by pair, the smaller set over again. The
    result depends on nothing else: there is no chance in it.

    Raises ValueError when ``stamped`` has not as many images as ``victims``, or the two classes are the same. Raises
    MothError when there is nothing to be found: no images, logits that are no numbers, a trigger that turns none of the
    images, or a class none of whose images is recognised.
    """
    if len(stamped) != len(victims):
        raise ValueError(f"{len(stamped)} stamped images for {len(victims)} of the victim; they must be the same ones")
    if victim == target:
        raise ValueError(f"victim and target are the same class ({victim})")
    if not len(victims) or not len(targets):
        raise MothError(f"differencing {victim} -> {target}: a class has no images; give at least one of each")
    with last_cut(subject, settings.convolutions_behind) as cut, torch.enable_grad():
        mixer = _prepared(cut, (victims, targets, stamped), settings.pairs, victim, target)
        masks = _smallest_masks(mixer, settings)
        with torch.no_grad():
            crossed = mixer.judge(masks.flip(0)).success.tolist()
    sizes, shared = masks.sum(1).tolist(), float(masks.amin(0).sum())
    if min(sizes) <= 0:
        raise MothError(f"differencing {victim} -> {target}: mixing no channel at all does it; give clearer images")
    return Differencing(
        place=cut.name,
        channels=masks.shape[1],
        class_channels=sizes[0],
        trigger_channels=sizes[1],
        shared_channels=min(1.0, shared / sizes[0]),
        shared_channels_trigger=min(1.0, shared / sizes[1]),
        class_mask_to_target=crossed[1][0],
        class_mask_to_victim=crossed[1][1],
        trigger_mask_to_target=crossed[0][0],
        trigger_mask_to_victim=crossed[0][1],
    )


class _Judgement(NamedTuple):
    """Row 0: victim and target, row 1: victim without and with trigger. Column 0: towards target, column 1: back."""

    margin: Tensor  # (2, 2) mean of the wanted class's logit less the other's
    success: Tensor  # (2, 2) share of the images that get the wanted class


@dataclass(frozen=True)
class _Mixer:
    """Features of the victim's images (1, n, C, h, w), and of what they are mixed with (2, n, C, h, w)."""

    cut: Cut
    victims: Tensor
    others: Tensor
    victim: int
    target: int

    def judge(self, masks: Tensor) -> _Judgement:
        """Mix both rows both ways, each by its own mask (2, C)."""
        share = masks[:, None, :, None, None]
        there = share * self.others + (1 - share) * self.victims
        back = share * self.victims + (1 - share) * self.others
        mixed = torch.stack([there, back], 1)  # (2, 2, n, C, h, w)
        logits = self.cut.rest(mixed.flatten(0, 2)).unflatten(0, mixed.shape[:3])
        lead = logits[..., self.target] - logits[..., self.victim]
        wanted = torch.tensor([[self.target], [self.victim]], device=logits.device)
        success = (logits.argmax(-1) == wanted).float().mean(-1)
        return _Judgement(torch.stack([lead[:, 0], -lead[:, 1]], 1).mean(-1), success)


def _prepared(cut: Cut, sets: tuple[Tensor, Tensor, Tensor], most: int, victim: int, target: int) -> _Mixer:
    count = min(most, max(len(images) for images in sets))
    with torch.no_grad():
        chosen = [images[torch.arange(count, device=images.device) % len(images)] for images in sets]
        before, other, triggered = (cut.features(images.to(cut.blank.device)).float() for images in chosen)
    return _Mixer(cut, before[None], torch.stack([other, triggered]), victim, target)


def _smallest_masks(mixer: _Mixer, settings: DifferencingSettings) -> Tensor:
    """m1 and m2 as (2, C): of all masks tried, the smallest that fail no more images than the first, nearly full ones.

    loss = sum m + weight * sum over the directions that fail more of them of minus their mean margin.
    """
    channels = mixer.victims.shape[2]
    raw = torch.full((2, channels), settings.start, device=mixer.victims.device, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))
    best = _mask(raw.detach())
    with torch.no_grad():
        first = mixer.judge(best)
    _check(mixer, first)
    for _ in range(settings.epochs):
        masks = _mask(raw)
        found = mixer.judge(masks)
        met = found.success >= first.success
        smaller = met.all(1, keepdim=True) & (masks.sum(1, keepdim=True) < best.sum(1, keepdim=True))
        best = torch.where(smaller, masks.detach(), best)
        loss = masks.sum() - settings.margin_weight * (found.margin * ~met).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return best


def _mask(raw: Tensor) -> Tensor:
    # squash stretches its range by a hair, so that a closed channel would count as less than none.
    return squash(raw).clamp(0, 1)


def _check(mixer: _Mixer, first: _Judgement) -> None:
    pair = f"differencing {mixer.victim} -> {mixer.target}"
    if not bool(first.margin.isfinite().all()):
        raise MothError(f"{pair}: the network's logits are not finite; leave this model out")
    if not bool((first.success > 0).all()):
        raise MothError(
            f"{pair}: not one of the images exchanges its class with all its features; give images that the network "
            "recognises and a trigger that works on some of them"
        )
