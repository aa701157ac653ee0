"""Images moved a little: shifted, turned and scaled at random, to see whether a trigger depends on its exact place."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as affine

# A jitter of 1 would turn by this much; 0.05 turns by 3 degrees.
_DEGREES = 60.0


def draw_moves(count: int, jitter: float, stream: torch.Generator) -> Tensor:
    """(count, 4), uniform in [-jitter, jitter]: turn (times 60 degrees), shifts (times the side), growth."""
    return (2 * torch.rand(count, 4, generator=stream) - 1) * jitter


def moved(x: Tensor, moves: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1], each by its own move (N, 4) of draw_moves; edges are filled with grey."""
    side = x.shape[-1]
    parts = [
        affine.affine(
            image[None],
            angle=_DEGREES * turn,
            translate=[across * side, down * side],
            scale=1 + grow,
            shear=[0.0, 0.0],
            interpolation=affine.InterpolationMode.BILINEAR,
            fill=[0.5],
        )
        for image, (turn, across, down, grow) in zip(x, moves.tolist(), strict=True)
    ]
    return torch.cat(parts) if parts else x.clone()
