"""The accuracy guard: hardening may cost so much accuracy on held-back images and no more."""

from __future__ import annotations

import torch
from torch import Tensor

from .images import ImagePool
from .subject import Subject


class AccuracyGuard:
    """Remembers the last weights that kept the accuracy, and goes back to them when a round costs too much."""

    def __init__(self, subject: Subject, held: ImagePool, limit: float) -> None:
        """Limit: the drop in accuracy that is allowed, as a share (0.005 is half a percentage point)."""
        self.subject, self.held, self.limit = subject, held, limit
        self.before = self.last = subject.accuracy(held.x, held.y)
        self._good = _copy(subject)

    def passes(self) -> bool:
        """Measure now; keep the weights if the accuracy is within the limit and every weight is finite."""
        accuracy = self.subject.accuracy(self.held.x, self.held.y)
        finite = all(bool(torch.isfinite(p).all()) for p in self.subject.module.parameters())
        if not finite or self.before - accuracy > self.limit + 1e-9:
            return False
        self.last, self._good = accuracy, _copy(self.subject)
        return True

    def go_back(self) -> None:
        """Put the last good weights back."""
        self.subject.module.load_state_dict(self._good)


def _copy(subject: Subject) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in subject.module.state_dict().items()}
