"""Unlearning of Neural Cleanse (Wang et al., IEEE S&P 2019, section VI-C), again and again.

Universal triggers are inverted once. Those whose size is an outlier below the others name the suspicious targets; where
there are none, pairs of classes are looked at in the same way, as in all-to-all backdoors, and else the smallest
universal trigger is taken. A round inverts these triggers anew, stamps them and the last few on images under their true
labels, and fine-tunes the model on these.

Neural Cleanse inverts once and trains for an epoch. That unlearns the trigger that was found, which is a small part of
the one that was injected: in a stranger's network with a square of 25 pixels 9 were found, and after ten epochs the
square still worked on 21 % of the images. So later rounds look for what is left, and rounds of few steps find large
triggers that cover the injected one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch

from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import derive_seed, generator
from ..core.statistics import anomaly_indices
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..triggers.trigger import SIZE_FLOOR, AnyPair, Trigger
from .base import Hardener
from .fit_settings import FitSettings
from .trace import HardeningRound
from .trainer import PairVisit, Trainer
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
    fewest_steps: int = Field(
        default=20, gt=0, le=1_000_000, description="inversion steps of the shortest round; others lie between, drawn"
    )
    success_bound: float = Field(default=0.99, gt=0, le=1, description="success rate that a trigger must reach (NC)")
    initial_cost: float = Field(
        default=1e-3, ge=0, le=1e12, description="weight of the mask's size at the start (MOTH's code)"
    )
    outlier_index: float = Field(default=2.0, gt=0, le=1e12, description="anomaly index of a suspicious target (NC: 2)")
    pair_index: float = Field(
        default=3.5, gt=0, le=1e12, description="the same of a pair, among the logarithms of all pairs' sizes"
    )
    most_pairs: int = Field(default=20, gt=0, le=100_000, description="suspicious pairs at most, the smallest")
    rounds: int = Field(default=16, gt=0, le=1_000_000, description="how often triggers are inverted and unlearned")
    sgd_steps: int = Field(default=40, gt=0, le=1_000_000, description="training steps per round")
    kept_triggers: int = Field(
        default=8, gt=0, le=100_000, description="triggers of a target that are stamped at a time, the latest"
    )


class NcUnlearn(Hardener):
    """Neural Cleanse's unlearning, repeated: fine-tune with the suspicious targets' triggers under true labels."""

    name: ClassVar[str] = "nc-unlearn"
    settings_type: ClassVar[type] = NcUnlearnSettings
    settings: NcUnlearnSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """The targets are chosen once. Every round lists the triggers that it found."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))
        chosen = self._suspicious(trainer, seed)
        if not chosen:
            return [], "no universal trigger works, so there is none to unlearn"
        found = list(chosen)
        most = settings.kept_triggers * len(chosen)

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            fresh = found
            if number > 1:
                least, steps = sorted((settings.fewest_steps, settings.inversion_steps))
                count = int(torch.randint(least, steps + 1, (1,), generator=trainer.stream))
                rows = [(trigger.victim, trigger.target) for trigger in chosen]
                fresh = self._invert(trainer, rows, count, derive_seed(seed, self.name, number))
                found.extend(fresh)
            visits: list[PairVisit] = [(trigger.victim, trigger.target, trigger.size) for trigger in fresh]
            last = found[-most:]
            return visits, trainer.fit(partial(trainer.stamped_batch, last), settings.sgd_steps)

        return trainer.run(settings.rounds, play, progress)

    def _suspicious(self, trainer: Trainer, seed: int) -> list[Trigger]:
        """Universal triggers that are outliers, else pairs' that are, else the smallest universal one."""
        settings = self.settings
        targets: list[AnyPair] = [(None, target) for target in trainer.targets]
        universal = self._invert(trainer, targets, settings.inversion_steps, derive_seed(seed, self.name))
        if found := outliers(universal, [trigger.size for trigger in universal], settings.outlier_index):
            return found
        pairs: list[AnyPair] = [(v, t) for v in trainer.present for t in range(trainer.subject.classes) if v != t]
        each = self._invert(trainer, pairs, settings.inversion_steps, derive_seed(seed, self.name, "pairs"))
        logs = [math.log(max(trigger.size, SIZE_FLOOR)) for trigger in each]
        found = outliers(each, logs, settings.pair_index)
        return found[: settings.most_pairs] or sorted(universal, key=lambda trigger: trigger.size)[:1]

    def _invert(self, trainer: Trainer, rows: Sequence[AnyPair], steps: int, seed: int) -> list[Trigger]:
        """Those that work, on images drawn anew."""
        settings = self.settings
        images = trainer.per_class(trainer.present, settings.images_per_class)
        inversion = in_full(steps, settings.success_bound, settings.initial_cost, settings.precision)
        return fresh_triggers(trainer.subject, images, rows, inversion, seed)[1]


def outliers(triggers: Sequence[Trigger], sizes: Sequence[float], bound: float) -> list[Trigger]:
    """Those whose sizes have an anomaly index over ``bound``, smallest first."""
    indices = anomaly_indices(sizes) or []
    found = [trigger for trigger, index in zip(triggers, indices, strict=False) if index > bound]
    return sorted(found, key=lambda trigger: trigger.size)
