"""Trigger inversion: many triggers at once, each a row of one problem, from a queue of any length.

In evaluation mode images do not interact, the loss is a sum over rows and Adam works element by element, so a row's
trigger does not depend on the other rows, their order or the size of the batch, up to rounding (which, over a hundred
steps, moves a size by a few percent at most; tests/triggers/test_inversion.py holds it to that). The schedule follows
Neural Cleanse and MOTH's public code (cost raised after ``patience`` successes in a row, lowered after as many
failures; best = smallest mask that works), without its moving-trigger success rates, minibatch-dependent updates and
re-starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core.errors import MothError
from ..core.seeding import generator
from ..core.subject import Subject
from .engine import Engine
from .search import VANISHED, Rows, Search, success_rate
from .task import InversionSettings, InversionTask
from .trigger import Trigger, stamp

VANISHING = "has no gradient to follow: the network hides it, or its outputs do not depend on the image"
# Steps between two looks from the host at which rows are finished.
_HOST_EVERY = 25


@dataclass(frozen=True)
class InversionResult:
    """The best trigger of every row, or the last one where none reached the bound.

    mask (P, 1, H, W), pattern (P, C, H, W), size (P,) in pixels, success (P,) on the row's images, converged (P,) bool,
    first_loss and best_loss (P, n): cross-entropy per image at the start and at the best trigger; steps (P,) run;
    steepest (P,): the largest slope of the loss at the mask, of all steps.
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
    steepest: Tensor

    @property
    def looked_at(self) -> Tensor:
        """(P,) bool: rows whose search had finite losses and a gradient to follow; the others say nothing of a pair."""
        first = (self.first_loss * self.task.weight.to(self.first_loss.device)).sum(1)
        led = self.steepest * self.mask[0].numel() > VANISHED * first
        return torch.isfinite(self.best_loss).all(1) & torch.isfinite(self.steepest) & led

    def require_looked_at(self) -> InversionResult:
        """Itself; MothError with the first row that was not looked at, and why."""
        missed = ~self.looked_at
        if bool(missed.any()):
            row = int(torch.nonzero(missed)[0])
            victim = self.task.victims[row]
            pair = f"{'any' if victim is None else victim}->{int(self.task.targets[row])}"
            finite = bool(torch.isfinite(self.best_loss[row]).all() & torch.isfinite(self.steepest[row]))
            raise MothError(f"inversion of {pair} {VANISHING if finite else 'gave a loss that is not finite'}")
        return self

    def trigger(self, row: int) -> Trigger:
        """The trigger of one row, on the CPU."""
        return self.row_trigger(row).to(torch.device("cpu"))

    def row_trigger(self, row: int) -> Trigger:
        """The trigger of one row, on the device."""
        return Trigger(self.task.victims[row], int(self.task.targets[row]), self.mask[row], self.pattern[row])


def random_start(task: InversionTask, shape: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Masks (P, 1, H, W) and patterns (P, C, H, W), uniform in [0, 1], for images of ``shape`` (C, H, W).

    A row's start depends on its pair only.
    """
    masks, patterns = [], []
    for victim, target in zip(task.victims, task.targets.tolist(), strict=True):
        stream = generator(seed, "inversion", victim, target)
        masks.append(torch.rand(1, *shape[1:], generator=stream))
        patterns.append(torch.rand(shape, generator=stream))
    return torch.stack(masks), torch.stack(patterns)


def invert(
    subject: Subject,
    x: Tensor,
    task: InversionTask,
    settings: InversionSettings,
    start: tuple[Tensor, Tensor],
    *,
    initial_cost: Tensor | None = None,
    engine: Engine | None = None,
    learn_pattern: bool = True,
) -> InversionResult:
    """Search the smallest trigger of every row; x (N, C, H, W) in [0, 1], start as random_start gives it.

    initial_cost (P,) overrides the settings' per row (MOTH's dynamic adjustment). engine: one made for this subject and
    refreshed since its weights last changed, where many inversions follow each other. Without learn_pattern the start's
    patterns stay and only masks are searched. The subject is left as it was.
    """
    x = x.to(subject.device)
    engine = (engine or Engine(subject, settings.precision, settings.batch_images)).faithful(x)
    cost = initial_cost if initial_cost is not None else torch.full((len(task),), settings.initial_cost)
    result = _work_off(engine, x, task, settings, start, cost, learn_pattern)
    if engine.exact or not settings.recheck_steps:
        return result
    return _checked(engine, x, result, replace(settings, steps=settings.recheck_steps), cost, learn_pattern)


def _work_off(
    engine: Engine, x: Tensor, task: InversionTask, settings: InversionSettings, start: tuple[Tensor, Tensor],
    cost: Tensor, learn_pattern: bool,
) -> InversionResult:  # fmt: skip
    """As many rows at a time as fill a batch; those that are finished make room for the next in the queue."""
    result = _blank(task, start, engine.device)
    search = Search(engine, x, settings, learn_pattern)
    at_once = max(1, engine.batch // max(task.index.shape[1], 1))
    rows, first = Rows.start([], task, start, cost, engine.device), 0
    with engine.running():
        while first < len(task) or len(rows):
            fresh = list(range(first, min(first + at_once - len(rows), len(task))))
            if fresh:
                rows = rows.joined(Rows.start(fresh, task, start, cost, engine.device))
                first = fresh[-1] + 1
            search.run(rows, min(_HOST_EVERY, settings.steps - int(rows.age.max())))
            finished = rows.stopped.cpu() | (rows.age >= settings.steps)  # the one look at the device
            if finished.any():
                _put(result, rows.picked(torch.nonzero(finished).flatten()))
                rows = rows.picked(torch.nonzero(~finished).flatten())
    return result


def _blank(task: InversionTask, start: tuple[Tensor, Tensor], device: torch.device) -> InversionResult:
    count, width = task.index.shape
    return InversionResult(
        task=task,
        mask=torch.empty_like(start[0], device=device),
        pattern=torch.empty_like(start[1], device=device),
        size=torch.zeros(count, device=device),
        success=torch.zeros(count, device=device),
        converged=torch.zeros(count, dtype=torch.bool, device=device),
        first_loss=torch.zeros(count, width, device=device),
        best_loss=torch.zeros(count, width, device=device),
        steps=torch.zeros(count, dtype=torch.int64, device=device),
        steepest=torch.zeros(count, device=device),
    )


def _put(result: InversionResult, rows: Rows) -> None:
    at, converged = rows.row, torch.isfinite(rows.best_size)
    result.mask[at], result.pattern[at] = rows.best_mask, rows.best_pattern
    result.size[at] = torch.where(converged, rows.best_size, rows.best_mask.sum(dim=(1, 2, 3)))
    result.success[at], result.converged[at] = rows.best_success, converged
    result.first_loss[at], result.best_loss[at] = rows.first_loss, rows.best_loss
    result.steps[at], result.steepest[at] = rows.steps, rows.steepest


def _checked(
    engine: Engine, x: Tensor, result: InversionResult, settings: InversionSettings, cost: Tensor, learn_pattern: bool
) -> InversionResult:
    """What was found in bf16, measured in fp32; what fails there is given a few more steps, in fp32."""
    success = trigger_success(engine.subject, x, result)
    result.success.copy_(success)
    failed = torch.nonzero(result.converged & (success < settings.success_bound - 1e-6)).flatten()
    if len(failed) == 0:
        return result
    rows, start = failed.tolist(), (result.mask[failed], result.pattern[failed])
    again = _work_off(engine.in_fp32(), x, result.task.part(rows), settings, start, cost[rows], learn_pattern)
    for name in ("mask", "pattern", "size", "success", "converged", "best_loss"):
        getattr(result, name)[failed] = getattr(again, name)
    result.steps[failed] += again.steps
    return result


def trigger_success(subject: Subject, x: Tensor, result: InversionResult) -> Tensor:
    """(P,): the success rate of every row's trigger on the row's images, in fp32."""
    task, width, x = result.task, result.task.index.shape[1], x.to(subject.device)
    found = []
    for rows in torch.arange(len(task)).split(max(1, 256 // max(width, 1))):
        mask, pattern = result.mask[rows][:, None], result.pattern[rows][:, None]
        stamped = stamp(x[task.index[rows]], mask, pattern)
        predicted = subject.logits(stamped.flatten(0, 1)).argmax(1).view(-1, width)
        target, weight = (part[rows].to(subject.device) for part in (task.targets, task.weight))
        found.append(success_rate(predicted == target[:, None], weight))
    return torch.cat(found)
