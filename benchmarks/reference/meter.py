"""Class distances by the published inversion, one pair and one seed after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trojai_moth.core.images import ImagePool
from trojai_moth.core.seeding import generator
from trojai_moth.core.subject import Subject
from trojai_moth.triggers.inversion import random_start
from trojai_moth.triggers.task import make_task
from trojai_moth.triggers.trigger import Pair

from .inversion import Search, one_direction, search


def measure(
    subject: Subject, images: ImagePool, pairs: Sequence[Pair], settings: Search, seed: int, per_class: int
) -> list[float | None]:
    """The size in pixels of each directed pair from the start that trojai_moth uses for this seed; None: none found."""
    sizes = []
    with subject.frozen():
        for victim, target in pairs:
            x = images.x[images.positions(victim)[:per_class]].to(subject.device)
            start = random_start(make_task(torch.tensor([victim]), [(victim, target)]), subject.shape, seed)
            stream = generator(seed, "reference meter", victim, target)
            found = search(subject.module, one_direction(x, target), settings, start, stream)
            sizes.append(float(found.size[0]) if bool(found.converged[0]) else None)
    return sizes
