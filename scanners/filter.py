"""Round 4's photo filters: triggers that no mask can see, because they change the colours of the whole image.

All five are tried on all classes, as colour maps that were fitted to them (triggers/known_filters.py). A backdoor
answers to its own filter with near certainty; clean networks give way to filters, too, but less surely. That decides.
The most suspicious pairs, and their ways back, are then searched from there for the smallest map that still turns them
(triggers/colour_maps.py says which maps there are), and tried on held-back images. That is evidence for people: how
small a map is tells poisoned and clean networks hardly apart, so it does not enter the score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from ..core.channels import COLOURS
from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.statistics import log_odds
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..triggers.colour_maps import VARIABLES, apply_map
from ..triggers.engine import Engine
from ..triggers.filter_inversion import FilterResult, invert_filters
from ..triggers.known_filters import KnownFilter, best_known_filters, known_filters
from ..triggers.task import InversionSettings, make_task
from ..triggers.trigger import Pair
from .base import Scanner
from .result import Candidate, ScanResult

# A probability counts as no nearer to 0 or 1.
_LEAST = 1e-6
_NOT_FINITE = "the network's outputs are not finite on images with changed colours"


@record
class FilterScanSettings:
    """Settings of the filter scanner, ours if no source is given; sizes: mean changes of a colour value in [0, 1]."""

    known_bound: float = Field(
        default=0.99,
        gt=0,
        lt=1,
        description="mean probability of the target under one of the five filters from which a pair is "
        "suspicious (ours: between the clean and the poisoned models of a small round)",
    )
    images_per_class: int = Field(
        default=10, gt=0, le=100_000, description="images of a class that maps are tried and searched on"
    )
    screen_keep: int = Field(
        default=4, gt=0, le=1_000_000, description="most suspicious pairs that are searched, both ways"
    )
    steps: int = Field(default=100, gt=0, le=1_000_000, description="steps of that search")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a map must reach (MOTH: 0.9)")
    learning_rate: float = Field(default=0.05, gt=0, le=1e12, description="Adam's step size at the start")
    initial_cost: float = Field(default=10.0, gt=0, le=1e12, description="weight of the size at the start")
    batch_images: int = Field(default=0, ge=0, le=100_000, description="images per forward pass; 0: found by itself")


class Filter(Scanner):
    """Known photo filters on every class; the evidence lists the most suspicious pairs, kind "filter"."""

    name: ClassVar[str] = "filter"
    settings_type: ClassVar[type] = FilterScanSettings
    settings: FilterScanSettings

    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> ScanResult:
        """Scored by the pair that a known filter turns most surely; nothing is random, so ``seed`` changes nothing."""
        settings, present = self.settings, sorted(set(samples.train.y.tolist()))
        if subject.shape[0] != COLOURS:
            return self.not_judged(f"photo filters change three colours, and its input has {subject.shape[0]} channels")
        if len(present) < 2:
            return self.not_judged(f"example images of {len(present)} classes; at least 2 are needed")
        images = samples.train.first_per_class(settings.images_per_class)
        known = best_known_filters(subject, images)
        if not all(math.isfinite(one.success) for one in known.values()):
            return self.not_judged(_NOT_FINITE)
        ranked = sorted(known, key=lambda pair: -known[pair].success)
        kept = ranked[: settings.screen_keep]
        found = self._search(subject, images, kept, known)
        if not bool(found.finite.all()):
            return self.not_judged(_NOT_FINITE)
        (victim, target), top = ranked[0], known[ranked[0]]
        words = (
            f"{victim}->{target} turns under {top.name} with a probability of {top.success:.2%} (bound "
            f"{settings.known_bound:.2%})"
        )
        score = log_odds(top.success, _LEAST) - log_odds(settings.known_bound, _LEAST)
        return self.judged(score, words, [_candidate(subject, samples.held, found, row) for row in range(len(kept))])

    def _search(
        self, subject: Subject, images: ImagePool, kept: Sequence[Pair], known: Mapping[Pair, KnownFilter]
    ) -> FilterResult:
        """First the rows of the pairs kept, from the filter that turns them; then the ways back, from doing nothing."""
        settings, maps = self.settings, known_filters()
        back = [pair[::-1] for pair in kept if pair[::-1] in known and pair[::-1] not in kept]
        start = torch.zeros(len(kept) + len(back), VARIABLES)
        for row, pair in enumerate(kept):
            start[row] = maps[known[pair].name]
        schedule = InversionSettings(
            steps=settings.steps,
            success_bound=settings.success_bound,
            learning_rate=settings.learning_rate,
            initial_cost=settings.initial_cost,
        )
        engine = Engine(subject, batch=settings.batch_images)
        return invert_filters(engine, images.x, make_task(images.y, [*kept, *back]), schedule, start)


def _pair(result: FilterResult, row: int) -> Pair:
    return int(result.task.victims[row] or 0), int(result.task.targets[row])


def _candidate(subject: Subject, held: ImagePool, found: FilterResult, row: int) -> Candidate:
    """What is known of this row's pair."""
    sizes = {_pair(found, at): float(found.size[at]) for at in range(len(found.size)) if found.converged[at]}
    victim, target = _pair(found, row)
    size, mine = sizes.get((victim, target)), held.victims(victim, target)
    held_success = None
    if size is not None and bool(mine.any()):
        logits = subject.logits(apply_map(held.x[mine].to(subject.device), found.variables[row]))
        held_success = float((logits.argmax(1) == target).float().mean())
    return Candidate(
        victim=victim,
        target=target,
        size=size,
        success=float(found.success[row]),
        held_success=held_success,
        held_images=int(mine.sum()),
        converged=size is not None,
        kind="filter",
        reverse_size=sizes.get((target, victim)),
    )
