"""What hardeners share: gentle training on batches they draw, and a guard that takes back what costs too much.

A hardener is then the batches it draws (and, rarely, a loss of its own) and the order of its rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..core.images import ImagePool, concatenate
from ..core.messages import Progress
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..triggers.engine import threads, training_plan
from ..triggers.trigger import Trigger, stamp
from .accuracy_guard import AccuracyGuard
from .fit_settings import FitSettings
from .trace import HardeningRound

# Layers of ordinary networks have weights within this factor of the usual ones (mobilenetv2 as it is drawn: 31).
_UNUSUAL = 100.0
PairVisit = tuple[int | None, int, float | None]
Draw = Callable[[], ImagePool]
Loss = Callable[[nn.Module, ImagePool], Tensor]


def class_logits(module: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """Images (N, C, H, W) -> logits (N, K) in fp32, with gradients."""
    output = module(x)
    # GoogLeNet and Inception give their side outputs too while they train; the first is the classifier's.
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits.float()


def cross_entropy(module: Callable[[Tensor], Any], batch: ImagePool) -> Tensor:
    """The loss of a classifier on a batch under its labels."""
    return F.cross_entropy(class_logits(module, batch.x), batch.y)


class Trainer:
    """The weights that are changed, the images they are trained on, the optimiser and the accuracy guard.

    ``train`` are the images; ``stream`` draws batches and nothing else, so that the same calls give the same weights.
    """

    def __init__(self, subject: Subject, samples: Samples, settings: FitSettings, stream: torch.Generator) -> None:
        self.subject, self.settings, self.stream = subject, settings, stream
        self.train = samples.train.to(subject.device)
        # Composed images are all originals: then both are one pool, which need not be measured twice.
        watched = [samples.clean] if samples.held is samples.clean else [samples.clean, samples.held]
        pools = [pool.to(subject.device) for pool in watched]
        self.guard = AccuracyGuard(subject, pools, settings.accuracy_limit)
        self.learning_rate, self.back_offs = settings.learning_rate, 0
        self.present = [label for label in range(subject.classes) if len(self.train.positions(label))]
        self._labels = self.train.y.cpu()
        self._way = training_plan(subject, settings.precision, settings.batch)
        self._way.lay_out(subject.module)
        self._optimiser = self._fresh_optimiser()
        self._average: AveragedModel | None = None

    @property
    def targets(self) -> list[int]:
        """Classes that a universal trigger can lead to: those with images of another class."""
        return [t for t in range(self.subject.classes) if any(label != t for label in self.present)]

    @property
    def epoch_steps(self) -> int:
        """Training steps that see as many images as there are."""
        return -(-len(self.train) // self.settings.batch)

    def run(
        self,
        count: int,
        play: Callable[[int], tuple[Sequence[PairVisit], float | None]],
        progress: Progress,
        *,
        first: int = 1,
        enough: Callable[[int], str | None] = lambda _: None,
    ) -> tuple[list[HardeningRound], str]:
        """Rounds ``first`` to ``count``: play gives what was visited and the loss, the guard keeps it or takes it back.

        Ends early once more rounds in a row were taken back than the settings allow, or ``enough`` gives a reason.
        """
        rounds = []
        for number in range(first, count + 1):
            visits, loss = play(number)
            kept = self.settle()
            rounds.append(
                HardeningRound(
                    number=number,
                    pairs=tuple(visits),
                    loss=loss,
                    learning_rate=self.learning_rate,
                    accuracy=self.guard.last[0],
                    taken_back=not kept,
                )
            )
            progress(f"round {number}/{count}")
            if self.back_offs > self.settings.back_offs:
                limit = self.settings.accuracy_limit
                return rounds, f"accuracy guard: {self.back_offs} rounds cost more than {limit:.1%}"
            if reason := enough(number):
                return rounds, reason
        return rounds, "all rounds done"

    def settle(self) -> bool:
        """Keep the weights where accuracy allows, after clean steps or part of the way, or go back."""
        self._take_average()
        if self.guard.passes() or self._recovered() or self.guard.passes_part_way(self.settings.part_ways):
            self.back_offs = 0
            self.learning_rate = min(self.settings.learning_rate, self.learning_rate * self.settings.rate_growth)
            self.set_rate()
            return True
        self.guard.go_back()
        self.learning_rate /= 2
        self.back_offs += 1
        self._optimiser = self._fresh_optimiser()
        return False

    def set_rate(self, factor: float = 1.0) -> None:
        """Let steps have ``factor`` times the learning rate, until a round is settled."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate * factor * group["own_scale"]

    def fit(self, draw: Draw, steps: int, loss: Loss = cross_entropy) -> float:
        """``steps`` steps of the optimiser on the batches that ``draw`` gives; the mean loss."""
        total = torch.zeros((), device=self.subject.device)
        training = self.subject.trainable(train_batch_norm=self.settings.train_batch_norm)
        with training as module, self._own_dropout(), threads(self._way.threads, self.subject.device):
            for _ in range(steps):
                value = self._loss(module, draw(), loss)
                self._optimiser.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(module.parameters(), self.settings.clip_norm)
                self._optimiser.step()
                self._remember(module)
                total += value.detach()
            self._optimiser.zero_grad(set_to_none=True)
        return float(total) / max(steps, 1)

    def _loss(self, module: nn.Module, batch: ImagePool, loss: Loss) -> Tensor:
        with self._way.autocast(self.subject.device):
            return loss(module, ImagePool(self._way.laid_out(batch.x), batch.y))

    def clean_batch(self) -> ImagePool:
        """Random images as they are."""
        return self.random(torch.arange(len(self.train)), self.settings.batch)

    def stamped_batch(self, triggers: Sequence[Trigger]) -> ImagePool:
        """Half random clean images, half images of the triggers' victims with the triggers on, under true labels."""
        half = self.settings.batch // 2
        parts = [self.random(torch.arange(len(self.train)), half)]
        if len(triggers) > half:
            triggers = [triggers[at] for at in torch.randperm(len(triggers), generator=self.stream)[:half].tolist()]
        for trigger in triggers:
            own = self._labels == trigger.victim if trigger.victim is not None else self._labels != trigger.target
            pool = self.random(torch.nonzero(own).flatten(), max(1, half // len(triggers)))
            parts.append(stamped(pool, trigger))
        return concatenate(parts)

    def random(self, index: Tensor, count: int) -> ImagePool:
        """``count`` of the images at ``index``, without repeats as long as there are enough."""
        rounds = [index[torch.randperm(len(index), generator=self.stream)] for _ in range(-(-count // len(index)))]
        return self.train.take(torch.cat(rounds)[:count].to(self.train.x.device))

    def per_class(self, classes: Sequence[int], count: int) -> ImagePool:
        """``count`` different images of each class (all, where it has fewer), in the order of ``classes``."""
        chosen = []
        for label in classes:
            own = self.train.positions(label)
            order = torch.randperm(len(own), generator=self.stream)[:count].to(own.device)
            chosen.append(own[order])
        return self.train.take(torch.cat(chosen))

    def _recovered(self) -> bool:
        self.fit(self.clean_batch, self.settings.recovery_steps)
        self._take_average()
        return self.guard.passes()

    def _remember(self, module: nn.Module) -> None:
        """The weights after one step of a small batch are noisy, and so is what they cost; their average is less."""
        if not self.settings.average_decay:
            return
        if self._average is None:
            decay = self.settings.average_decay
            self._average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._average.update_parameters(module)

    def _take_average(self) -> None:
        if self._average is not None:
            self.subject.module.load_state_dict(self._average.module.state_dict())
            self._average = None

    def _fresh_optimiser(self) -> torch.optim.Optimizer:
        settings, momentum = self.settings, self.settings.momentum
        # Adam's steps have the rate's size whatever the gradient's; SGD's shrink as weights grow, by as much again.
        power = 1 if settings.optimiser == "adam" else 2
        groups = [
            {"params": [value], "own_scale": scale**power, "lr": self.learning_rate * scale**power}
            for value, scale in weight_scales(self.subject.module)
        ]
        if settings.optimiser == "adam":
            return torch.optim.Adam(groups, lr=self.learning_rate, betas=(momentum, 0.99))
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=momentum, nesterov=momentum > 0)

    @contextmanager
    def _own_dropout(self) -> Iterator[None]:
        """Dropout cannot be given a stream, so the CPU's global one is seeded from ours and put back afterwards."""
        if not self.settings.train_batch_norm:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**62, (1,), generator=self.stream)))
            yield


def weight_scales(module: nn.Module) -> list[tuple[nn.Parameter, float]]:
    """Every weight once, with how many times as large as usual those of its layer are; 1 where that is not unusual.

    A layer in front of a ReLU can be scaled against the next one without changing any output (Dinh et al., ICML 2017),
    and then steps of one size are nothing to the one and ruin the other. Usual: by the layer's inputs, as in He et al.,
    ICCV 2015; 1 for normalisation.
    """
    found: dict[nn.Parameter, float] = {}
    for layer in module.modules():
        own = list(layer.parameters(recurse=False))
        if not own or all(value in found for value in own):
            continue
        largest = max(own, key=lambda value: value.dim())
        usual = math.sqrt(2 / largest[0].numel()) if largest.dim() > 1 else 1.0
        scale = float(largest.detach().double().square().mean().sqrt()) / usual
        unusual = scale > 0 and not 1 / _UNUSUAL < scale < _UNUSUAL
        found.update((value, scale if unusual else 1.0) for value in own if value not in found)
    return list(found.items())


def stamped(pool: ImagePool, trigger: Trigger) -> ImagePool:
    """The same images with the trigger on, under their own labels."""
    mask, pattern = trigger.mask.to(pool.x.device), trigger.pattern.to(pool.x.device)
    return ImagePool(stamp(pool.x, mask, pattern), pool.y)


def split_share(pool: ImagePool, share: float) -> tuple[ImagePool, ImagePool]:
    """The first ``share`` of the images, rounded, and the rest, of which there is at least one."""
    cut = min(round(share * len(pool)), len(pool) - 1)
    return pool.take(torch.arange(cut)), pool.take(torch.arange(cut, len(pool)))
