"""D7: how alike two classes are to a network, and how much smaller a pair's trigger is than that explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import Ridge

from ..images import ImagePool
from ..pairs import Pair
from ..subject import Subject

_MAD_SCALE = 1.4826
# Logarithms that scatter less than this are not believed to.
_SCATTER_FLOOR = 0.2
# Fewer pairs can not carry a regression on two numbers.
_FEWEST_PAIRS = 8


@dataclass(frozen=True)
class Similarity:
    """leakage, margin (K, K) by [victim, target]; nan where the victim has no images.

    leakage: mean probability of the target on the victim's images; margin: mean logit of victim minus that of target.
    """

    leakage: np.ndarray
    margin: np.ndarray


def class_similarity(subject: Subject, images: ImagePool) -> Similarity:
    """Both measures from clean images x (N, 3, H, W) in [0, 1]; one forward pass."""
    logits, y = subject.logits(images.x).double().cpu(), images.y.cpu()
    shape = (subject.classes, subject.classes)
    leakage, margin = np.full(shape, np.nan), np.full(shape, np.nan)
    for victim in sorted(set(y.tolist())):
        own = logits[y == victim]
        leakage[victim] = torch.softmax(own, 1).mean(0).numpy()
        margin[victim] = (own[:, victim, None] - own).mean(0).numpy()
    return Similarity(leakage, margin)


def similarity_residuals(log_sizes: Mapping[Pair, float], similarity: Similarity) -> dict[Pair, float]:
    """E / max(1.4826 MAD(e), floor) of ln d0 = a + b ln(leakage) + c margin + e, by ridge over the given pairs.

    Both inputs are standardised. With fewer than eight pairs e is ln d0 minus its median. Pairs whose victim has no
    images are left out.
    """
    pairs = [pair for pair in log_sizes if np.isfinite(similarity.margin[pair])]
    if not pairs:
        return {}
    y = np.array([log_sizes[pair] for pair in pairs])
    rest = y - np.median(y)
    if len(pairs) >= _FEWEST_PAIRS:
        columns = [[np.log(max(similarity.leakage[p], 1e-12)) for p in pairs], [similarity.margin[p] for p in pairs]]
        x = np.array(columns).T
        x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
        rest = y - Ridge(alpha=1.0).fit(x, y).predict(x)
    scatter = max(_MAD_SCALE * float(np.median(np.abs(rest - np.median(rest)))), _SCATTER_FLOOR)
    return {pair: float(value) / scatter for pair, value in zip(pairs, rest, strict=True)}
