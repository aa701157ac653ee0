"""A small network for any image size that learns a round's signs in seconds."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from ..round_settings import Recipe

# Of the first, the second and every later block.
_CHANNELS = (32, 32, 64)
_SMALLEST_SIDE = 3
_POOLED = 2
RECIPE = Recipe(easy_epochs=2, base_epochs=2, own_epochs=3, rate=3e-3, batch=64)


def plain_network(classes: int, size: int, *, seed: int) -> nn.Module:
    """Blocks of convolution, batch normalisation and pooling down to a side of 2 or 3; random weights from ``seed``.

    The form of the four-block network of few-shot learning (Vinyals et al. 2016, section 4.1.1), as many blocks as the
    image is large. Input (N, 3, size, size) in [0, 1], output logits (N, classes).
    """
    inputs, side = 3, size
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
