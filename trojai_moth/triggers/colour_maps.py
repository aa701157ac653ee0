"""Colour maps: changes of an image's colours that a filter makes and no mask can, as the trigger that is searched.

A map has 36 variables, all 0 where it changes nothing, and does three things in turn to an image in [0, 1]:

1. a rising tone curve for each colour: 7 straight pieces between 8 evenly spaced values, whose slopes are exponentials
   and so never negative. Gamma, levels and contrast are such curves, and filters treat the three colours differently
   (Lomo turns only red and green up). It comes first because the domain is then [0, 1], where every piece has pixels;
2. a matrix of 3 x 3 and an offset: saturation, tinting, fading towards a colour;
3. a gain of 1 + b r^2 for each colour, r being 0 in the centre and 1 in the corners: a vignette. The constant part of
   the gain is in the matrix.

What leaves [0, 1] is clipped. A clipped pixel's gradient counts only where following it leads back inside, so that no
pixel is lost and none runs away. The distance of a map from doing nothing is the mean absolute change of a pixel's
colour values, which is what ``Candidate.size`` states for filters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PIECES = 7
_SHAPES = {"curve": (3, PIECES), "matrix": (3, 3), "offset": (3,), "vignette": (3,)}
VARIABLES = 3 * PIECES + 9 + 3 + 3
# A piece of the curve moves a pixel by a seventh of what an entry of the matrix does; equal steps need larger slopes.
_SLOPE_SCALE = 5.0


def parts(variables: Tensor) -> dict[str, Tensor]:
    """Variables (A, VARIABLES) by name: curve (A, 3, PIECES), matrix (A, 3, 3), offset and vignette (A, 3)."""
    sizes = [torch.Size(shape).numel() for shape in _SHAPES.values()]
    split = zip(_SHAPES.items(), variables.split(sizes, dim=1), strict=True)
    return {name: part.reshape(-1, *shape) for (name, shape), part in split}


def unclipped(images: Tensor, variables: Tensor) -> Tensor:
    """Map images (A, n, 3, H, W) in [0, 1], row a by variables (A, VARIABLES); not yet clipped to [0, 1]."""
    part = parts(variables)
    toned: Tensor = _Tone.apply((_SLOPE_SCALE * part["curve"]).exp() / PIECES, images)
    matrix = part["matrix"] + torch.eye(3, device=images.device, dtype=images.dtype)
    mixed = torch.einsum("adc,anchw->andhw", matrix, toned) + part["offset"][:, None, :, None, None]
    gain = 1 + part["vignette"][:, None, :, None, None] * _radius_squared(images)
    return mixed * gain


@torch.no_grad()
def apply_map(images: Tensor, variables: Tensor) -> Tensor:
    """Images (n, 3, H, W) in [0, 1] under one map, variables (VARIABLES,); in [0, 1]."""
    return unclipped(images[None], variables[None])[0].clamp(0, 1)


def distance(mapped: Tensor, images: Tensor) -> Tensor:
    """Mean absolute change of a colour value of each image: (A, n, 3, H, W) twice -> (A, n), in [0, 1]."""
    return (mapped - images).abs().mean(dim=(2, 3, 4))


def variable_gradient(variables: Tensor, raw: Tensor, slope: Tensor) -> Tensor:
    """From the gradient (A, n, 3, H, W) at the clipped images to that at the variables (A, VARIABLES).

    ``raw`` is what ``unclipped`` gave for ``variables``, which must have required a gradient.
    """
    leads_back = ((raw >= 0) | (slope < 0)) & ((raw <= 1) | (slope > 0))
    (gradient,) = torch.autograd.grad(raw, (variables,), grad_outputs=slope * leads_back)
    return gradient


class _Tone(torch.autograd.Function):
    """The curves, rises (A, 3, PIECES) on images (A, n, 3, H, W); keeps no copy of the images for each piece."""

    @staticmethod
    def forward(ctx: Any, rises: Tensor, images: Tensor) -> Tensor:
        ctx.save_for_backward(images)
        toned = torch.zeros_like(images)
        for piece in range(PIECES):
            toned.addcmul_(rises[:, None, :, piece, None, None], _within(images, piece))
        return toned

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (images,) = ctx.saved_tensors
        each = [(slopes[0] * _within(images, piece)).sum(dim=(1, 3, 4)) for piece in range(PIECES)]
        return torch.stack(each, dim=-1), None


def _within(images: Tensor, piece: int) -> Tensor:
    """How far values in [0, 1] have come within one of the PIECES equal parts: 0 below it, 1 above it."""
    return (images * PIECES).sub_(piece).clamp_(0, 1)


def _radius_squared(images: Tensor) -> Tensor:
    """(H, W): squared distance of a pixel's centre from that of the image, 1 in the corners."""
    height, width = images.shape[-2:]
    y = torch.linspace(-1, 1, height, device=images.device, dtype=images.dtype)
    x = torch.linspace(-1, 1, width, device=images.device, dtype=images.dtype)
    return (y[:, None].square() + x.square()) / 2
