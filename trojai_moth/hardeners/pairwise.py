"""Pairwise hardening, a rival in the MOTH paper: every class pair in turn, inverted anew and in full each time.

What MOTH is without its warm-up, its scheduler and its dynamic adjustment: as good, and slow, since nothing is reused
and no pair is left out (paper, Table II: as many gains in several times the minutes).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
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
class PairwiseSettings(TriggerSettings):
    """Triggers of a few class pairs a round, both directions, all pairs in turn."""

    passes: int = Field(default=2, gt=0, le=1_000_000, description="how often every pair has its turn")
    pairs_per_round: int = Field(
        default=4, gt=0, le=1_000_000, description="class pairs hardened together in a round (paper: 1)"
    )
    images_per_direction: int = Field(
        default=8, gt=0, le=100_000, description="images of the victim class to invert on"
    )
    inversion_steps: int = Field(
        default=60,
        gt=0,
        le=1_000_000,
        description="inversion steps (public code: 200; MOTH here: 30 of warm-up and 30 of its own)",
    )


class Pairwise(Hardener):
    """Train on freshly inverted triggers of every class pair in turn, both directions, under true labels."""

    name: ClassVar[str] = "pairwise"
    settings_type: ClassVar[type] = PairwiseSettings
    settings: PairwiseSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """A round inverts both directions of the pairs whose turn it is and trains on them."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))
        present = set(trainer.present)
        pairs = [pair for pair in combinations(range(work.classes), 2) if present.intersection(pair)]
        order = turns(pairs, settings.pairs_per_round, settings.passes, trainer.stream)

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            both = [way for a, b in order[number - 1] for way in ((a, b), (b, a)) if way[0] in present]
            images = trainer.per_class(sorted({victim for victim, _ in both}), settings.images_per_direction)
            fresh = derive_seed(seed, self.name, number)
            visits, triggers = fresh_triggers(work, images, both, settings.inversion, fresh)
            small = small_enough(triggers, work.area, settings.largest_share)
            return visits, trainer.fit(partial(trainer.stamped_batch, small), settings.sgd_steps) if small else None

        return trainer.run(len(order), play, progress)
