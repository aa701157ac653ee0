"""One step of trigger inversion for a set of rows: stamp, ask the network, remember the best, move cost and trigger.

Everything that decides anything stays on the device and is done with ``where``, so that no step waits for the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .engine import Engine, Gradient
from .task import InversionSettings, InversionTask
from .trigger import squash, squash_slope, unsquash

# A search is led by nothing where its steepest slope, all over the image, takes off less than this share of the loss
# that it began with: then the mask's cost alone moves it. Of ordinary networks it is 30 times the loss and more.
VANISHED = 2e-3
# A row goes on as long as it shrinks below this share of its size within stall_steps.
_STALL_GAIN = 0.99


@dataclass
class Rows:
    """The state of the A rows being worked on, one entry per row in every tensor.

    row: place in the task; age: steps so far, known to the host; raw_*: the variables that are optimised; *_mean and
    *_square: Adam's moments; wins, losses: in a row, towards the next move of the cost; mark_*: for stopping; steepest:
    the largest slope of the loss at the mask, of all steps.
    """

    row: Tensor
    index: Tensor  # (A, n) into the images
    weight: Tensor  # (A, n)
    target: Tensor
    raw_mask: Tensor  # (A, 1, H, W), as everything of the mask
    mask_mean: Tensor
    mask_square: Tensor
    raw_pattern: Tensor  # (A, 3, H, W), as everything of the pattern
    pattern_mean: Tensor
    pattern_square: Tensor
    cost: Tensor
    wins: Tensor
    losses: Tensor
    steps: Tensor
    best_mask: Tensor
    best_pattern: Tensor
    best_size: Tensor
    best_success: Tensor
    first_loss: Tensor  # (A, n)
    best_loss: Tensor  # (A, n)
    mark_size: Tensor
    mark_step: Tensor
    stopped: Tensor
    steepest: Tensor
    age: Tensor  # on the CPU

    def __len__(self) -> int:
        return len(self.row)

    @staticmethod
    def start(
        rows: list[int], task: InversionTask, start: tuple[Tensor, Tensor], cost: Tensor, device: torch.device
    ) -> Rows:
        """Rows of a task that nothing has been done for yet."""
        index, weight = task.index[rows].to(device), task.weight[rows].to(device)
        mask, pattern = start[0][rows].to(device), start[1][rows].to(device)
        raw_mask, raw_pattern = unsquash(mask), unsquash(pattern)
        infinite = torch.full((len(rows),), math.inf, device=device)
        counter = torch.zeros(len(rows), dtype=torch.int64, device=device)
        loss = torch.zeros_like(weight)
        return Rows(
            row=torch.tensor(rows, dtype=torch.int64, device=device), index=index, weight=weight,
            target=task.targets[rows].to(device),
            raw_mask=raw_mask, mask_mean=torch.zeros_like(raw_mask), mask_square=torch.zeros_like(raw_mask),
            raw_pattern=raw_pattern, pattern_mean=torch.zeros_like(raw_pattern),
            pattern_square=torch.zeros_like(raw_pattern), cost=cost[rows].to(device), wins=counter, losses=counter,
            steps=counter, best_mask=mask, best_pattern=pattern, best_size=infinite,
            best_success=torch.zeros_like(infinite), first_loss=loss, best_loss=loss, mark_size=infinite,
            mark_step=counter, stopped=torch.zeros_like(counter, dtype=torch.bool),
            steepest=torch.zeros_like(infinite),
            age=torch.zeros(len(rows), dtype=torch.int64),
        )  # fmt: skip

    def picked(self, places: Tensor) -> Rows:
        """These rows alone."""
        return Rows(**{name: tensor[places.to(tensor.device)] for name, tensor in self._tensors()})

    def joined(self, other: Rows) -> Rows:
        """These rows and others."""
        return Rows(**{name: torch.cat([tensor, getattr(other, name)]) for name, tensor in self._tensors()})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


class Search:
    """The step, for rows over one pool of images x (N, 3, H, W) on the engine's device."""

    def __init__(self, engine: Engine, x: Tensor, settings: InversionSettings, learn_pattern: bool = True) -> None:
        """Nothing is computed yet; without learn_pattern only the mask is searched."""
        self.engine, self.x, self.settings, self.learn_pattern = engine, x, settings, learn_pattern

    def run(self, rows: Rows, count: int) -> None:
        """``count`` steps of these rows, in place."""
        laid_out = self.engine.plan.laid_out  # all in one layout: mixing two costs more than the arithmetic
        images = laid_out(self.x[rows.index.flatten()]).unflatten(0, rows.index.shape)  # (A, n, 3, H, W)
        rows.raw_pattern, rows.pattern_mean = laid_out(rows.raw_pattern), laid_out(rows.pattern_mean)
        rows.pattern_square, rows.best_pattern = laid_out(rows.pattern_square), laid_out(rows.best_pattern)
        target = rows.target.repeat_interleave(rows.index.shape[1])
        for _ in range(count):
            self._step(rows, images, target)
        rows.age += count

    def _step(self, rows: Rows, images: Tensor, target: Tensor) -> None:
        live = ~rows.stopped
        mask, pattern = squash(rows.raw_mask), squash(rows.raw_pattern)
        stamped = torch.lerp(images, pattern[:, None], mask[:, None])
        found = self.engine.gradient(stamped.flatten(0, 1), target, rows.weight.flatten())
        slopes = trigger_gradient(found, images, mask, pattern)
        hit = found.hit.view(rows.weight.shape)
        success = success_rate(hit, rows.weight)
        rows.steepest = torch.maximum(rows.steepest, slopes[0].abs().amax(dim=(1, 2, 3)))
        works = success >= self.settings.success_bound - 1e-6
        self._remember(rows, live, works, mask, pattern, success, found.loss.view(rows.weight.shape))
        rows.steps = rows.steps + live
        self._adam(rows, live, (slopes[0] + rows.cost[:, None, None, None]) * squash_slope(mask), "mask")
        if self.learn_pattern:
            self._adam(rows, live, slopes[1] * squash_slope(pattern), "pattern")
        self._move_cost(rows, live, works)

    def _remember(
        self, rows: Rows, live: Tensor, works: Tensor, mask: Tensor, pattern: Tensor, success: Tensor, loss: Tensor
    ) -> None:
        """Keep this pass's trigger where it works and is the smallest so far; notice rows that stopped shrinking."""
        size = mask.sum(dim=(1, 2, 3))
        first = (rows.steps == 0)[:, None]
        rows.first_loss = torch.where(first, loss, rows.first_loss)
        rows.best_loss = torch.where(first, loss, rows.best_loss)
        better = live & works & (size < rows.best_size)
        keep = better | (live & ~works & torch.isinf(rows.best_size))  # the last one, until one works
        rows.best_mask = torch.where(keep[:, None, None, None], mask, rows.best_mask)
        rows.best_pattern = torch.where(keep[:, None, None, None], pattern, rows.best_pattern)
        rows.best_loss = torch.where(keep[:, None], loss, rows.best_loss)
        rows.best_success = torch.where(keep, success, rows.best_success)
        rows.best_size = torch.where(better, size, rows.best_size)
        shrunk = rows.best_size < _STALL_GAIN * rows.mark_size
        rows.mark_size = torch.where(shrunk, rows.best_size, rows.mark_size)
        rows.mark_step = torch.where(shrunk, rows.steps, rows.mark_step)
        stalled = (rows.steps - rows.mark_step >= self.settings.stall_steps) & torch.isfinite(rows.best_size)
        rows.stopped = rows.stopped | stalled

    def _move_cost(self, rows: Rows, live: Tensor, works: Tensor) -> None:
        cost, rows.wins, rows.losses = moved_cost(rows.cost, rows.wins, rows.losses, works, self.settings)
        rows.cost = torch.where(live, cost, rows.cost)

    def _adam(self, rows: Rows, live: Tensor, gradient: Tensor, part: str) -> None:
        """Adam with every row's own number of steps; ``part`` is mask or pattern."""
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        raw: Tensor = getattr(rows, f"raw_{part}")
        mean: Tensor = getattr(rows, f"{part}_mean")
        square: Tensor = getattr(rows, f"{part}_square")
        mean.lerp_(gradient, 1 - beta1)
        square.lerp_(gradient.square(), 1 - beta2)
        steps = rows.steps[:, None, None, None]
        rate = self.settings.learning_rate / (1 - beta1**steps) * live[:, None, None, None]
        raw.addcdiv_(mean * -rate, (square / (1 - beta2**steps)).sqrt_().add_(1e-8))


def success_rate(hit: Tensor, weight: Tensor) -> Tensor:
    """Share of each row's images that are hit (A,), at most 1, which a sum of ten tenths exceeds; both (A, n)."""
    return (hit * weight).sum(1).clamp(max=1.0)


def moved_cost(
    cost: Tensor, wins: Tensor, losses: Tensor, works: Tensor, settings: InversionSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Cost, wins and losses (A,) after a step; the cost rises after successes in a row and falls after failures."""
    wins, losses = torch.where(works, wins + 1, 0), torch.where(works, 0, losses + 1)
    raised, lowered = wins >= settings.patience, losses >= settings.patience
    cost = torch.where(raised, cost * settings.cost_up, cost)
    cost = torch.where(lowered, cost / settings.cost_down, cost)
    return cost, torch.where(raised, 0, wins), torch.where(lowered, 0, losses)


def trigger_gradient(found: Gradient, images: Tensor, mask: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradient at x' = x + m (q - x), images (A, n, 3, H, W), to those at m (A, 1, H, W) and q (A, 3, H, W).

    Where q is one colour, (A, 3, 1, 1), its gradient is the second's sum over H and W, which is left to the caller.
    """
    at_stamped = found.images.view(images.shape)
    summed = at_stamped.sum(1)
    at_mask = (summed * pattern).sum(1, keepdim=True) - (at_stamped * images).sum(dim=(1, 2))[:, None]
    return at_mask, summed * mask
