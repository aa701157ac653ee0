"""Leads: by how much a class wins, in logits, which softmax hides where everything is won by far."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.images import ImagePool
from ..core.subject import Subject


def logit_margins(logits: Tensor) -> Tensor:
    """Logits (N, classes) -> (N, classes): each class's less the largest other one; above 0 for the winner alone."""
    first, second = logits.topk(2, dim=1).values.split(1, dim=1)
    return logits - torch.where(logits == first, second, first)


def mean_class_margins(subject: Subject, images: ImagePool) -> Tensor:
    """(classes,) on the CPU: the mean lead of each class on its own images; nan for classes without any.

    A share of this says how convinced a network is of a class, whatever the scale of its logits. images: x (N, 3, H, W)
    in [0, 1].
    """
    own, labels = torch.full((subject.classes,), torch.nan), images.y.cpu()
    won = logit_margins(subject.logits(images.x)).cpu()
    for label in sorted(set(labels.tolist())):
        own[label] = won[labels == label, label].mean()
    return own
