"""The published MOTH loop: one training step per batch, warm-up over the classes, then one pair per three steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import Field, record
from trojai_moth.core.seeding import generator
from trojai_moth.core.subject import Subject

from .inversion import Found, Images, Search, one_direction, search


@record
class Published:
    """The published code's numbers (main.py and inversion.py of its PyTorch part); shorter ones are for tests."""

    sgd_steps: int = Field(default=60, gt=0, description="training steps in all, warm-up included (there: 2 epochs)")
    cap_seconds: float = Field(default=1e9, gt=0, description="stop after the first step past this time")
    batch: int = Field(default=128, gt=1, description="images per training step")
    learning_rate: float = Field(default=1e-4, gt=0, description="rate of SGD (the Keras code: 1e-3)")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Nesterov momentum")
    universal_steps: int = Field(default=500, gt=0, description="inversion steps in the warm-up, per target")
    universal_bound: float = Field(default=0.99, gt=0, le=1, description="success rate of universal triggers")
    first_steps: int = Field(default=200, gt=0, description="inversion steps at the first step of a period")
    later_steps: int = Field(default=50, gt=0, description="inversion steps at its other steps")
    first_cost: float = Field(default=1e-3, ge=0, description="weight of the mask's size at the first step")
    later_cost: float = Field(default=1e-2, ge=0, description="weight of the mask's size at the others (Keras: 0.2)")
    period: int = Field(default=3, gt=0, description="training steps per pair")
    warm_ratio: float = Field(default=0.5, gt=0, le=1, description="share of a batch stamped in the warm-up")
    portion: float = Field(default=0.1, gt=0, le=1, description="share of a class's images in a batch stamped later")
    largest_share: float = Field(default=0.25, gt=0, description="triggers over this share of the image are not used")
    random_share: float = Field(default=0.3, ge=0, le=1, description="chance of a random pair")
    warmup_batches: int = Field(default=5, gt=0, description="batches from which the warm-up's images are taken")
    warmup_per_class: int = Field(default=10, gt=0, description="images per class in the warm-up at most")
    search: Search = Field(default=Search(), description="the inversion's other numbers")


@dataclass(frozen=True)
class Checkpoint:
    """The subject after some training steps; seconds are those of hardening alone, without what a watcher did."""

    step: int
    seconds: float
    subject: Subject


Watch = Callable[[Checkpoint], bool]


def harden(
    subject: Subject, train: ImagePool, settings: Published, seed: int, watch: Watch = lambda _: False
) -> Checkpoint:
    """Harden a copy. ``watch`` sees the copy at the end of the warm-up and of every period; true ends the run."""
    run = _Run(subject.clone(), train, settings, seed)
    spent, last = 0.0, Checkpoint(0, 0.0, run.subject)
    with run.subject.trainable():  # evaluation mode, with weight gradients
        for step in range(settings.sgd_steps):
            begun = time.perf_counter()
            run.step(step)
            run.synchronise()
            spent += time.perf_counter() - begun
            last = Checkpoint(step + 1, spent, run.subject)
            after = step + 1 - subject.classes
            ended = after >= 0 and after % settings.period == 0
            if (ended and watch(last)) or spent > settings.cap_seconds:
                break
    run.optimiser.zero_grad(set_to_none=True)
    return last


class _Run:
    """Weights, matrices and stored triggers; speed, size, gain are the published mat_univ, mat_size, mat_diff."""

    def __init__(self, subject: Subject, train: ImagePool, settings: Published, seed: int) -> None:
        self.subject, self.settings = subject, settings
        self.train, self.labels = train.to(subject.device), train.y.cpu()
        self.stream = generator(seed, "reference")
        parameters = subject.module.parameters()
        self.optimiser = torch.optim.SGD(
            parameters, lr=settings.learning_rate, momentum=settings.momentum, nesterov=True
        )
        count = subject.classes
        self.speed, self.size, self.gain = (np.zeros((count, count)) for _ in range(3))
        self.starts: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.universal: list[tuple[Tensor, Tensor]] = []
        self.order: list[Tensor] = []
        self.extra = self._warmup_images()
        self.pair, self.sizes, self.failed = (0, 1), [], [0, 0]

    def step(self, number: int) -> None:
        """One batch: invert, stamp, train."""
        index = self._next_batch()
        if number < self.subject.classes:
            x = self._universal(number, index)
        else:
            if number == self.subject.classes:
                self._end_warm_up()
            x, index = self._pairwise(number - self.subject.classes, index)
        loss = F.cross_entropy(self.subject.module(x), self.train.y[index.to(x.device)])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def synchronise(self) -> None:
        """Wait for the device, so that a clock tells the truth."""
        float(next(self.subject.module.parameters()).detach().flatten()[0])

    def _next_batch(self) -> Tensor:
        if not self.order:
            shuffled = torch.randperm(len(self.labels), generator=self.stream)
            self.order = list(shuffled.split(self.settings.batch))
        return self.order.pop(0)

    def _warmup_images(self) -> Tensor:
        shuffled = torch.randperm(len(self.labels), generator=self.stream)
        first = shuffled[: self.settings.warmup_batches * self.settings.batch]
        own = [first[self.labels[first] == label] for label in range(self.subject.classes)]
        each = min(self.settings.warmup_per_class, *(len(part) for part in own))
        if each == 0:
            raise ValueError("a class is missing from the warm-up's batches; give more images per class")
        return torch.cat([part[:each] for part in own])

    def _search(self, images: Images, start: tuple[Tensor, Tensor], steps: int, cost: float, bound: float) -> Found:
        own = {"steps": steps, "initial_cost": cost, "success_bound": bound}
        settings = Search(**{**vars(self.settings.search), **own})
        return search(self.subject.module, images, settings, start, self.stream)

    def _universal(self, target: int, index: Tensor) -> Tensor:
        """Invert a universal trigger, note what it says of the pairs into the target, stamp half of the others."""
        settings, side = self.settings, self.subject.size
        chosen = self.extra[self.labels[self.extra] != target]
        start = tuple(torch.rand(1, depth, side, side, generator=self.stream) for depth in (1, 3))
        images = one_direction(self.train.x[chosen.to(self.train.x.device)], target)
        cost, bound = settings.first_cost, settings.universal_bound
        found = self._search(images, start, settings.universal_steps, cost, bound)
        size = float(found.mask.sum())
        for victim in range(self.subject.classes):
            if victim != target:
                self.speed[victim, target] = float(found.change[self.labels[chosen] == victim].mean())
                self.size[victim, target] = self.gain[victim, target] = size
        self.universal.append((found.mask[0], found.pattern[0]))
        others = torch.nonzero(self.labels[index] != target).flatten()
        stamped = others[torch.randperm(len(others), generator=self.stream)][: int(len(others) * settings.warm_ratio)]
        return self._stamp(index, stamped, found, 0)

    def _end_warm_up(self) -> None:
        """The universal triggers are the starts of both directions of every pair."""
        if self.gain.max() > 0:
            self.gain /= self.gain.max()
        for low in range(self.subject.classes):
            for high in range(low + 1, self.subject.classes):
                parts = zip(self.universal[high], self.universal[low], strict=True)
                mask, pattern = (torch.stack(part) for part in parts)
                self.starts[low, high] = (mask, pattern)

    def _pairwise(self, number: int, index: Tensor) -> tuple[Tensor, Tensor]:
        settings, first = self.settings, number % self.settings.period == 0
        if first:
            self.pair, self.sizes, self.failed = self._pick(number), [], [0, 0]
        index = self._topped_up(index)
        own = [torch.nonzero(self.labels[index] == label).flatten() for label in self.pair]
        again = first or any(self.failed)
        if again:
            self.failed = [0, 0]
        direction = torch.arange(2).repeat_interleave(torch.tensor([len(part) for part in own]))
        x = self.train.x[index[torch.cat(own)].to(self.train.x.device)]
        steps, cost = (
            (settings.first_steps, settings.first_cost) if again else (settings.later_steps, settings.later_cost)
        )
        start = self.starts[min(self.pair), max(self.pair)]
        images = Images(x, direction, torch.tensor([self.pair[1], self.pair[0]]))
        found = self._search(images, start, steps, cost, settings.search.success_bound)
        batch = self._stamp_pair(index, own, found)
        self._store(start, found)
        if number % settings.period == settings.period - 1:
            self._end_period()
        return batch, index

    def _pick(self, number: int) -> tuple[int, int]:
        count = self.subject.classes
        if float(torch.rand((), generator=self.stream)) < self.settings.random_share:
            source, target = torch.randperm(count, generator=self.stream)[:2].tolist()
            return source, target
        alpha = min(0.1 * number / 100, 1.0)
        priority = (1 - alpha) * (self.speed + self.speed.T) + alpha * (self.gain + self.gain.T)
        np.fill_diagonal(priority, -np.inf)
        source, target = divmod(int(np.argmax(priority)), count)
        return source, target

    def _topped_up(self, index: Tensor) -> Tensor:
        """The batch, with images of other classes replaced until a tenth of each class of the pair is one image."""
        need = int(np.ceil(1 / self.settings.portion))
        index = index.clone()
        for label in self.pair:
            pool = torch.nonzero(self.labels == label).flatten()
            pool = pool[~torch.isin(pool, index)]
            missing = max(0, min(need - int((self.labels[index] == label).sum()), len(pool)))
            others = (self.labels[index] != self.pair[0]) & (self.labels[index] != self.pair[1])
            free = torch.nonzero(others).flatten()[:missing]
            index[free] = pool[torch.randperm(len(pool), generator=self.stream)][: len(free)]
        return index

    def _stamp(self, index: Tensor, places: Tensor, found: Found, d: int, x: Tensor | None = None) -> Tensor:
        x = self.train.x[index.to(self.train.x.device)].clone() if x is None else x
        if len(places) and float(found.mask[d].sum()) < self.settings.largest_share * self.subject.size**2:
            places = places.to(x.device)
            mask = found.mask[d]
            x[places] = ((1 - mask) * x[places] + mask * found.pattern[d]).clamp(0, 1)
        return x

    def _stamp_pair(self, index: Tensor, own: list[Tensor], found: Found) -> Tensor:
        length = int(min(len(part) for part in own) * self.settings.portion)
        x = None
        for d, part in enumerate(own):
            places = part[torch.randperm(len(part), generator=self.stream)][:length]
            x = self._stamp(index, places, found, d, x)
        assert x is not None
        return x

    def _store(self, start: tuple[Tensor, Tensor], found: Found) -> None:
        """Successes overwrite the stored start, which the sizes of this step are read from; failures are counted."""
        for d in range(2):
            if float(found.mask[d].sum()) > 0:
                start[0][d], start[1][d] = found.mask[d], found.pattern[d]
            else:
                self.failed[d] += 1
        self.sizes.append(start[0].sum(dim=(1, 2, 3)).tolist())

    def _end_period(self) -> None:
        ways = (self.pair, self.pair[::-1])
        means = np.mean(self.sizes, axis=0)
        if any(self.size[way] == 0 for way in ways):
            for way, mean in zip(ways, means, strict=True):
                self.size[way] = mean
            self.gain = self.size  # one matrix from here on
            return
        for way, mean in zip(ways, means, strict=True):
            self.gain[way] = (self.gain[way] + (mean - self.size[way]) / self.size[way]) / 2
            self.size[way] = mean
