"""How alike two classes are to a network: what leaks from one to the other on clean images."""

from __future__ import annotations

import numpy as np
import torch

from ...core.images import ImagePool
from ...core.subject import Subject


def class_leakage(subject: Subject, images: ImagePool) -> np.ndarray:
    """(K, K) by [victim, target]: mean probability in [0, 1] of the target on clean images of the victim.

    images: x (N, 3, H, W) in [0, 1]; one forward pass. nan where the victim has no images.
    """
    logits, y = subject.logits(images.x).double().cpu(), images.y.cpu()
    leakage = np.full((subject.classes, subject.classes), np.nan)
    for victim in sorted(set(y.tolist())):
        leakage[victim] = torch.softmax(logits[y == victim], 1).mean(0).numpy()
    return leakage
