"""MOTH, model orthogonalization: enlarge the distance of every class pair by training on freshly inverted triggers.

Tao et al., "Model Orthogonalization: Class Distance Hardening in Neural Networks for Better Security", IEEE S&P 2022,
section V: warm-up, scheduler, symmetric pair hardening, dynamic adjustment. Different from the published code on
purpose: a round hardens many pairs at once, and in its turns triggers follow the weights in small steps rather than
being searched at length for each step of training; images of a pair are drawn from per-class pools, so hardening works
at any class count; batch-norm stays in evaluation mode by a named setting rather than by accident; and an accuracy
guard takes back every round that costs too much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.images import ImagePool
from ..core.messages import Progress
from ..core.seeding import derive_seed, generator
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..triggers.engine import Engine
from ..triggers.inversion import InversionResult, invert, random_start
from ..triggers.task import InversionSettings, make_task
from ..triggers.trigger import AnyPair, Pair, Trigger
from .base import Hardener
from .moth_settings import MothSettings
from .pair_scheduler import PairScheduler
from .trace import HardeningRound
from .trainer import PairVisit, Trainer
from .trigger_batches import small_enough

# Of all directed pairs, those whose triggers count as a model's smallest.
_SMALLEST_SHARE = 0.1


class Moth(Hardener):
    """Model orthogonalization: train on freshly inverted pair triggers under their true labels."""

    name: ClassVar[str] = "moth"
    settings_type: ClassVar[type] = MothSettings
    settings: MothSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """Round 0 is the warm-up; the accuracy guard ends what keeps costing too much."""
        trainer = Trainer(work, samples, self.settings, generator(seed, self.name))
        course = _Course(work, trainer, self.settings, seed)
        return trainer.run(
            self.settings.planned_rounds(work.classes), course.round, progress, first=0, enough=course.enough
        )


class _Course:
    """The state of one hardening: stored triggers and the scheduler."""

    def __init__(self, subject: Subject, trainer: Trainer, settings: MothSettings, seed: int) -> None:
        self.subject, self.trainer, self.settings, self.seed = subject, trainer, settings, seed
        self.engine = Engine(subject, settings.precision)
        self.warm = self._warm_up()
        random_share = 1.0 if "scheduler" in settings.without else settings.random_share
        self.scheduler = PairScheduler(self.warm.speed, random_share)
        self.per_round = settings.pairs_at_once(subject.classes)
        # Rounds in which as many pairs have their turn as there are.
        self.sweep = math.ceil(len(self.scheduler.pairs) / self.per_round)
        self.smallest = math.nan
        # Starts are kept per directed pair: (victim, target) is never swapped, and tensors are copied, not shared.
        self.starts: dict[Pair, tuple[Tensor, Tensor]] = {}

    def enough(self, number: int) -> str | None:
        """Why to end before the number of rounds that was worked out: the last sweep did not make the smallest grow.

        The first sweep's sizes do not count: they are of triggers from another start, and come out larger.
        """
        if self.settings.rounds or number < 2 * self.sweep or number % self.sweep:
            return None
        before, self.smallest = self.smallest, self.scheduler.smallest(_SMALLEST_SHARE)
        if not self.smallest < (1 + self.settings.least_growth) * before:
            return None
        return f"the smallest triggers stopped growing: {before:.1f} and {self.smallest:.1f} pixels"

    def round(self, number: int) -> tuple[Sequence[PairVisit], float | None]:
        """Pick pairs, then turns of inversion and training on them. Round 0 trains on the universal triggers."""
        if number == 0:
            return [], self._train_on_universal()
        directed = self._pick()
        images = self.trainer.per_class(sorted({victim for victim, _ in directed}), self.settings.images_per_direction)
        visits: list[PairVisit] = []
        losses = []
        result: InversionResult | None = None
        for turn in range(self.settings.turns):
            self.engine.refresh()
            result = self._invert(directed, images, number, turn, result)
            self._keep(directed, result)
            if turn == 0:
                sizes = _sizes(directed, result)
                self.scheduler.observe({pair: size for pair, size in sizes.items() if size is not None})
                visits = [(victim, target, size) for (victim, target), size in sizes.items()]
            triggers = self._to_stamp(result)
            if triggers:
                draw = partial(self.trainer.stamped_batch, triggers)
                losses.append(self.trainer.fit(draw, self.settings.sgd_steps))
        return visits, sum(losses) / len(losses) if losses else None

    def _pick(self) -> list[Pair]:
        """The round's directed pairs: both directions of the scheduler's, or one of each of twice as many."""
        settings, count = self.settings, self.per_round
        present = set(self.trainer.present)
        if "symmetric" not in settings.without:
            pairs = self.scheduler.pick(count, self.trainer.stream)
            directed = [way for a, b in pairs for way in ((a, b), (b, a))]
        else:
            pairs = self.scheduler.pick(2 * count, self.trainer.stream)
            turned = torch.rand(len(pairs), generator=self.trainer.stream) < 0.5
            directed = [(b, a) if turn else (a, b) for (a, b), turn in zip(pairs, turned.tolist(), strict=True)]
        return [pair for pair in directed if pair[0] in present]

    def _invert(
        self, directed: list[Pair], images: ImagePool, number: int, turn: int, last: InversionResult | None
    ) -> InversionResult:
        """Dynamic adjustment: warm starts, and fewer steps and more weight on the size as a pair is known better."""
        settings = self.settings
        task = make_task(images.y.cpu(), directed)
        if "dynamic" in settings.without:
            fresh = derive_seed(self.seed, "start", number, turn)
            start = random_start(task, self.subject.shape, fresh)
            steps, costs = settings.first_steps, [settings.first_cost] * len(directed)
        elif last is not None:
            start, steps, costs = (last.mask, last.pattern), settings.turn_steps, [settings.later_cost] * len(directed)
        else:
            known = [pair in self.starts for pair in directed]
            steps = settings.later_steps if all(known) else settings.first_steps
            costs = [settings.later_cost if old else settings.first_cost for old in known]
            masks, patterns = zip(*(self._start(pair) for pair in directed), strict=True)
            start = (torch.stack(masks), torch.stack(patterns))
        inversion = self._inversion(steps, settings.success_bound)
        return invert(
            self.subject, images.x, task, inversion, start, initial_cost=torch.tensor(costs), engine=self.engine
        )

    def _start(self, pair: Pair) -> tuple[Tensor, Tensor]:
        return self.starts.get(pair) or self.warm.start(pair)

    def _inversion(self, steps: int, bound: float) -> InversionSettings:
        """What trains a network need not be checked in fp32: a trigger that works in bf16 only does no harm."""
        return InversionSettings(steps=steps, success_bound=bound, stall_steps=steps, recheck_steps=0)

    def _keep(self, directed: list[Pair], result: InversionResult) -> None:
        for row, pair in enumerate(directed):
            if result.converged[row]:
                self.starts[pair] = (result.mask[row].clone(), result.pattern[row].clone())

    def _to_stamp(self, result: InversionResult) -> list[Trigger]:
        """All that leave something to recognise, whether they work yet or not: the weights have just moved."""
        largest = self.settings.largest_share * self.subject.area
        rows = torch.nonzero(result.size < largest).flatten().tolist()
        return [result.row_trigger(row) for row in rows]

    def _warm_up(self) -> WarmUp:
        settings = self.settings
        present = self.trainer.present
        count = max(1, min(settings.warmup_per_class, settings.warmup_images // len(present)))
        images = self.trainer.per_class(present, count)
        inversion = self._inversion(settings.warmup_steps, settings.warmup_bound)
        way = pairwise_warm_up if "warmup" in settings.without else warm_up
        return way(self.subject, images, inversion, derive_seed(self.seed, "warm-up"), self.engine)

    def _train_on_universal(self) -> float | None:
        """One training step per target whose universal trigger works, on images of every other class."""
        triggers = small_enough(self.warm.universal(), self.subject.area, self.settings.largest_share)
        losses = [self.trainer.fit(partial(self.trainer.stamped_batch, [trigger]), 1) for trigger in triggers]
        return sum(losses) / len(losses) if losses else None


def _sizes(directed: list[Pair], result: InversionResult) -> dict[Pair, float | None]:
    """Sizes in pixels; None for a direction without a trigger that works, which is then not counted as a size."""
    found = zip(directed, result.size.tolist(), result.converged.tolist(), strict=True)
    return {pair: size if converged else None for pair, size, converged in found}


@dataclass(frozen=True)
class WarmUp:
    """What is known of the pairs before hardening.

    speed (K, K): u[i, t] in (-inf, 1], 0 on the diagonal; starts: a mask (1, H, W) and a pattern (C, H, W) for each
    (victim, target), with victim None for a universal trigger; working: those of starts that work.
    """

    speed: np.ndarray
    starts: dict[AnyPair, tuple[Tensor, Tensor]]
    working: frozenset[AnyPair]

    def start(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Where the search for a pair's trigger begins: its own, or the universal one of its target."""
        return self.starts.get(pair) or self.starts[None, pair[1]]

    def universal(self) -> list[Trigger]:
        """The universal triggers that work."""
        return [Trigger(v, t, *self.starts[v, t]) for v, t in self.starts if v is None and (v, t) in self.working]


def warm_up(
    subject: Subject, images: ImagePool, settings: InversionSettings, seed: int, engine: Engine | None = None
) -> WarmUp:
    """Invert one universal trigger per target on the images of all other classes, all targets at once."""
    return _invert(subject, images, settings, seed, engine, [(None, target) for target in range(subject.classes)])


def pairwise_warm_up(
    subject: Subject, images: ImagePool, settings: InversionSettings, seed: int, engine: Engine | None = None
) -> WarmUp:
    """Without the approximation (paper, Table III): invert a trigger for every pair whose victim has images."""
    present = sorted(set(images.y.tolist()))
    pairs = [(victim, target) for victim in present for target in range(subject.classes) if victim != target]
    return _invert(subject, images, settings, seed, engine, pairs)


def _invert(
    subject: Subject,
    images: ImagePool,
    settings: InversionSettings,
    seed: int,
    engine: Engine | None,
    pairs: Sequence[AnyPair],
) -> WarmUp:
    task = make_task(images.y.cpu(), pairs)
    result = invert(subject, images.x, task, settings, random_start(task, subject.shape, seed), engine=engine)
    starts = {pair: (result.mask[row], result.pattern[row]) for row, pair in enumerate(pairs)}
    working = frozenset(pair for row, pair in enumerate(pairs) if result.converged[row])
    return WarmUp(loss_change(result, images.y, subject.classes), starts, working)


def loss_change(result: InversionResult, y: Tensor, classes: int) -> np.ndarray:
    """u[i, t] = mean over images of class i of (l0 - l_best) / l0, 0 where l0 is 0 (the warm-up's approximation).

    l0 and l_best are an image's cross-entropy towards t at the first step and at the best trigger.
    """
    first, best = result.first_loss.cpu(), result.best_loss.cpu()
    share = torch.where(first > 0, (first - best) / first.clamp_min(1e-12), torch.zeros_like(first))
    speed = np.zeros((classes, classes))
    labels = y.cpu()[result.task.index]
    for row, target in enumerate(result.task.targets.tolist()):
        used = result.task.weight[row] > 0
        for label in range(classes):
            mine = share[row][used & (labels[row] == label)]
            if len(mine):
                speed[label, target] = float(mine.mean())
    np.fill_diagonal(speed, 0.0)
    return speed
