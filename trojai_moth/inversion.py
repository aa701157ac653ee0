"""The one optimisation loop: many triggers at once, each a row of one problem.

In evaluation mode images do not interact, the loss is a sum over rows and Adam works element by element, so a row's
trigger does not depend on the other rows, up to rounding. The schedule follows Neural Cleanse and MOTH's public code
(cost raised after ``patience`` successes in a row, lowered after as many failures; best = smallest mask that works),
without its moving-trigger success rates, minibatch-dependent updates and re-starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .records import Field, record
from .seeding import generator
from .subject import Subject
from .trigger import Trigger, squash, stamp, unsquash


@record
class InversionSettings:
    """How triggers are searched; defaults after MOTH section IV and its public code where nothing else is said."""

    steps: int = Field(
        default=150, gt=0, description="optimiser steps at most (public code: 1000 to measure, 200 to harden)"
    )
    success_bound: float = Field(default=0.9, gt=0, le=1, description="attack success rate that a trigger must reach")
    learning_rate: float = Field(default=0.1, gt=0, description="Adam's step size")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="Adam's decay of the mean")
    beta2: float = Field(default=0.9, ge=0, lt=1, description="Adam's decay of the square")
    initial_cost: float = Field(default=1e-3, ge=0, description="weight of the mask's size (in pixels) at the start")
    patience: int = Field(
        default=5, gt=0, description="successes or failures in a row before the weight moves (code: 10)"
    )
    cost_up: float = Field(default=1.5, gt=1, description="factor of the weight after successes")
    cost_down: float = Field(default=1.8371, gt=1, description="divisor of the weight after failures, 1.5 ** 1.5")
    stall_steps: int = Field(
        default=60, gt=0, description="stop a row that has not shrunk by 1 percent in so many steps"
    )
    batch_images: int = Field(default=256, gt=0, description="images per forward pass at most")


# A row is finished only by a gain below this share within stall_steps.
_STALL_GAIN = 0.99
# Steps between two looks from the host at which rows are finished.
_HOST_EVERY = 25


@dataclass(frozen=True)
class InversionTask:
    """P problems over one pool of images.

    victims (P): class or None for a universal trigger; targets (P,) int64; index (P, n) into the pool; weight (P, n)
    summing to 1 in each row, 0 where a row has fewer than n images.
    """

    victims: tuple[int | None, ...]
    targets: Tensor
    index: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.victims)


@dataclass(frozen=True)
class InversionResult:
    """The best trigger of every row, or the last one where none reached the bound.

    mask (P, 1, H, W), pattern (P, 3, H, W), size (P,) in pixels, success (P,) on the row's images, converged (P,) bool,
    first_loss and best_loss (P, n): cross-entropy per image at the start and at the best trigger; steps (P,) run.
    """

    task: InversionTask
    mask: Tensor
    pattern: Tensor
    size: Tensor
    success: Tensor
    converged: Tensor
    first_loss: Tensor
    best_loss: Tensor
    steps: Tensor

    def trigger(self, row: int) -> Trigger:
        """The trigger of one row, on the CPU."""
        task = self.task
        mask, pattern = self.mask[row].cpu(), self.pattern[row].cpu()
        return Trigger(task.victims[row], int(task.targets[row]), mask, pattern)


def make_task(y: Tensor, pairs: Sequence[tuple[int | None, int]]) -> InversionTask:
    """Rows for (victim, target) pairs over the pool's labels y (N,): all images of the victim, or of all but target."""
    chosen = [torch.nonzero(y == v if v is not None else y != t).flatten() for v, t in pairs]
    width = max((len(index) for index in chosen), default=0)
    index = torch.zeros(len(pairs), width, dtype=torch.int64)
    weight = torch.zeros(len(pairs), width)
    for row, images in enumerate(chosen):
        if len(images) == 0:
            raise ValueError(f"pair {pairs[row]} has no images to invert on")
        index[row, : len(images)] = images
        weight[row, : len(images)] = 1.0 / len(images)
    targets = torch.tensor([target for _, target in pairs], dtype=torch.int64)
    return InversionTask(tuple(victim for victim, _ in pairs), targets, index, weight)


def random_start(task: InversionTask, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Masks (P, 1, H, W) and patterns (P, 3, H, W), uniform in [0, 1]; a row's start depends on its pair only."""
    masks, patterns = [], []
    for victim, target in zip(task.victims, task.targets.tolist(), strict=True):
        stream = generator(seed, "inversion", victim, target)
        masks.append(torch.rand(1, size, size, generator=stream))
        patterns.append(torch.rand(3, size, size, generator=stream))
    return torch.stack(masks), torch.stack(patterns)


def invert(
    subject: Subject,
    x: Tensor,
    task: InversionTask,
    settings: InversionSettings,
    start: tuple[Tensor, Tensor],
    *,
    initial_cost: Tensor | None = None,
) -> InversionResult:
    """Search the smallest trigger of every row; x (N, 3, H, W) in [0, 1], start as random_start gives it.

    initial_cost (P,) overrides the settings' per row (MOTH's dynamic adjustment). The subject is left as it was.
    """
    state = _State(subject, task, settings, start, initial_cost)
    x = x.to(subject.device)
    with subject.frozen():
        for step in range(settings.steps):
            rows = state.rows
            for part in _chunks(rows, task.index.shape[1], settings.batch_images):
                state.update(x, part, step)
            if step % _HOST_EVERY == _HOST_EVERY - 1:
                state.drop_finished()
                if len(state.rows) == 0:
                    break
    return state.result()


def _chunks(rows: Tensor, width: int, batch_images: int) -> Iterator[Tensor]:
    return iter(rows.split(max(1, batch_images // max(width, 1))))


class _State:
    """Everything that changes while triggers are searched, one entry per row, on the subject's device."""

    def __init__(
        self,
        subject: Subject,
        task: InversionTask,
        settings: InversionSettings,
        start: tuple[Tensor, Tensor],
        initial_cost: Tensor | None,
    ) -> None:
        device, count, width = subject.device, len(task), task.index.shape[1]
        self.subject, self.task, self.settings = subject, task, settings
        self.index, self.weight = task.index.to(device), task.weight.to(device)
        self.targets = task.targets.to(device)
        self.mask, self.pattern = (unsquash(part.to(device)) for part in start)
        self.moments = [torch.zeros_like(z) for z in (self.mask, self.mask, self.pattern, self.pattern)]
        cost = initial_cost if initial_cost is not None else torch.full((count,), settings.initial_cost)
        self.cost = cost.to(device).clone()
        self.wins, self.losses = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
        self.best_mask, self.best_pattern = start[0].to(device).clone(), start[1].to(device).clone()
        self.best_size = torch.full((count,), float("inf"), device=device)
        self.best_success = torch.zeros(count, device=device)
        self.first_loss, self.best_loss = (torch.zeros(count, width, device=device) for _ in range(2))
        self.mark_size, self.mark_step = self.best_size.clone(), torch.zeros(count, device=device)
        self.stopped = torch.zeros(count, dtype=torch.bool, device=device)
        self.steps = torch.zeros(count, dtype=torch.int64, device=device)
        self.rows = torch.arange(count, device=device)

    def update(self, x: Tensor, rows: Tensor, step: int) -> None:
        """One forward, backward and Adam step of some rows."""
        live = ~self.stopped[rows]
        z_mask, z_pattern = (z[rows].requires_grad_() for z in (self.mask, self.pattern))
        mask, pattern = squash(z_mask), squash(z_pattern)
        stamped = stamp(x[self.index[rows]], mask[:, None], pattern[:, None])  # (p, n, 3, H, W)
        logits = self.subject.module(stamped.flatten(0, 1)).float()
        width, weight = self.index.shape[1], self.weight[rows]
        target = self.targets[rows].repeat_interleave(width)
        loss = F.cross_entropy(logits, target, reduction="none").view(-1, width)  # (p, n)
        size = mask.sum(dim=(1, 2, 3))
        total = (loss * weight).sum() + (self.cost[rows] * size).sum()
        gradients = torch.autograd.grad(total, (z_mask, z_pattern))
        with torch.no_grad():
            success = ((logits.argmax(1) == target).view(-1, width) * weight).sum(1)
            self._record(rows, live, step, mask, pattern, size, success, loss)
            self._move_cost(rows, live, success)
            self._adam(rows, live, step, (z_mask, z_pattern), gradients)

    def _record(
        self, rows: Tensor, live: Tensor, step: int, mask: Tensor, pattern: Tensor, size: Tensor, success: Tensor,
        loss: Tensor,
    ) -> None:  # fmt: skip
        """Keep this forward's trigger where it works and is the smallest so far; notice rows that stopped shrinking."""
        if step == 0:
            self.first_loss[rows] = loss
            self.best_loss[rows] = loss
        works = success >= self.settings.success_bound - 1e-6
        better = live & works & (size < self.best_size[rows])
        never = live & ~works & torch.isinf(self.best_size[rows])
        keep = (better | never)[:, None]
        self.best_mask[rows] = torch.where(keep[..., None, None], mask, self.best_mask[rows])
        self.best_pattern[rows] = torch.where(keep[..., None, None], pattern, self.best_pattern[rows])
        self.best_loss[rows] = torch.where(keep, loss, self.best_loss[rows])
        self.best_success[rows] = torch.where(keep[:, 0], success, self.best_success[rows])
        self.best_size[rows] = torch.where(better, size, self.best_size[rows])
        shrunk = self.best_size[rows] < _STALL_GAIN * self.mark_size[rows]
        self.mark_size[rows] = torch.where(shrunk, self.best_size[rows], self.mark_size[rows])
        self.mark_step[rows] = torch.where(shrunk, float(step), self.mark_step[rows])
        stalled = (step - self.mark_step[rows] >= self.settings.stall_steps) & torch.isfinite(self.best_size[rows])
        self.stopped[rows] |= stalled
        self.steps[rows] += live.long()

    def _move_cost(self, rows: Tensor, live: Tensor, success: Tensor) -> None:
        settings = self.settings
        works = success >= settings.success_bound - 1e-6
        wins = torch.where(works, self.wins[rows] + 1, 0)
        losses = torch.where(works, 0, self.losses[rows] + 1)
        raised, lowered = wins >= settings.patience, losses >= settings.patience
        cost = self.cost[rows]
        moved = torch.where(raised, cost * settings.cost_up, torch.where(lowered, cost / settings.cost_down, cost))
        self.cost[rows] = torch.where(live, moved, cost)
        self.wins[rows] = torch.where(raised, 0, wins)
        self.losses[rows] = torch.where(lowered, 0, losses)

    def _adam(
        self, rows: Tensor, live: Tensor, step: int, values: tuple[Tensor, Tensor], gradients: tuple[Tensor, ...]
    ) -> None:
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        scale1, scale2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
        for part, gradient in enumerate(gradients):
            mean_all, square_all = self.moments[2 * part], self.moments[2 * part + 1]
            mean = mean_all[rows].lerp_(gradient, 1 - beta1)
            square = square_all[rows].lerp_(gradient.square(), 1 - beta2)
            mean_all[rows], square_all[rows] = mean, square
            change = self.settings.learning_rate * (mean / scale1) / ((square / scale2).sqrt() + 1e-8)
            store = (self.mask, self.pattern)[part]
            store[rows] = torch.where(live[:, None, None, None], values[part].detach() - change, store[rows])

    def drop_finished(self) -> None:
        """The host's one look: leave out the rows that have stopped."""
        self.rows = self.rows[~self.stopped[self.rows]]

    def result(self) -> InversionResult:
        """What was found so far."""
        converged = torch.isfinite(self.best_size)
        size = torch.where(converged, self.best_size, self.best_mask.sum(dim=(1, 2, 3)))
        return InversionResult(
            self.task, self.best_mask, self.best_pattern, size, self.best_success, converged, self.first_loss,
            self.best_loss, self.steps,
        )  # fmt: skip
