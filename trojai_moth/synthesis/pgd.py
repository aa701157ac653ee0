"""Projected gradient descent (Madry et al., ICLR 2018): images moved within a small box so that the loss rises most.

Serves twice: to train on (the ``pgd`` hardener) and to measure how robust a model is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.images import ImagePool
from ..core.seeding import generator
from ..core.standard_logits import standardised
from ..core.subject import Subject
from .settings import PgdSettings


def pgd(subject: Subject, pool: ImagePool, settings: PgdSettings, stream: torch.Generator) -> Tensor:
    """The pool's images (N, 3, H, W), each within epsilon of its original and in [0, 1], made to be mistaken.

    In evaluation mode images do not interact, so the batch size changes the result by rounding only. The subject is
    left as it was.
    """
    start = torch.zeros_like(pool.x)
    if settings.random_start:
        noise = torch.rand(pool.x.shape, generator=stream)  # on the CPU, for the same numbers on every device
        start = settings.epsilon * (2 * noise.to(pool.x.device) - 1)
    size = settings.batch_images
    with subject.frozen():
        parts = [
            _ascend(subject, x.to(subject.device), begin.to(subject.device), y.to(subject.device), settings)
            for x, begin, y in zip(pool.x.split(size), start.split(size), pool.y.split(size), strict=True)
        ]
    return torch.cat(parts).to(pool.x.device) if parts else pool.x.clone()


def _ascend(subject: Subject, x: Tensor, start: Tensor, y: Tensor, settings: PgdSettings) -> Tensor:
    low, high = (x - settings.epsilon).clamp_min(0), (x + settings.epsilon).clamp_max(1)
    moved = (x + start).clamp(0, 1)
    for _ in range(settings.steps):
        moved = moved.detach().requires_grad_()
        loss = F.cross_entropy(subject.module(moved).float(), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = torch.maximum(torch.minimum(moved.detach() + settings.step * gradient.sign(), high), low)
    return moved


def pgd_accuracy(subject: Subject, pool: ImagePool, settings: PgdSettings, seed: int) -> float:
    """Share of images that are right both as they are and after the attack; nan without images.

    The same seed gives every model the same starts, so that a model and its hardened copy can be compared.
    """
    if len(pool) == 0:
        return float("nan")
    subject = standardised(subject, pool)
    moved = pgd(subject, pool, settings, generator(seed, "pgd accuracy"))
    y = pool.y.to(subject.device)
    plain, attacked = (subject.logits(x, settings.batch_images).argmax(1) == y for x in (pool.x, moved))
    return float((plain & attacked).float().mean())
