"""Filter inversion: the colour map nearest to doing nothing that turns a class's images into another, many at once.

The schedule is that of the mask inversion (triggers/inversion.py): Adam on cross-entropy + cost * distance, the cost
raised after ``patience`` successes in a row and lowered after as many failures; best = smallest distance that works.
Only the step size falls as it goes on. Images do not interact, the loss is a sum over rows and Adam works element by
element, so a row's map depends neither on the other rows nor on how many share a batch, up to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .colour_maps import distance, unclipped, variable_gradient
from .engine import Engine
from .search import moved_cost, success_rate
from .task import InversionSettings, InversionTask

# The step size falls in a straight line to this share: with few variables for all pixels, a map at full steps circles
# the best one at a distance that shows in its size.
_LAST_RATE = 0.1


@dataclass(frozen=True)
class FilterResult:
    """The best map of every row, or the last one where none reached the bound.

    variables (P, VARIABLES) as colour_maps reads them; size (P,): mean change of a colour value over the row's images;
    success (P,) on them; converged (P,) bool; finite (P,) bool: no loss was nan or infinite.
    """

    task: InversionTask
    variables: Tensor
    size: Tensor
    success: Tensor
    converged: Tensor
    finite: Tensor


@dataclass
class _Rows:
    """The state of the A rows being worked on, one entry per row in every tensor."""

    variables: Tensor  # (A, VARIABLES), as the next two, Adam's moments
    mean: Tensor
    square: Tensor
    cost: Tensor
    wins: Tensor  # in a row, as losses
    losses: Tensor
    best_variables: Tensor
    best_size: Tensor  # infinite until a map works
    best_success: Tensor
    finite: Tensor

    @staticmethod
    def start(variables: Tensor, cost: float) -> _Rows:
        row = torch.zeros(len(variables), device=variables.device)
        return _Rows(
            variables=variables, mean=torch.zeros_like(variables), square=torch.zeros_like(variables), cost=row + cost,
            wins=row, losses=row, best_variables=variables, best_size=row + math.inf, best_success=row,
            finite=torch.ones_like(row, dtype=torch.bool),
        )  # fmt: skip


def invert_filters(
    engine: Engine, x: Tensor, task: InversionTask, settings: InversionSettings, start: Tensor
) -> FilterResult:
    """Search a map for every row of the task; x (N, 3, H, W) in [0, 1], start (P, VARIABLES).

    Of the settings those of the optimiser and of the cost are used; nothing stops early.
    """
    x, start = x.to(engine.device), start.to(engine.device)
    at_once = max(1, engine.batch // max(task.index.shape[1], 1))
    done: list[_Rows] = []
    with engine.running():
        for rows in torch.arange(len(task)).split(at_once):
            state = _Rows.start(start[rows.to(engine.device)], settings.initial_cost)
            search = _Search(engine, x, task.part(rows.tolist()), settings)
            for step in range(1, settings.steps + 1):
                search.step(state, step)
            done.append(state)
    whole = {field.name: torch.cat([getattr(state, field.name) for state in done]) for field in fields(_Rows)}
    converged = torch.isfinite(whole["best_size"])
    size = torch.where(converged, whole["best_size"], 1.0)
    return FilterResult(task, whole["best_variables"], size, whole["best_success"], converged, whole["finite"])


class _Search:
    """The step, for one set of rows."""

    def __init__(self, engine: Engine, x: Tensor, task: InversionTask, settings: InversionSettings) -> None:
        self.engine, self.settings = engine, settings
        self.images = x[task.index.to(x.device)]  # (A, n, 3, H, W)
        self.weight = task.weight.to(x.device)
        self.target = task.targets.to(x.device).repeat_interleave(self.images.shape[1])

    def step(self, rows: _Rows, number: int) -> None:
        """Map, ask the network, remember the best, move variables and cost; ``number`` counts from 1."""
        variables = rows.variables.detach().requires_grad_()
        raw = unclipped(self.images, variables)
        mapped = raw.detach().clamp(0, 1)
        found = self.engine.gradient(mapped.flatten(0, 1), self.target, self.weight.flatten())
        change = (rows.cost[:, None] * self.weight / self.images[0, 0].numel())[:, :, None, None, None]
        slope = found.images.unflatten(0, self.weight.shape) + change * (mapped - self.images).sign()
        success = success_rate(found.hit.view(self.weight.shape), self.weight)
        works = success >= self.settings.success_bound - 1e-6
        rows.finite = rows.finite & torch.isfinite(found.loss.view(self.weight.shape)).all(1)
        self._remember(rows, works, success, (distance(mapped, self.images) * self.weight).sum(1))
        self._adam(rows, variable_gradient(variables, raw, slope), number)
        rows.cost, rows.wins, rows.losses = moved_cost(rows.cost, rows.wins, rows.losses, works, self.settings)

    def _remember(self, rows: _Rows, works: Tensor, success: Tensor, size: Tensor) -> None:
        better = works & (size < rows.best_size)
        keep = better | (~works & torch.isinf(rows.best_size))  # the last one, until one works
        rows.best_variables = torch.where(keep[:, None], rows.variables, rows.best_variables)
        rows.best_success = torch.where(keep, success, rows.best_success)
        rows.best_size = torch.where(better, size, rows.best_size)

    def _adam(self, rows: _Rows, gradient: Tensor, number: int) -> None:
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        rows.mean = rows.mean.lerp(gradient, 1 - beta1)
        rows.square = rows.square.lerp(gradient.square(), 1 - beta2)
        scale = (rows.square / (1 - beta2**number)).sqrt() + 1e-8
        rate = self.settings.learning_rate * (1 - (1 - _LAST_RATE) * number / self.settings.steps)
        rows.variables = rows.variables - rate * rows.mean / (1 - beta1**number) / scale
