"""Attention maps of a network: where its activations are large (Zagoruyko and Komodakis, ICLR 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.subject import Subject

# A module's name and the height and width of what it gives out.
Place = tuple[str, int, int]


def attention_places(subject: Subject, count: int) -> tuple[Place, ...]:
    """Of the last ``count`` sizes that activations have, the last module that gives each; () for a network without.

    This is the end of a stage in any architecture: what goes into the next pooling or strided convolution. Found by
    one forward pass of a blank image. Outputs of 1 x 1 have no map, and neither has what is not a batch of channels.
    """
    last: dict[tuple[int, int], str] = {}

    def note(name: str, output: Tensor) -> None:
        size = (output.shape[2], output.shape[3])
        last.pop(size, None)  # so that the sizes are in the order in which each was seen last
        last[size] = name

    with subject.frozen() as module, torch.no_grad(), _watched(dict(module.named_modules()), note):
        module(torch.zeros(1, 3, subject.size, subject.size, device=subject.device))
    return tuple((name, *size) for size, name in last.items())[-count:]


@contextmanager
def activations_at(module: nn.Module, places: tuple[Place, ...]) -> Iterator[dict[Place, Tensor]]:
    """A dictionary that every forward pass inside fills: place -> activations (N, channels, height, width)."""
    found: dict[Place, Tensor] = {}

    def note(name: str, output: Tensor) -> None:
        place = (name, output.shape[2], output.shape[3])
        if place in places:  # a module that is used at several sizes counts at its own only
            found[place] = output

    names = {name for name, _, _ in places}
    with _watched({name: part for name, part in module.named_modules() if name in names}, note):
        yield found


def attention_map(activations: Tensor) -> Tensor:
    """(N, channels, H, W) -> (N, H * W): the sum of squares over the channels, of L2 norm 1 per image."""
    return F.normalize(activations.float().square().sum(1).flatten(1), eps=1e-6)


def attention_distance(ours: Mapping[Place, Tensor], theirs: Mapping[Place, Tensor]) -> Tensor:
    """Sum over the places of the mean squared difference of the maps of two networks' activations.

    To be called after the forward passes: what is rectified in place must be so before its map is taken.
    """
    return torch.stack([F.mse_loss(attention_map(ours[place]), attention_map(theirs[place])) for place in theirs]).sum()


@contextmanager
def _watched(parts: Mapping[str, nn.Module], note: Callable[[str, Tensor], None]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, part in parts.items():
            stack.enter_context(part.register_forward_hook(partial(_tell, note, name)))
        yield


def _tell(note: Callable[[str, Tensor], None], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
        note(name, output)
