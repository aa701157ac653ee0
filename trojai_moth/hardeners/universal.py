"""Universal hardening, a rival in the MOTH paper: one trigger per target, for images of any other class.

A universal trigger says less about each pair than a trigger of its own, so pairs grow apart less (paper, Table II).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import derive_seed, generator
from ..core.subject import Subject
from ..rounds.samples import Samples
from .base import Hardener
from .trace import HardeningRound
from .trainer import PairVisit, Trainer
from .trigger_batches import TriggerSettings, fresh_triggers, small_enough, turns


@record
class UniversalSettings(TriggerSettings):
    """Universal triggers of a few targets a round, all targets in turn."""

    passes: int = Field(default=4, gt=0, le=1_000_000, description="how often every target has its turn")
    targets_per_round: int = Field(
        default=4, gt=0, le=1_000_000, description="targets whose triggers are inverted together"
    )
    images_per_class: int = Field(
        default=4, gt=0, le=100_000, description="images per class to invert on (public code: 10)"
    )
    inversion_steps: int = Field(default=60, gt=0, le=1_000_000, description="inversion steps (public code: 500)")
    success_bound: float = Field(
        default=0.99, gt=0, le=1, description="success rate that a universal trigger must reach (public code)"
    )


class Universal(Hardener):
    """Train on freshly inverted universal triggers, one per target, under true labels."""

    name: ClassVar[str] = "universal"
    settings_type: ClassVar[type] = UniversalSettings
    settings: UniversalSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """A round inverts the triggers of the targets whose turn it is and trains on them."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))
        order = turns(trainer.targets, settings.targets_per_round, settings.passes, trainer.stream)

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            images = trainer.per_class(trainer.present, settings.images_per_class)
            pairs = [(None, target) for target in order[number - 1]]
            fresh = derive_seed(seed, self.name, number)
            visits, triggers = fresh_triggers(work, images, pairs, settings.inversion, fresh)
            small = small_enough(triggers, work.area, settings.largest_share)
            return visits, trainer.fit(partial(trainer.stamped_batch, small), settings.sgd_steps) if small else None

        return trainer.run(len(order), play, progress)
