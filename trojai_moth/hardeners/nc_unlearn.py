"""Unlearning of Neural Cleanse (Wang et al., IEEE S&P 2019, section VI-C): train the suspicious trigger away.

Universal triggers are inverted once. Those whose size is an outlier below the others, or else the smallest one, are
stamped on a fifth of the images under their true labels, and the model is fine-tuned on these.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch

from ..core.images import ImagePool, concatenate
from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import derive_seed, generator
from ..core.statistics import anomaly_indices
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..triggers.trigger import Trigger
from .base import Hardener
from .fit_settings import FitSettings
from .trace import HardeningRound
from .trainer import PairVisit, Trainer, stamped
from .trigger_batches import fresh_triggers, in_full


@record
class NcUnlearnSettings(FitSettings):
    """What is inverted, which triggers are unlearned and for how long."""

    images_per_class: int = Field(
        default=4, gt=0, le=100_000, description="images per class to invert on (MOTH's code: 10)"
    )
    inversion_steps: int = Field(
        default=100, gt=0, le=1_000_000, description="inversion steps, as in our neural-cleanse scanner"
    )
    success_bound: float = Field(default=0.99, gt=0, le=1, description="success rate that a trigger must reach (NC)")
    initial_cost: float = Field(
        default=1e-3, ge=0, le=1e12, description="weight of the mask's size at the start (MOTH's code)"
    )
    outlier_index: float = Field(default=2.0, gt=0, le=1e12, description="anomaly index of a suspicious target (NC: 2)")
    stamped_share: float = Field(default=0.2, gt=0, le=1, description="share of the images that is stamped (NC: 0.2)")
    epochs: int = Field(
        default=10,
        gt=0,
        le=1_000_000,
        description="epochs (NC: 1, over a tenth of its training data: thousands of images, not ours)",
    )


class NcUnlearn(Hardener):
    """Neural Cleanse's unlearning: fine-tune with the smallest universal trigger stamped under true labels."""

    name: ClassVar[str] = "nc-unlearn"
    settings_type: ClassVar[type] = NcUnlearnSettings
    settings: NcUnlearnSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """Invert once; then a round is an epoch. Every round lists the triggers that are unlearned."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))
        chosen = suspicious(self._invert(trainer, seed), settings.outlier_index)
        if not chosen:
            return [], "no universal trigger works, so there is none to unlearn"
        visits: list[PairVisit] = [(None, trigger.target, trigger.size) for trigger in chosen]

        def batch() -> ImagePool:
            # Images of any class are stamped, the target's own too, as in the paper.
            images = trainer.clean_batch()
            each = max(1, round(settings.stamped_share * len(images) / len(chosen)))
            cuts = [*(each * number for number in range(len(chosen) + 1)), len(images)]
            *parts, rest = [images.take(torch.arange(start, end)) for start, end in pairwise(cuts)]
            return concatenate([*map(stamped, parts, chosen), rest])

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            return visits, trainer.fit(batch, trainer.epoch_steps)

        return trainer.run(settings.epochs, play, progress)

    def _invert(self, trainer: Trainer, seed: int) -> list[Trigger]:
        settings = self.settings
        pairs = [(None, target) for target in trainer.targets]
        images = trainer.per_class(trainer.present, settings.images_per_class)
        inversion = in_full(settings.inversion_steps, settings.success_bound, settings.initial_cost, settings.precision)
        return fresh_triggers(trainer.subject, images, pairs, inversion, derive_seed(seed, self.name))[1]


def suspicious(triggers: Sequence[Trigger], bound: float) -> list[Trigger]:
    """Those that are outliers by an anomaly index over ``bound``; the smallest alone where none is; [] without any."""
    indices = anomaly_indices([trigger.size for trigger in triggers]) or []
    outliers = [trigger for trigger, index in zip(triggers, indices, strict=False) if index > bound]
    return outliers or sorted(triggers, key=lambda trigger: trigger.size)[:1]
