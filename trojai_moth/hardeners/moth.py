"""MOTH, model orthogonalization: enlarge the distance of every class pair by training on freshly inverted triggers.

Tao et al., "Model Orthogonalization: Class Distance Hardening in Neural Networks for Better Security", IEEE S&P 2022,
section V: warm-up, scheduler, symmetric pair hardening, dynamic adjustment. Different from the published code on
purpose: several pairs share a round's inversion and its batches; images of a pair are drawn from per-class pools, so
hardening works at any class count; batch-norm stays in evaluation mode by a named setting rather than by accident; and
an accuracy guard takes back every round that costs too much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..guard import AccuracyGuard
from ..hardener import Hardener, HardeningRound, Progress
from ..images import ImagePool, concatenate
from ..inversion import InversionSettings, invert, make_task
from ..pairs import Pair, PairScheduler
from ..samples import Samples
from ..seeding import derive_seed, generator
from ..subject import Subject
from ..trigger import Trigger, stamp
from ..warmup import WarmUp, warm_up
from .moth_settings import MothSettings


class Moth(Hardener):
    """Model orthogonalization: train on freshly inverted pair triggers under their true labels."""

    name: ClassVar[str] = "moth"
    settings_type: ClassVar[type] = MothSettings
    settings: MothSettings

    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """Round 0 is the warm-up; the accuracy guard ends what keeps costing too much."""
        settings, rounds = self.settings, []
        course = _Hardening(work, samples, settings, seed)
        for number in range(settings.rounds + 1):
            rounds.append(course.round(number))
            progress(f"round {number}/{settings.rounds}")
            if course.back_offs > settings.back_offs:
                return rounds, f"accuracy guard: {course.back_offs} rounds cost more than {settings.accuracy_limit:.1%}"
        return rounds, "all rounds done"


class _Hardening:
    """The state of one hardening: weights, stored triggers, scheduler, guard."""

    def __init__(self, subject: Subject, samples: Samples, settings: MothSettings, seed: int) -> None:
        self.subject, self.settings, self.seed = subject, settings, seed
        self.train = samples.train.to(subject.device)
        self.stream = generator(seed, "moth")
        pools = [pool.to(subject.device) for pool in (samples.clean, samples.held)]
        self.guard = AccuracyGuard(subject, pools, settings.accuracy_limit)
        self.learning_rate, self.back_offs = settings.learning_rate, 0
        self.optimiser = self._fresh_optimiser()
        self.present = [c for c in range(subject.classes) if len(self.train.positions(c))]
        self.warm = self._warm_up()
        self.scheduler = PairScheduler(self.warm.speed, settings.random_share, settings.ramp_rounds)
        # Starts are kept per directed pair: (victim, target) is never swapped, and tensors are copied, not shared.
        self.starts: dict[Pair, tuple[Tensor, Tensor]] = {}

    def round(self, number: int) -> HardeningRound:
        """Invert, train, check; the weights of a round that costs too much are taken back. Round 0 is the warm-up."""
        if number == 0:
            visits: list[tuple[int | None, int, float | None]] = []
            loss = self._train_on_universal()
        else:
            pairs = self.scheduler.pick(self.settings.pairs_per_round, number, self.stream)
            found = self._invert(pairs)
            visits = [(v, t, stamp.size if stamp else None) for (v, t), stamp in found.items()]
            loss = self._train([stamp for stamp in found.values() if stamp], self.settings.sgd_steps)
        kept = self.guard.passes() or self._recovered()
        self._adapt(kept)
        return HardeningRound(
            number=number,
            pairs=tuple(visits),
            loss=loss,
            learning_rate=self.learning_rate,
            accuracy=self.guard.last[0],
            taken_back=not kept,
        )

    def _recovered(self) -> bool:
        """Clean steps after a round that cost too much: what fresh triggers cost at first mostly comes back."""
        self._fit(self._clean_batch, self.settings.recovery_steps)
        return self.guard.passes()

    def _adapt(self, kept: bool) -> None:
        """Grow the rate back after a kept round; after a lost one take the weights back and halve it."""
        if kept:
            self.back_offs = 0
            self.learning_rate = min(self.settings.learning_rate, self.learning_rate * self.settings.rate_growth)
            for group in self.optimiser.param_groups:
                group["lr"] = self.learning_rate
            return
        self.guard.go_back()
        self.learning_rate /= 2
        self.back_offs += 1
        self.optimiser = self._fresh_optimiser()

    def _fresh_optimiser(self) -> torch.optim.Optimizer:
        settings, parameters = self.settings, list(self.subject.module.parameters())
        if settings.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=self.learning_rate, betas=(settings.momentum, 0.99))
        momentum = settings.momentum
        return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=momentum, nesterov=momentum > 0)

    def _warm_up(self) -> WarmUp:
        settings = self.settings
        images = self._draw(self.present, settings.warmup_per_class)
        inversion = self._inversion(settings.warmup_steps, settings.warmup_bound)
        return warm_up(self.subject, images, inversion, derive_seed(self.seed, "warm-up"))

    def _inversion(self, steps: int, bound: float) -> InversionSettings:
        return InversionSettings(steps=steps, success_bound=bound, stall_steps=max(steps, 1))

    def _draw(self, classes: list[int], count: int) -> ImagePool:
        """``count`` different images of each class from its pool (all, where it has fewer), in class order."""
        chosen = []
        for label in classes:
            own = self.train.positions(label)
            order = torch.randperm(len(own), generator=self.stream)[:count].to(own.device)
            chosen.append(own[order])
        return self.train.take(torch.cat(chosen))

    def _invert(self, pairs: list[Pair]) -> dict[Pair, Trigger | None]:
        """Both directions of every pair at once: first visits from the universal trigger, later ones from their own.

        A direction without a trigger that works is None: it is neither stamped nor counted as a size.
        """
        directed = [pair for a, b in pairs for pair in ((a, b), (b, a)) if pair[0] in self.present]
        images = self._draw(sorted({victim for victim, _ in directed}), self.settings.images_per_direction)
        found: dict[Pair, Trigger | None] = {}
        for later in (False, True):
            group = [pair for pair in directed if (pair in self.starts) == later and pair not in found]
            if group:
                found.update(self._invert_group(group, images, later))
        self.scheduler.observe({pair: stamp.size for pair, stamp in found.items() if stamp})
        return found

    def _invert_group(self, group: list[Pair], images: ImagePool, later: bool) -> dict[Pair, Trigger | None]:
        settings = self.settings
        start = [
            self.starts[pair] if later else (self.warm.mask[pair[1]], self.warm.pattern[pair[1]]) for pair in group
        ]
        masks, patterns = (torch.stack(part) for part in zip(*start, strict=True))
        inversion = self._inversion(settings.later_steps if later else settings.first_steps, settings.success_bound)
        cost = torch.full((len(group),), settings.later_cost if later else settings.first_cost)
        task = make_task(images.y.cpu(), group)
        result = invert(self.subject, images.x, task, inversion, (masks, patterns), initial_cost=cost)
        found: dict[Pair, Trigger | None] = {}
        for row, (victim, target) in enumerate(group):
            found[victim, target] = None
            if result.converged[row]:
                self.starts[victim, target] = (result.mask[row].clone(), result.pattern[row].clone())
                found[victim, target] = Trigger(victim, target, result.mask[row], result.pattern[row])
        return found

    def _train_on_universal(self) -> float | None:
        """One training step per target whose universal trigger works, on images of every other class."""
        losses = []
        for target in range(self.subject.classes):
            if self.warm.converged[target]:
                trigger = Trigger(None, target, self.warm.mask[target], self.warm.pattern[target])
                losses.append(self._train([trigger], 1))
        known = [loss for loss in losses if loss is not None]
        return sum(known) / len(known) if known else None

    def _train(self, stamps: list[Trigger], steps: int) -> float | None:
        """Training steps on batches half clean, half stamped under the true labels; mean loss, None without stamps."""
        largest = self.settings.largest_share * self.subject.size**2
        stamps = [stamp for stamp in stamps if stamp.size < largest]
        if not stamps:
            return None
        return self._fit(lambda: self._stamped_batch(stamps), steps)

    def _fit(self, draw: Callable[[], ImagePool], steps: int) -> float:
        """``steps`` steps of the optimiser on the batches that ``draw`` gives; the mean loss."""
        total = 0.0
        with self.subject.trainable(train_batch_norm=self.settings.train_batch_norm) as module:
            for _ in range(steps):
                batch = draw()
                loss = F.cross_entropy(module(batch.x), batch.y)
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), self.settings.clip_norm)
                self.optimiser.step()
                total += float(loss.detach())
            self.optimiser.zero_grad(set_to_none=True)
        return total / max(steps, 1)

    def _clean_batch(self) -> ImagePool:
        return self._random(torch.arange(len(self.train)), self.settings.batch)

    def _stamped_batch(self, stamps: list[Trigger]) -> ImagePool:
        """Half random clean images, half images of the triggers' victims with the triggers on."""
        half = self.settings.batch // 2
        parts = [self._random(torch.arange(len(self.train)), half)]
        labels = self.train.y.cpu()
        for trigger in stamps:
            own = labels == trigger.victim if trigger.victim is not None else labels != trigger.target
            pool = self._random(torch.nonzero(own).flatten(), max(1, half // len(stamps)))
            parts.append(ImagePool(stamp(pool.x, trigger.mask, trigger.pattern), pool.y))
        return concatenate(parts)

    def _random(self, index: Tensor, count: int) -> ImagePool:
        """``count`` images out of these, without repeats as long as there are enough."""
        rounds = [index[torch.randperm(len(index), generator=self.stream)] for _ in range(-(-count // len(index)))]
        return self.train.take(torch.cat(rounds)[:count].to(self.train.x.device))
