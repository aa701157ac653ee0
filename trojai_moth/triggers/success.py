"""How far a trigger reaches: success rates on images it was not made for, and on moved ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as affine

from ..core.images import ImagePool
from ..core.subject import Subject
from .trigger import Trigger, stamp

_BATCH = 256


# Positions (n,) in the pool and the stamped images (n, 3, H, W) at them -> those images changed once more.
_Change = Callable[[Tensor, Tensor], Tensor]


def held_success(subject: Subject, held: ImagePool, trigger: Trigger) -> float | None:
    """Success rate on held-back images of the trigger's own victim, or with victim None of every class but the target.

    Small triggers of clean models often fit the images that they were searched on and nothing else (TOP, arXiv
    2103.10274, is an early use of it). None without such images.
    """
    return _share(subject, held, trigger, held.victims(trigger.victim, trigger.target))


def jitter_success(
    subject: Subject, held: ImagePool, trigger: Trigger, jitter: float, stream: torch.Generator
) -> float | None:
    """As held_success, with every image moved a little after stamping: ``jitter`` as in triggers/success.py.

    ``stream`` draws the moves and nothing else. None without images of the victim.
    """
    chosen = held.victims(trigger.victim, trigger.target)
    moves = draw_moves(int(chosen.sum()), jitter, stream)
    return _share(subject, held, trigger, chosen, lambda places, stamped: moved(stamped, moves[places]))


def _share(
    subject: Subject, images: ImagePool, trigger: Trigger, chosen: Tensor, change: _Change | None = None
) -> float | None:
    """Of the chosen (N,) bool images, those that the trigger turns, a batch at a time on the subject's device."""
    index = torch.nonzero(chosen).flatten()
    own, turned = trigger.to(subject.device), 0
    for places in torch.arange(len(index)).split(_BATCH):
        x = images.x[index[places.to(index.device)]].to(subject.device)
        stamped = stamp(x, own.mask, own.pattern)
        shown = stamped if change is None else change(places, stamped)
        turned += int((subject.logits(shown).argmax(1) == trigger.target).sum())
    return turned / len(index) if len(index) else None


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
