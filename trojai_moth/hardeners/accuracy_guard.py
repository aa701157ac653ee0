"""What hardening may cost: the accuracy guard after every round, and the audit on images that nothing has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.subject import Subject


class AccuracyGuard:
    """Remembers the last weights that kept the accuracy, and goes back to them when a round costs too much.

    Plain images and augmented ones are watched apart: training on augmentations can gain on the one and lose on the
    other, and a sum of both would hide it.
    """

    def __init__(self, subject: Subject, pools: Sequence[ImagePool], limit: float) -> None:
        """Limit: the drop in accuracy that is allowed on each pool, as a share (0.005 is half a percentage point)."""
        self.subject, self.pools, self.limit = subject, [pool for pool in pools if len(pool)], limit
        self.before = self.last = self._measure()
        self._good = copy_weights(subject)

    def passes(self) -> bool:
        """Measure now; keep the weights if no pool lost more than the limit and every weight is finite."""
        accuracies = self._measure()
        drop = max((old - new for old, new in zip(self.before, accuracies, strict=True)), default=0.0)
        if drop > self.limit + 1e-9 or not self._finite():
            return False
        self.last, self._good = accuracies, copy_weights(self.subject)
        return True

    def is_back(self) -> bool:
        """Whether the accuracy is now as high as at first on every pool; nothing is kept."""
        return all(new >= old for old, new in zip(self.before, self._measure(), strict=True))

    def passes_part_way(self, shares: Sequence[float]) -> bool:
        """Go back only so far that the accuracy is kept: the first of these shares of the way forward that passes.

        Between two sets of weights of one fine-tuning accuracy falls late and what was learned is there early (Wortsman
        et al., "Robust fine-tuning of zero-shot models", CVPR 2022). Leaves the last share's weights if none passes.
        """
        return first_share(self.subject, self._good, shares, self.passes) is not None

    def go_back(self) -> None:
        """Put the last good weights back."""
        self.subject.module.load_state_dict(self._good)

    def _measure(self) -> list[float]:
        return [self.subject.accuracy(pool.x, pool.y) for pool in self.pools]

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.subject.module.parameters())


def copy_weights(subject: Subject) -> dict[str, Tensor]:
    """All that is saved with the network, as it is now."""
    return {name: tensor.detach().clone() for name, tensor in subject.module.state_dict().items()}


def first_share(
    subject: Subject, start: Mapping[str, Tensor], shares: Sequence[float], passes: Callable[[], bool]
) -> float | None:
    """The first of these shares of the way from ``start`` to the subject's weights that passes, left in place.

    None if none passes; the last share's weights are then in place.
    """
    reached = copy_weights(subject)
    for share in shares:
        subject.module.load_state_dict({name: between(start[name], now, share) for name, now in reached.items()})
        if passes():
            return share
    return None


def between(old: Tensor, new: Tensor, share: float) -> Tensor:
    """The way from old to new, part of it; counters, which batch norm has, are new."""
    return torch.lerp(old, new, share) if old.is_floating_point() else new


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
