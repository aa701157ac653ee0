"""Forward and input gradient of a frozen network at the speed of the machine: where all the time of inversion goes.

The network is run on a copy in evaluation mode with batch norm folded away, in the memory layout, precision, batch and
number of threads that a probe found best (triggers/execution_plan.py). Gradients are taken for images only; weights
never have any.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.device import (
    compiled,
    default_batch,
    describe_device,
    has_bf16,
    in_smaller_batches,
    is_out_of_memory,
    release_memory,
    wait_for,
)
from ..core.subject import Subject
from .batch_norm_folding import fold
from .execution_plan import Plan, PlanBook, default_book, fastest
from .precision import PrecisionChoice

# The probe tries the usual batch and one this many times as large.
_LARGER = 3
# Images that bf16 is compared with fp32 on, and how far its logits may be off, as a share of their spread.
_COMPARED, _FAITHFUL = 16, 0.1
# Part of a plan's name: raised when the probe learns something new, so that plans from before are found anew.
_PROBE = 2


@dataclass(frozen=True)
class Gradient:
    """loss (N,): cross-entropy towards the target; hit (N,) bool: it is the largest logit; images (N, 3, H, W)."""

    loss: Tensor
    hit: Tensor
    images: Tensor


class Engine:
    """A subject's network, made ready for inversion."""

    plan: Plan
    _layout: bool | None
    _compiled: nn.Module | None

    def __init__(
        self, subject: Subject, precision: PrecisionChoice = "fp32", batch: int = 0, book: PlanBook | None = None
    ) -> None:
        """Copy, fold and probe; batch 0: found by itself. Call ``refresh`` when the subject's weights have changed."""
        self.subject, self.device, self._book = subject, subject.device, book or default_book()
        self._folded = fold(subject.module)
        self._layout = self._compiled = None
        self._choose(precision)
        self.batch = in_smaller_batches(batch or self.plan.batch)

    def refresh(self) -> None:
        """Take over the weights that the subject has now."""
        self._folded.refresh(self.subject.module)

    @property
    def exact(self) -> bool:
        """Whether it computes in fp32."""
        return self.plan.precision == "fp32"

    def in_fp32(self) -> Engine:
        """The same network, computing in fp32."""
        exact = copy.copy(self)
        # The folded network is shared, and each lays it out in its own way.
        exact._layout = self._layout = exact._compiled = None
        exact._choose("fp32")
        exact.batch = min(self.batch, exact.plan.batch)
        return exact

    def faithful(self, x: Tensor) -> Engine:
        """Itself where its logits on some of the images x (N, 3, H, W) are those of fp32, or nearly; else in fp32.

        bf16 has 8 bits: a large constant on all logits, or large values that cancel inside, leave it none to tell
        classes apart, and what is not found in it is never seen again.
        """
        if self.exact or not len(x):
            return self
        few = x[torch.linspace(0, len(x) - 1, min(_COMPARED, len(x)), device=x.device).long()].to(self.device)
        with torch.no_grad(), self.plan.autocast(self.device):
            rough = self._module(replace(self.plan, compiled=False))(self.plan.laid_out(few)).double()
        # A constant on all logits of an image says nothing of its classes.
        rough, exact = (one - one.mean(1, keepdim=True) for one in (rough, self.subject.logits(few).double()))
        off = (rough - exact).square().mean().sqrt()
        return self if bool(off <= _FAITHFUL * exact.square().mean().sqrt()) else self.in_fp32()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The plan's number of threads inside."""
        with threads(self.plan.threads, self.device):
            yield

    def gradient(self, images: Tensor, target: Tensor, weight: Tensor) -> Gradient:
        """Of sum(weight * cross-entropy) with respect to images (N, 3, H, W); target (N,) int64, weight (N,).

        A batch that does not fit into memory is halved, and so are all that follow, in this process and later ones.
        """
        while True:
            try:
                parts = [
                    self._gradient(self.plan, *part)
                    for part in zip(*(whole.split(self.batch) for whole in (images, target, weight)), strict=True)
                ]
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.batch == 1:
                    raise
                release_memory(self.device)
                self.batch = max(1, min(self.batch, len(images)) // 2)
                self.plan = replace(self.plan, batch=self.batch)
                self._book.put(self._key, self.plan)
                continue
            if len(parts) == 1:
                return parts[0]
            return Gradient(*(torch.cat([getattr(part, name) for part in parts]) for name in ("loss", "hit", "images")))

    def _gradient(self, plan: Plan, images: Tensor, target: Tensor, weight: Tensor) -> Gradient:
        module = self._module(plan)
        x = plan.laid_out(images.detach()).requires_grad_()
        if plan.compiled:
            torch.compiler.cudagraph_mark_step_begin()
        with plan.autocast(self.device):
            logits = module(x)
        loss = F.cross_entropy(logits.float(), target, reduction="none")
        (gradient,) = torch.autograd.grad(loss, (x,), grad_outputs=weight)
        if plan.compiled:
            gradient = gradient.clone()  # a CUDA graph's own memory, which its next pass overwrites
        return Gradient(loss.detach(), logits.detach().argmax(1) == target, gradient)

    def _module(self, plan: Plan) -> nn.Module:
        if self._layout != plan.channels_last:
            plan.lay_out(self._folded.module)
            self._layout = plan.channels_last
        if not plan.compiled:
            return self._folded.module
        if self._compiled is None:
            self._compiled = compiled(self._folded.module, self.device)
        return self._compiled

    def _choose(self, precision: PrecisionChoice) -> None:
        self._key = f"invert, {machine_key(self.subject)}, {precision}"
        self.plan = self._book.get(self._key, lambda: self._probe(precision))

    def _probe(self, precision: PrecisionChoice) -> Plan:
        batch = default_batch(self.device, self.subject.area)
        batches = (batch, _LARGER * batch)
        images = torch.full((batches[1], *self.subject.shape), 0.5, device=self.device)
        target = torch.zeros(batches[1], dtype=torch.int64, device=self.device)
        weight = torch.ones(batches[1], device=self.device)

        def run(plan: Plan) -> None:
            with threads(plan.threads, self.device):
                self._gradient(plan, *(part[: plan.batch] for part in (images, target, weight)))
                wait_for(self.device)

        return find_plan(self.device, precision, batches, run)


def find_plan(
    device: torch.device, precision: PrecisionChoice, batches: Sequence[int], run: Callable[[Plan], None]
) -> Plan:
    """The fastest way to run: layout and precision first, then the number of threads, then the batch."""
    plain = Plan(batch=batches[0], threads=torch.get_num_threads())
    ways = [plain, replace(plain, channels_last=True)]
    if precision != "fp32" and has_bf16(device):
        ways.append(replace(plain, channels_last=True, precision="bf16"))
    try:
        best = fastest(ways, run)
        best = fastest([best, replace(best, threads=1)] if best.threads > 1 else [best], run)
        best = fastest([replace(best, batch=batch) for batch in batches], run)
        return _compiled_if_faster(best, run) if precision == "compiled" else best
    except RuntimeError as error:  # far too many images for a probe: the batch is found when it counts
        if not is_out_of_memory(error):
            raise
        release_memory(device)
        return plain


def _compiled_if_faster(plan: Plan, run: Callable[[Plan], None]) -> Plan:
    try:
        return fastest([plan, replace(plan, compiled=True)], run)
    except Exception as error:  # no compiler, or a network that it cannot take: then as it is
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        return plan


def machine_key(subject: Subject) -> str:
    """What a plan depends on: the network, the size of its input, the device and torch."""
    machine = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    device = describe_device(subject.device)
    network = f"{subject.architecture}, {subject.size_words}"
    return f"{network}, {device}, {machine}, torch {torch.__version__}, probe {_PROBE}"


def training_plan(subject: Subject, precision: PrecisionChoice, batch: int) -> Plan:
    """The fastest way to train the subject's network on batches of this size; its weights stay as they are."""

    def probe() -> Plan:
        probed = subject.clone()
        images = torch.full((batch, *subject.shape), 0.5, device=subject.device)
        target = torch.zeros(batch, dtype=torch.int64, device=subject.device)

        def run(plan: Plan) -> None:
            plan.lay_out(probed.module)
            with threads(plan.threads, subject.device), probed.trainable() as module:
                with plan.autocast(subject.device):
                    logits = module(plan.laid_out(images))
                F.cross_entropy(logits.float(), target).backward()  # type: ignore[no-untyped-call]
                module.zero_grad(set_to_none=True)
                wait_for(subject.device)

        return find_plan(subject.device, "fp32" if precision == "fp32" else "auto", [batch], run)

    return default_book().get(f"train {batch}, {machine_key(subject)}, {precision}", probe)


@contextmanager
def threads(count: int, device: torch.device) -> Iterator[None]:
    """So many CPU threads inside, but not more than outside; as before afterwards."""
    before = torch.get_num_threads()
    count = min(count, before)
    if device.type == "cpu" and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
