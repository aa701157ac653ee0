"""Round 4's five photo filters as colour maps, so that trying them takes neither ImageMagick nor a search."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ..core.files import read_text
from ..core.images import ImagePool
from ..core.subject import Subject
from .colour_maps import apply_map
from .logit_margins import logit_margins, mean_class_margins
from .trigger import Pair

# Fitted by benchmarks/fit_filters.py; how well is in the file.
FILE: Final = Path(__file__).parent / "known_filters.json"


class KnownFilter(NamedTuple):
    """How sure the network is of the target, on average, under the filter that does most for this pair."""

    success: float
    name: str


@functools.cache
def known_filters() -> Mapping[str, Tensor]:
    """Variables (VARIABLES,) of triggers/colour_maps.py by the filter's name, as Gotham."""
    found = json.loads(read_text(FILE))["filters"]
    return {name: torch.tensor(one["variables"]) for name, one in found.items()}


class FilterTable(NamedTuple):
    """What known filters do to a network, each (filters, classes, classes); see filter_table."""

    success: Tensor
    conviction: Tensor


def filter_success(subject: Subject, images: ImagePool) -> Tensor:
    """(filters, classes, classes) in [0, 1]: how sure the network is of t when v is seen through each known filter.

    Entry (f, v, t) is the mean over images of v of the softmax probability of t, or nan where the network's is; 0 for
    classes without images. In the order of known_filters; images: x (N, 3, H, W) in [0, 1].
    """
    return _by_victim(subject, images)[0]


def filter_table(subject: Subject, images: ImagePool) -> FilterTable:
    """Success as of filter_success, and conviction: how far t wins under a filter, beside own images of v and t.

    Entry (f, v, t) of conviction is m(f(v), t) / min(m(v, v), m(t, t)), cut to [0, 1], m(x, t) being the mean lead of t
    on images x (triggers/logit_margins.py): some classes win their own by ten times as much as others. 0 for classes v
    without images; 1 where t has none, or the own of either are not won, so that there is nothing to compare with.
    Order, images and nan as of filter_success.
    """
    own, (success, lead) = mean_class_margins(subject, images), _by_victim(subject, images)
    beside = torch.fmin(own[:, None], own)  # v is left out where it has no images
    shares = (lead / beside).clamp(0, 1)
    return FilterTable(success, torch.where((own > 0) & (beside > 0), shares, torch.ones_like(shares)))


def _by_victim(subject: Subject, images: ImagePool) -> Tensor:
    """(2, filters, classes, classes): the mean probabilities and leads over a class's images."""
    maps, labels = known_filters(), images.y.cpu()
    victims = sorted(set(labels.tolist()))
    table = torch.zeros(2, len(maps), subject.classes, subject.classes)
    for at, variables in enumerate(maps.values()):
        logits = subject.logits(apply_map(images.x.to(subject.device), variables.to(subject.device)))
        values = torch.stack([logits.softmax(1), logit_margins(logits)]).cpu()
        for victim in victims:
            table[:, at, victim] = values[:, labels == victim].mean(1)
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
