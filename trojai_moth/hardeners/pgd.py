"""Adversarial training (Madry et al., ICLR 2018): train on images that PGD has moved up the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..core.images import ImagePool, concatenate
from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import generator
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..synthesis.pgd import pgd
from ..synthesis.settings import PgdSettings
from .base import Hardener
from .fit_settings import FitSettings
from .trace import HardeningRound
from .trainer import PairVisit, Trainer, split_share


@record
class PgdTrainingSettings(PgdSettings, FitSettings):
    """The attack of PgdSettings, and how long it is trained against."""

    rounds: int = Field(default=8, gt=0, le=1_000_000, description="rounds of training, the guard looks after each")
    sgd_steps: int = Field(default=20, gt=0, le=1_000_000, description="training steps per round")
    batch: int = Field(default=32, gt=1, le=100_000, description="images per training step")
    clean_share: float = Field(
        default=0.5, ge=0, lt=1, description="share of a batch that stays as it is (Madry: 0; ours, for the accuracy)"
    )


class Pgd(Hardener):
    """Adversarial training: every image moved by PGD within a small box, under its true label."""

    name: ClassVar[str] = "pgd"
    settings_type: ClassVar[type] = PgdTrainingSettings
    settings: PgdTrainingSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """Every batch is attacked anew, with the weights as they are then."""
        settings = self.settings
        trainer = Trainer(work, samples, settings, generator(seed, self.name))

        def batch() -> ImagePool:
            clean, rest = split_share(trainer.clean_batch(), settings.clean_share)
            return concatenate([clean, ImagePool(pgd(work, rest, settings, trainer.stream), rest.y)])

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            return (), trainer.fit(batch, settings.sgd_steps)

        return trainer.run(settings.rounds, play, progress)
