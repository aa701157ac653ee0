"""A trigger (mask and pattern), how it is stamped on images, and the variables in which it is optimised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# tanh reaches 1 in float32, so the range is stretched by this much (method of Neural Cleanse's public code)
_STRETCH = 1e-7

# Sizes in pixels below this count as this: the model confuses the classes as it is, and ratios to nothing mean nothing.
SIZE_FLOOR = 0.01

# A class pair as (victim, target), and the same where the victim may be None: images of any class.
Pair = tuple[int, int]
AnyPair = tuple[int | None, int]


def pair_words(victim: int | None, target: int, names: Sequence[str] | None = None) -> str:
    """A pair in words, by name where the classes have names.

    >>> pair_words(3, 5), pair_words(None, 1, ["cat", "dog"])
    ('3->5', 'any->dog')
    """
    shown = [str(label) if names is None else names[label] for label in ([] if victim is None else [victim]) + [target]]
    return "->".join(shown if victim is not None else ["any", *shown])


@dataclass(frozen=True)
class Trigger:
    """A trigger for images of ``victim`` (None: of any class) towards ``target``.

    mask (1, H, W) in [0, 1], one for all channels; pattern (C, H, W) in [0, 1].
    """

    victim: int | None
    target: int
    mask: Tensor
    pattern: Tensor

    @property
    def size(self) -> float:
        """L1 norm of the mask in pixels (a third of the paper's class distance, which counts three channels)."""
        return float(self.mask.sum())

    def to(self, device: torch.device) -> Trigger:
        """The same trigger on another device."""
        return Trigger(self.victim, self.target, self.mask.to(device), self.pattern.to(device))


def stamp(x: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """X' = (1 - m) x + m q. x (..., C, H, W) in [0, 1]; mask (..., 1, H, W); pattern (..., C, H, W); broadcast."""
    return x + mask * (pattern - x)


def squash(raw: Tensor) -> Tensor:
    """Unbounded variables -> (0, 1): tanh(z) / (2 - 1e-7) + 1/2."""
    return torch.tanh(raw) / (2 - _STRETCH) + 0.5


def squash_slope(value: Tensor) -> Tensor:
    """The derivative of squash at the variable whose squashed value this is."""
    return (1 - ((value - 0.5) * (2 - _STRETCH)).square()) / (2 - _STRETCH)


def unsquash(value: Tensor, margin: float = 1e-3) -> Tensor:
    """The inverse of squash, after clipping to [margin, 1 - margin]: at exactly 0 or 1 tanh would never move again."""
    return torch.atanh((value.clamp(margin, 1 - margin) - 0.5) * (2 - _STRETCH))


def pixels_at(area: int, pixels_at_224: float) -> float:
    """A bound published for 224 x 224 images, scaled with the ``area`` of an image in pixels."""
    return pixels_at_224 * area / 224.0**2
