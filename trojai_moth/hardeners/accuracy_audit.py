"""A last look at what hardening cost: accuracy on images that neither training nor the guard has ever seen.

The guard measures the same images after every round and keeps what passes there, so what it says of the weights it kept
flatters them. Where the drop on unseen images may be over the limit, part of the way back is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.subject import Subject
from .accuracy_guard import copy_weights, first_share

MARGIN = 1.0
"""Standard errors by which the drop must stay below the limit, so that not every second borderline case is over it."""

SHARES = (0.8, 0.6, 0.4, 0.2)
"""Parts of the way from the given to the hardened weights that are tried, in this order, when all of it costs too much.

Between two sets of weights of one fine-tuning accuracy falls late (Wortsman et al., CVPR 2022)."""


@record
class Audit:
    """What was found, and how much of the hardening was kept."""

    images: int = Field(gt=0, description="unseen images")
    accuracy_before: float
    accuracy_after: float = Field(description="of the weights that were kept")
    share: float = Field(ge=0, le=1, description="of the way from the given weights to the hardened ones; 1: all")


def audit(given: Subject, work: Subject, unseen: ImagePool | None, limit: float | None) -> Audit | None:
    """Measure both on unseen images; where ``work`` loses too much, move its weights back towards ``given`` in place.

    limit: the drop that is allowed, as a share; None: only measure. None without images.
    """
    if unseen is None or len(unseen) == 0:
        return None
    before, after = _hits(given, unseen), _hits(work, unseen)
    share = 1.0
    if limit is not None and not _within(before, after, limit):
        start = copy_weights(given)
        share = first_share(work, start, SHARES, lambda: _within(before, _hits(work, unseen), limit)) or 0.0
        if not share:
            work.module.load_state_dict(start)
        after = _hits(work, unseen)
    return Audit(images=len(unseen), accuracy_before=_mean(before), accuracy_after=_mean(after), share=share)


def drop_bound(before: Tensor, after: Tensor) -> float:
    """The drop of accuracy plus MARGIN standard errors; before, after (N,) bool: which images are right.

    Paired, as in McNemar's test: only images that changed count, and the standard error is that of their difference,
    sqrt(lost + won) / N.
    """
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return ((lost - won) + MARGIN * (lost + won) ** 0.5) / len(before)


def _within(before: Tensor, after: Tensor, limit: float) -> bool:
    return bool(torch.equal(before, after)) or drop_bound(before, after) <= limit


def _hits(subject: Subject, pool: ImagePool) -> Tensor:
    return subject.logits(pool.x).argmax(1) == pool.y.to(subject.device)


def _mean(hits: Tensor) -> float:
    return float(hits.double().mean())
