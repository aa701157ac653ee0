"""The arms of a K-Arm search: one record per (victim, target), and the step that some of them make together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...core.errors import MothError
from ...triggers.engine import Engine
from ...triggers.search import VANISHED, trigger_gradient
from ...triggers.trigger import Trigger, squash, squash_slope, unsquash
from .settings import KArmSettings

# Published sizes are in pixels of images of this area.
AREA_224 = 224.0**2


@dataclass
class Variable:
    """What Adam changes: unbounded values and the running means of their gradient and its square."""

    raw: Tensor
    mean: Tensor = field(init=False)
    square: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.mean, self.square = torch.zeros_like(self.raw), torch.zeros_like(self.raw)


@dataclass
class Arm:
    """One arm's trigger, schedule and history. Sizes are in pixels of 224 x 224; index (n,) into the images.

    successes: steps whose trigger worked and was the smallest so far; steepest: the largest slope of the loss at the
    mask, of all steps; first_loss: the loss it began with; out: pruned, or done.
    """

    victim: int | None
    target: int
    index: Tensor
    mask: Variable  # raw (1, H, W)
    pattern: Variable  # raw (C, H, W), or (C, 1, 1) for one colour
    cost: float = 0.0
    waiting: int = 0
    wins: int = 0
    losses: int = 0
    raised: bool = False
    lowered: bool = False
    steps: int = 0
    successes: int = 0
    stale: int = 0
    improved: bool = False
    size: float = math.inf
    best_size: float = math.inf
    best_success: float = 0.0
    best: Trigger | None = None
    steepest: float = 0.0
    first_loss: float = math.nan
    out: bool = False

    @property
    def found(self) -> bool:
        """Whether any trigger has worked."""
        return self.best is not None

    @property
    def led(self) -> bool:
        """Whether there was a gradient to follow, or no step yet."""
        return not self.steps or self.steepest * self.mask.raw.numel() > VANISHED * self.first_loss


class Stepper:
    """The step, for arms over one pool of images x (N, 3, H, W) in [0, 1] on the engine's device."""

    def __init__(self, engine: Engine, x: Tensor, settings: KArmSettings) -> None:
        """Nothing is computed yet."""
        self.engine, self.x, self.settings = engine, x.to(engine.device), settings
        self.scale = AREA_224 / (x.shape[-1] * x.shape[-2])

    def arm(self, victim: int | None, target: int, index: Tensor, stream: torch.Generator) -> Arm:
        """A new arm: a universal one starts anywhere, a pair's mask with a block in the centre."""
        settings, (height, width) = self.settings, self.x.shape[-2:]
        mask = torch.rand(1, height, width, generator=stream)
        whole = victim is None or not settings.one_colour
        pattern = torch.rand(self.x.shape[1], *((height, width) if whole else (1, 1)), generator=stream)
        side = round(settings.centre_side * math.sqrt(height * width / AREA_224))
        if victim is not None and side:
            mask *= 0.001
            top, left = (height - side) // 2, (width - side) // 2
            mask[:, top : top + side, left : left + side] = 0.99
        mask, pattern = (unsquash(part).to(self.engine.device) for part in (mask, pattern))
        return Arm(victim, target, index, Variable(mask), Variable(pattern))

    def step(self, arms: Sequence[Arm]) -> None:
        """One pass over every arm's images and one update of its trigger; the one look at the device is here."""
        device, width = self.engine.device, max(len(arm.index) for arm in arms)
        index = torch.stack([torch.nn.functional.pad(arm.index, (0, width - len(arm.index))) for arm in arms])
        count = torch.tensor([len(arm.index) for arm in arms])
        weight = (torch.arange(width)[None] < count[:, None]).float() / count[:, None]
        images, weight = self.x[index.to(device)], weight.to(device)  # (A, n, 3, H, W), (A, n)
        mask = squash(torch.stack([arm.mask.raw for arm in arms]))
        pattern = squash(torch.stack([arm.pattern.raw for arm in arms]))
        target = torch.tensor([arm.target for arm in arms], device=device).repeat_interleave(width)
        stamped = torch.lerp(images, pattern[:, None], mask[:, None])
        found = self.engine.gradient(stamped.flatten(0, 1), target, weight.flatten())
        success = (found.hit.view(weight.shape) * weight).sum(1).clamp(max=1.0)
        size = mask.sum(dim=(1, 2, 3)) * self.scale
        slopes = trigger_gradient(found, images, mask, pattern)
        loss = (found.loss.view(weight.shape) * weight).sum(1)
        told = torch.stack([success, size, slopes[0].abs().amax(dim=(1, 2, 3)), loss]).tolist()
        self._update(arms, mask, pattern, *slopes)
        for at, arm in enumerate(arms):
            arm.steepest = max(arm.steepest, told[2][at])
            arm.first_loss = arm.first_loss if arm.steps else told[3][at]
            self._note(arm, told[0][at], told[1][at], mask[at], pattern[at])

    def _update(self, arms: Sequence[Arm], mask: Tensor, pattern: Tensor, at_mask: Tensor, at_pattern: Tensor) -> None:
        if pattern.shape[-1] == 1:
            at_pattern = at_pattern.sum(dim=(2, 3), keepdim=True)
        for at, arm in enumerate(arms):
            slope = at_mask[at] + arm.cost * self.scale
            self._adam(arm.mask, slope * squash_slope(mask[at]), arm.steps + 1)
            self._adam(arm.pattern, at_pattern[at] * squash_slope(pattern[at]), arm.steps + 1)

    def _adam(self, variable: Variable, gradient: Tensor, step: int) -> None:
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        variable.mean.lerp_(gradient, 1 - beta1)
        variable.square.lerp_(gradient.square(), 1 - beta2)
        root = (variable.square / (1 - beta2**step)).sqrt_().add_(1e-8)
        variable.raw = variable.raw - self.settings.learning_rate / (1 - beta1**step) * variable.mean / root

    def _note(self, arm: Arm, success: float, size: float, mask: Tensor, pattern: Tensor) -> None:
        """Take in one step: the trigger that was tried is the one that is kept, not the one after the update."""
        if not math.isfinite(size):
            raise MothError(f"inversion of {arm.victim}->{arm.target} gave a mask that is not finite")
        arm.steps, arm.size, arm.best_success = arm.steps + 1, size, max(arm.best_success, success)
        works = success >= self.settings.success_bound - 1e-6
        arm.improved = works and size < arm.best_size
        arm.stale = 0 if arm.improved else arm.stale + arm.found
        if arm.improved:
            arm.successes, arm.best_size = arm.successes + 1, size
            whole = pattern.expand(-1, *mask.shape[-2:])
            arm.best = Trigger(arm.victim, arm.target, mask.cpu().clone(), whole.cpu().clone())
        self._move_cost(arm, works)

    def _move_cost(self, arm: Arm, works: bool) -> None:
        settings = self.settings
        if arm.cost == 0 and works:
            arm.waiting += 1
            if arm.waiting >= settings.cost_successes:
                arm.cost, arm.wins, arm.losses, arm.raised, arm.lowered = settings.first_cost, 0, 0, False, False
        else:
            arm.waiting = 0
        arm.wins, arm.losses = (arm.wins + 1, 0) if works else (0, arm.losses + 1)
        if arm.wins >= settings.patience:
            arm.cost, arm.wins, arm.raised = arm.cost * settings.cost_factor, 0, True
        elif arm.losses >= settings.patience:
            arm.cost, arm.losses, arm.lowered = arm.cost / settings.cost_factor, 0, True
