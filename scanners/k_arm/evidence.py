"""What is measured of a K-Arm candidate beside its size: the way back, and whether it works on images it has not seen.

Many small triggers of clean models fit the few images that they were searched on and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.images import ImagePool
from ...core.seeding import generator
from ...core.subject import Subject
from ...triggers.engine import Engine
from ...triggers.success import held_success, jitter_success
from .arms import Arm, Stepper
from .settings import KArmSettings


def reverse_arms(
    engine: Engine, images: ImagePool, arms: Sequence[Arm], settings: KArmSettings, seed: int
) -> list[Arm | None]:
    """For every pair an arm from target to victim after exactly as many steps; None where it has no images."""
    stepper = Stepper(engine, images.x, settings)
    backs: list[Arm | None] = []
    for arm in arms:
        own = images.positions(arm.target).cpu()
        pair = (arm.target, arm.victim)
        fresh = arm.victim is not None and len(own) > 0
        stream = generator(seed, "k-arm back", *pair)
        backs.append(stepper.arm(arm.target, int(arm.victim or 0), own, stream) if fresh else None)
    budgets = [(back, arm.steps) for back, arm in zip(backs, arms, strict=True) if back is not None]
    _play(stepper, budgets, engine.batch, settings)
    return backs


def left_out(
    engine: Engine, subject: Subject, images: ImagePool, arms: Sequence[Arm], settings: KArmSettings, seed: int
) -> list[float | None]:
    """Share of an arm's images that turn by triggers searched without them, from the start, a part of them at a time.

    None for an arm with fewer than two images. A search that finds nothing turns none of them.
    """
    stepper = Stepper(engine, images.x, settings)
    folds: list[tuple[int, Arm, Tensor]] = []
    for number, arm in enumerate(arms):
        parts = min(settings.folds, len(arm.index))
        for part in range(parts if parts > 1 else 0):
            out = torch.arange(len(arm.index)) % parts == part
            stream = generator(seed, "k-arm left out", arm.victim, arm.target, part)
            folds.append((number, stepper.arm(arm.victim, arm.target, arm.index[~out], stream), arm.index[out]))
    _play(stepper, [(arm, settings.left_out_steps) for _, arm, _ in folds], engine.batch, settings)
    turned = [0.0] * len(arms)
    for number, arm, index in folds:
        if arm.best is not None:
            success = held_success(subject, images.take(index.to(images.x.device)), arm.best)
            turned[number] += len(index) * (success or 0.0)
    searched = {number for number, _, _ in folds}
    return [turned[n] / len(arm.index) if n in searched else None for n, arm in enumerate(arms)]


def held_out(
    subject: Subject, held: ImagePool, arm: Arm, jitter: float, seed: int
) -> tuple[float | None, float | None, int]:
    """Success on held-back images, on the same moved a little after stamping, and their number; None if unknown."""
    count = int(held.victims(arm.victim, arm.target).sum())
    if arm.best is None or not count:
        return None, None, count
    stream = generator(seed, "k-arm jitter", arm.victim, arm.target)
    success, jittered = held_success(subject, held, arm.best), jitter_success(subject, held, arm.best, jitter, stream)
    return success, jittered, count


def _play(stepper: Stepper, budgets: Sequence[tuple[Arm, int]], batch: int, settings: KArmSettings) -> None:
    """So many steps of each arm, as many arms at a time as fill a batch, unless it is pruned or done before."""
    if not budgets:
        return
    at_once = max(1, batch // max(len(arm.index) for arm, _ in budgets))
    while True:
        waiting = [arm for arm, budget in budgets if not arm.out and arm.steps < budget]
        if not waiting:
            return
        stepper.step(waiting[:at_once])
        for arm in waiting[:at_once]:
            late = arm.steps > settings.prune_late and arm.best_success < settings.prune_back_success
            arm.out = (settings.prune and late) or arm.successes > settings.enough_successes
