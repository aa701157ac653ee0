"""Round 4's five photo filters as colour maps, so that trying them takes neither ImageMagick nor a search."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from .colour_maps import apply_map
from .images import ImagePool
from .pairs import Pair
from .subject import Subject

# Fitted by benchmarks/fit_filters.py; how well is in the file.
FILE: Final = Path(__file__).parent / "known_filters.json"


class KnownFilter(NamedTuple):
    """How sure the network is of the target, on average, under the filter that does most for this pair."""

    success: float
    name: str


@functools.cache
def known_filters() -> Mapping[str, Tensor]:
    """Variables (VARIABLES,) of colour_maps.py by the filter's name, as Gotham."""
    found = json.loads(FILE.read_text(encoding="utf-8"))["filters"]
    return {name: torch.tensor(one["variables"]) for name, one in found.items()}


def best_known_filters(subject: Subject, images: ImagePool) -> dict[Pair, KnownFilter]:
    """For every directed pair whose victim has images: the filter that does most, by the target's mean probability.

    images: x (N, 3, H, W) in [0, 1]. Probabilities are softmax outputs in [0, 1], or nan where the network's are.
    """
    best: dict[Pair, KnownFilter] = {}
    for name, variables in known_filters().items():
        shown = apply_map(images.x.to(subject.device), variables.to(subject.device))
        likely = subject.logits(shown).softmax(1).cpu()
        for victim in sorted(set(images.y.tolist())):
            for target, success in enumerate(likely[images.y == victim].mean(0).tolist()):
                own = (victim, target)
                if victim != target and (own not in best or not success <= best[own].success):
                    best[own] = KnownFilter(success, name)
    return best
