"""K-Arm's pre-screening: which pairs are worth a search, from what the network says of clean images (their section 4).

A backdoor leaves the target somewhat likely on the victim's clean images, so pairs whose target is hardly ever among
the most likely classes need not be searched.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .settings import KArmSettings

ArmPair = tuple[int | None, int]


def screen(probability: Tensor, settings: KArmSettings) -> list[ArmPair]:
    """Arms (victim, target) from softmax outputs (N, K) on clean images, by target; victim None: any class.

    One universal arm, or pairs, or none. Victims are classes as predicted; one that is never predicted has no arms.
    """
    classes = probability.shape[1]
    count = settings.few_top if classes <= settings.few_classes else round(classes * settings.top_share)
    top = probability.topk(min(max(count, 1), classes), dim=1).indices
    among = torch.zeros_like(probability, dtype=torch.bool).scatter_(1, top, True)
    everywhere = among.float().mean(0)
    if len(probability) and float(everywhere.max()) > settings.universal_share:
        return [(None, int(everywhere.argmax()))]
    predicted = probability.argmax(1)
    pairs: list[ArmPair] = []
    for target in range(classes):
        weights = {
            victim: weight
            for victim in range(classes)
            if victim != target
            for weight in [_weight(probability[predicted == victim], among[predicted == victim], target, settings)]
            if weight > 0
        }
        likeliest = sorted(weights, key=lambda victim: (-weights[victim], victim))[: settings.victims_per_target]
        pairs += [(victim, target) for victim in sorted(likeliest)]
    return pairs


def _weight(probability: Tensor, among: Tensor, target: int, settings: KArmSettings) -> float:
    """Sum of the target's probability where it is among the top; 0 for a pair that is not worth an arm."""
    hits = among[:, target]
    if len(hits) == 0 or float(hits.float().mean()) < settings.pair_share - 1e-6:
        return 0.0
    likely = probability[hits, target]
    least = settings.least_probability
    return float(likely.sum()) if float(likely.sum()) > least and float(likely.median()) > least else 0.0
