"""The accuracy guard: hardening may cost so much accuracy on held-back images and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..core.images import ImagePool
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
