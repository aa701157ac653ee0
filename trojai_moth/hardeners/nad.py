"""Neural attention distillation (Li et al., ICLR 2021): look where a clean fine-tuned copy of the model looks.

The teacher is the model after some epochs on clean images. The student, which starts from the model as it was, learns
the labels and the teacher's attention maps at the end of its last stages, found in any architecture by their sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core.images import ImagePool
from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import generator
from ..core.subject import Subject
from ..rounds.samples import Samples
from .attention_maps import activations_at, attention_distance, attention_places
from .base import Hardener
from .fit_settings import FitSettings
from .trace import HardeningRound
from .trainer import PairVisit, Trainer, cross_entropy


@record
class NadSettings(FitSettings):
    """Epochs of teacher and student and the weight of attention; published: SGD at 0.1, far from gentle."""

    teacher_epochs: int = Field(default=10, ge=0, description="clean epochs that make the teacher (NAD: 10)")
    epochs: int = Field(default=20, gt=0, description="epochs of distillation (NAD: 20)")
    attention_weight: float = Field(
        default=1000.0, ge=0, description="weight of the maps' mean squared difference (NAD's code: 500, 1000, 1000)"
    )
    stages: int = Field(default=3, gt=0, description="last stages of different size whose attention counts (NAD: 3)")


class Nad(Hardener):
    """Neural attention distillation: learn the attention of a copy that was fine-tuned on clean images."""

    name: ClassVar[str] = "nad"
    settings_type: ClassVar[type] = NadSettings
    settings: NadSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """A round is an epoch of distillation; the teacher is not judged, since nothing of it is kept."""
        settings = self.settings
        teacher = make_teacher(work, samples, settings, seed)
        progress(f"teacher after {settings.teacher_epochs} epochs")
        trainer = Trainer(work, samples, settings, generator(seed, self.name))
        places = attention_places(work, settings.stages)

        def loss(module: nn.Module, batch: ImagePool) -> Tensor:
            with activations_at(module, places) as ours:
                value = cross_entropy(module, batch)
            with activations_at(teacher.module, places) as theirs:
                teacher.logits(batch.x, len(batch))
            return value + settings.attention_weight * attention_distance(ours, theirs) if places else value

        def play(number: int) -> tuple[Sequence[PairVisit], float | None]:
            return (), trainer.fit(trainer.clean_batch, trainer.epoch_steps, loss)

        return trainer.run(settings.epochs, play, progress)


def make_teacher(subject: Subject, samples: Samples, settings: NadSettings, seed: int) -> Subject:
    """A copy of the subject, fine-tuned on clean images."""
    teacher = subject.clone()
    trainer = Trainer(teacher, samples, settings, generator(seed, "nad teacher"))
    trainer.fit(trainer.clean_batch, settings.teacher_epochs * trainer.epoch_steps)
    return teacher


def attention_gap(student: Subject, teacher: Subject, x: Tensor, stages: int) -> float:
    """How differently two models look at images x (N, 3, H, W): the sum over stages of their maps' squared difference.

    What distillation is to make smaller.
    """
    places = attention_places(student, stages)
    seen = []
    for subject in (student, teacher):
        with activations_at(subject.module, places) as found, torch.no_grad():
            subject.logits(x, len(x))
        seen.append(dict(found))
    return float(attention_distance(*seen)) if places else 0.0
