"""The published trigger inversion: minibatches of 32, re-starts with noise at every new best, a moving success rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trojai_moth.core.records import Field, record

# tanh(z) / (2 - STRETCH) + 1/2, as in the published code
STRETCH = 1e-7


@record
class Search:
    """The published code's numbers (inversion.py of its PyTorch part)."""

    steps: int = Field(default=1000, gt=0, description="passes over the images")
    batch: int = Field(default=32, gt=0, description="images per minibatch")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate a trigger must reach")
    learning_rate: float = Field(default=0.1, gt=0, description="Adam's step size")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="Adam's decay of the mean")
    beta2: float = Field(default=0.9, ge=0, lt=1, description="Adam's decay of the square")
    initial_cost: float = Field(default=1e-3, ge=0, description="weight of the mask's size at the start")
    patience: int = Field(default=10, gt=0, description="successes or failures in a row before the weight moves")
    cost_up: float = Field(default=1.5, gt=1, description="factor of the weight after successes")
    cost_down: float = Field(default=1.5**1.5, gt=1, description="divisor of the weight after failures")
    noise: float = Field(default=0.01, ge=0, description="half width of the noise of a re-start")
    restart: bool = Field(default=True, description="go on from the best trigger, with noise, at every new best")
    weight_gradients: bool = Field(default=True, description="compute the unused gradients of the weights, as there")


@dataclass(frozen=True)
class Images:
    """Images x (n, 3, H, W), direction (n,) of each among D, targets (D,): the class to reach in each direction."""

    x: Tensor
    direction: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Found:
    """Best triggers, one per direction; zeros and an infinite size where none worked.

    mask (D, 1, H, W), pattern (D, 3, H, W), size (D,) in pixels, converged (D,), change (n,): share of each image's
    loss that the best trigger took, in the published code's way; last_mask (D, 1, H, W): that of the last forward pass.
    """

    mask: Tensor
    pattern: Tensor
    size: Tensor
    converged: Tensor
    change: Tensor
    last_mask: Tensor


def one_direction(x: Tensor, target: int) -> Images:
    """Images that all go to one class."""
    return Images(x, torch.zeros(len(x), dtype=torch.int64), torch.tensor([target]))


def search(
    module: nn.Module, images: Images, settings: Search, start: tuple[Tensor, Tensor], stream: torch.Generator
) -> Found:
    """Invert one universal or pair trigger (one direction) or the two triggers of a pair (two directions).

    start: masks (D, 1, H, W) and patterns (D, 3, H, W) in [0, 1]; stream is of the CPU. The module must be in
    evaluation mode.
    """
    state = _Search(module, images, settings, start, stream)
    for step in range(settings.steps):
        state.one_pass(first=step == 0)
    return state.found()


def start_gradient(module: nn.Module, images: Images, settings: Search, start: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Gradients of the first loss over all images in mask's and pattern's variables (to compare other code with)."""
    state = _Search(module, images, settings, start, torch.Generator())
    total, _ = state.loss(torch.arange(len(images.x)))
    return list(torch.autograd.grad(total, state.variables))


def squash(raw: Tensor) -> Tensor:
    """Variables -> [0, 1]."""
    return torch.tanh(raw) / (2 - STRETCH) + 0.5


def unsquash(value: Tensor) -> Tensor:
    """[0, 1] -> variables, clipped to exactly 0 and 1 as in the published code."""
    return torch.atanh((value.clamp(0.0, 1.0) - 0.5) * (2 - STRETCH))


class _Search:
    def __init__(
        self, module: nn.Module, images: Images, settings: Search, start: tuple[Tensor, Tensor], stream: torch.Generator
    ) -> None:
        self.module, self.settings, self.stream = module, settings, stream
        device = next(module.parameters()).device
        self.x, self.direction = images.x.to(device), images.direction.to(device)
        self.targets = images.targets.to(device)
        self.variables = [unsquash(part.to(device)).requires_grad_() for part in start]
        betas = (settings.beta1, settings.beta2)
        self.optimiser = torch.optim.Adam(self.variables, lr=settings.learning_rate, betas=betas)
        directions = len(images.targets)
        self.cost = [settings.initial_cost] * directions
        self.wins, self.losses = [0] * directions, [0] * directions
        self.best_size = [math.inf] * directions
        self.best = [torch.zeros_like(part) for part in self.variables]
        self.first_loss, self.best_loss = (torch.zeros(len(self.x)) for _ in range(2))
        self.mask, self.pattern = (squash(part).detach() for part in self.variables)

    def loss(self, chosen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss over some images with the present triggers; per image ce and hit, per direction the mask's size."""
        mask, pattern = (squash(part) for part in self.variables)
        self.mask, self.pattern = mask.detach(), pattern.detach()
        direction = self.direction[chosen]
        m, x = mask[direction], self.x[chosen]
        logits = self.module((1 - m) * x + m * pattern[direction])
        wanted = self.targets[direction]
        ce = F.cross_entropy(logits, wanted, reduction="none")
        size = mask.sum(dim=(1, 2, 3))
        cost = torch.tensor(self.cost, device=size.device)
        total = (ce.mean() if len(self.cost) == 1 else ce.sum()) + (cost * size).sum()
        return total, {"ce": ce.detach(), "hit": logits.argmax(1) == wanted, "size": size.detach()}

    def one_pass(self, first: bool) -> None:
        """All minibatches of a shuffled pass, an update after each; then what the pass has shown."""
        count, settings = len(self.x), self.settings
        order = torch.randperm(count, generator=self.stream)
        batch = min(settings.batch, count)
        # A pair drops what does not fill a minibatch; a universal trigger has a last, smaller one.
        batches = count // batch if len(self.cost) > 1 else -(-count // batch)
        success, sizes, losses = [], [], []
        for number in range(batches):
            chosen = order[number * batch : (number + 1) * batch]
            total, seen = self.loss(chosen)
            self.optimiser.zero_grad()
            self._backward(total)
            self.optimiser.step()
            direction = self.direction[chosen]
            # One read per figure and minibatch, as there; a direction without images gives 0/0.
            success.append([float(seen["hit"][direction == d].float().mean()) for d in range(len(self.cost))])
            sizes.append(seen["size"].tolist())
            losses.append(seen["ce"].cpu())
        if first:
            self.first_loss[order[: batches * batch]] = torch.cat(losses)
        means = [[sum(column) / batches for column in zip(*rows, strict=True)] for rows in (success, sizes)]
        self._settle(means[0], means[1], order, losses)

    def _backward(self, total: Tensor) -> None:
        if self.settings.weight_gradients:
            total.backward()
            return
        for part, gradient in zip(self.variables, torch.autograd.grad(total, self.variables), strict=True):
            part.grad = gradient

    def _settle(self, success: list[float], size: list[float], order: Tensor, losses: list[Tensor]) -> None:
        for d, rate in enumerate(success):
            works = rate >= self.settings.success_bound  # false for a direction without images in some minibatch
            if works and size[d] < self.best_size[d]:
                self.best_size[d] = size[d]
                self.best[0][d], self.best[1][d] = self.mask[d], self.pattern[d]
                if len(losses) == 1:
                    self.best_loss[order[: len(losses[0])]] = losses[0]
                if self.settings.restart:
                    self._restart(d)
            self._move_cost(d, works)

    def _restart(self, d: int) -> None:
        """The triggers of the last forward pass become the variables, with noise on the direction that is new best."""
        with torch.no_grad():
            for variable, value in zip(self.variables, (self.mask, self.pattern), strict=True):
                again = value.clone()
                noise = 2 * torch.rand(again[d].shape, generator=self.stream) - 1
                again[d] += self.settings.noise * noise.to(again.device)
                variable.copy_(unsquash(again))

    def _move_cost(self, d: int, works: bool) -> None:
        self.wins[d] = self.wins[d] + 1 if works else 0
        self.losses[d] = 0 if works else self.losses[d] + 1
        if self.wins[d] >= self.settings.patience:
            self.wins[d] = 0
            self.cost[d] *= self.settings.cost_up
        elif self.losses[d] >= self.settings.patience:
            self.losses[d] = 0
            self.cost[d] /= self.settings.cost_down

    def found(self) -> Found:
        """What is best now. The size is the stored mask's own, not the mean over minibatches that chose it."""
        converged = torch.tensor([math.isfinite(size) for size in self.best_size])
        size = torch.where(converged, self.best[0].detach().sum(dim=(1, 2, 3)).cpu(), math.inf)
        change = torch.where(self.first_loss > 0, 1 - self.best_loss / self.first_loss.clamp_min(1e-30), 0.0)
        return Found(self.best[0].detach(), self.best[1].detach(), size, converged, change, self.mask)
