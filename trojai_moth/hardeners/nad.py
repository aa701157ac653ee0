"""Neural attention distillation (Li et al., ICLR 2021): look where a clean fine-tuned copy of the model looks.

The teacher is the model after some epochs on clean images. The student, which starts from the model as it was, learns
the labels and the teacher's attention maps at the end of its last stages, found in any architecture by their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.images import ImagePool
from ..core.messages import Progress
from ..core.records import Field, record
from ..core.seeding import generator
from ..core.subject import Subject
from ..rounds.samples import Samples
from .base import Hardener
from .fit_settings import FitSettings
from .trace import HardeningRound
from .trainer import PairVisit, Trainer, cross_entropy


@record
class NadSettings(FitSettings):
    """Epochs of teacher and student and the weight of attention; published: SGD at 0.1, far from gentle."""

    teacher_epochs: int = Field(
        default=10, ge=0, le=1_000_000, description="clean epochs that make the teacher (NAD: 10)"
    )
    epochs: int = Field(default=20, gt=0, le=1_000_000, description="epochs of distillation (NAD: 20)")
    attention_weight: float = Field(
        default=1000.0,
        ge=0,
        le=1e12,
        description="weight of the maps' mean squared difference (NAD's code: 500, 1000, 1000)",
    )
    stages: int = Field(
        default=3, gt=0, le=1_000_000, description="last stages of different size whose attention counts (NAD: 3)"
    )


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


# A module's name and the height and width of what it gives out.
Place = tuple[str, int, int]


def attention_places(subject: Subject, count: int) -> tuple[Place, ...]:
    """Of the last ``count`` sizes that activations have, the last module that gives each; () for a network without.

    This is the end of a stage in any architecture: what goes into the next pooling or strided convolution. Found by
    one forward pass of a blank image. Outputs of 1 x 1 have no map, and neither has what is not a batch of channels.
    """
    last: dict[tuple[int, int], str] = {}

    def note(name: str, output: Tensor) -> None:
        size = (output.shape[2], output.shape[3])
        last.pop(size, None)  # so that the sizes are in the order in which each was seen last
        last[size] = name

    with subject.frozen() as module, torch.no_grad(), _watched(dict(module.named_modules()), note):
        module(torch.zeros(1, *subject.shape, device=subject.device))
    return tuple((name, *size) for size, name in last.items())[-count:]


@contextmanager
def activations_at(module: nn.Module, places: tuple[Place, ...]) -> Iterator[dict[Place, Tensor]]:
    """A dictionary that every forward pass inside fills: place -> activations (N, channels, height, width)."""
    found: dict[Place, Tensor] = {}

    def note(name: str, output: Tensor) -> None:
        place = (name, output.shape[2], output.shape[3])
        if place in places:  # a module that is used at several sizes counts at its own only
            found[place] = output

    names = {name for name, _, _ in places}
    with _watched({name: part for name, part in module.named_modules() if name in names}, note):
        yield found


def attention_map(activations: Tensor) -> Tensor:
    """(N, channels, H, W) -> (N, H * W): the sum of squares over the channels, of L2 norm 1 per image."""
    return F.normalize(activations.float().square().sum(1).flatten(1), eps=1e-6)


def attention_distance(ours: Mapping[Place, Tensor], theirs: Mapping[Place, Tensor]) -> Tensor:
    """Sum over the places of the mean squared difference of the maps of two networks' activations.

    To be called after the forward passes: what is rectified in place must be so before its map is taken.
    """
    return torch.stack([F.mse_loss(attention_map(ours[place]), attention_map(theirs[place])) for place in theirs]).sum()


@contextmanager
def _watched(parts: Mapping[str, nn.Module], note: Callable[[str, Tensor], None]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, part in parts.items():
            stack.enter_context(part.register_forward_hook(partial(_tell, note, name)))
        yield


def _tell(note: Callable[[str, Tensor], None], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
        note(name, output)
