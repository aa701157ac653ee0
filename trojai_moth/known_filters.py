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


def filter_success(subject: Subject, images: ImagePool) -> Tensor:
    """(filters, classes, classes) in [0, 1]: how sure the network is of t when v is seen through each known filter.

    Entry (f, v, t) is the mean over images of v of the softmax probability of t, or nan where the network's is; 0 for
    classes without images. In the order of known_filters; images: x (N, 3, H, W) in [0, 1].
    """
    maps, labels = known_filters(), sorted(set(images.y.tolist()))
    table = torch.zeros(len(maps), subject.classes, subject.classes)
    for at, variables in enumerate(maps.values()):
        shown = apply_map(images.x.to(subject.device), variables.to(subject.device))
        likely = subject.logits(shown).softmax(1).cpu()
        for victim in labels:
            table[at, victim] = likely[images.y == victim].mean(0)
    return table


def best_known_filters(subject: Subject, images: ImagePool) -> dict[Pair, KnownFilter]:
    """For every directed pair whose victim has images: the filter that does most, by the target's mean probability.

    Images and probabilities as of filter_success.
    """
    names, most = list(known_filters()), filter_success(subject, images).max(0)  # nan is the largest of all
    return {
        (victim, target): KnownFilter(float(most.values[victim, target]), names[int(most.indices[victim, target])])
        for victim in sorted(set(images.y.tolist()))
        for target in range(subject.classes)
        if victim != target
    }
