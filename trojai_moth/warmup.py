"""MOTH's warm-up: one universal trigger per target stands in for all pairs into it (paper, section V-B)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .images import ImagePool
from .inversion import InversionResult, InversionSettings, invert, make_task, random_start
from .subject import Subject


@dataclass(frozen=True)
class WarmUp:
    """What the universal triggers say about the pairs.

    speed (K, K): u[i, t] in (-inf, 1], 0 on the diagonal; mask (K, 1, H, W) and pattern (K, 3, H, W) per target;
    size (K,) in pixels; converged (K,) bool.
    """

    speed: np.ndarray
    mask: Tensor
    pattern: Tensor
    size: Tensor
    converged: Tensor


def warm_up(subject: Subject, images: ImagePool, settings: InversionSettings, seed: int) -> WarmUp:
    """Invert one universal trigger per target on the images of all other classes, all targets at once."""
    pairs = [(None, target) for target in range(subject.classes)]
    task = make_task(images.y, pairs)
    result = invert(subject, images.x, task, settings, random_start(task, subject.size, seed))
    speed = loss_change(result, images.y, subject.classes)
    return WarmUp(speed, result.mask, result.pattern, result.size, result.converged)


def loss_change(result: InversionResult, y: Tensor, classes: int) -> np.ndarray:
    """u[i, t] = mean over images of class i of (l0 - l_best) / l0, 0 where l0 is 0 (the warm-up's approximation).

    l0 and l_best are an image's cross-entropy towards t at the first step and at the best trigger.
    """
    first, best = result.first_loss.cpu(), result.best_loss.cpu()
    share = torch.where(first > 0, (first - best) / first.clamp_min(1e-12), torch.zeros_like(first))
    speed = np.zeros((classes, classes))
    labels = y.cpu()[result.task.index]
    for row, target in enumerate(result.task.targets.tolist()):
        used = result.task.weight[row] > 0
        for label in range(classes):
            mine = share[row][used & (labels[row] == label)]
            speed[label, target] = float(mine.mean()) if len(mine) else 0.0
    np.fill_diagonal(speed, 0.0)
    return speed
