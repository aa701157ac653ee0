"""K-Arm's scheduler: which arms make the next step, which are given up, and when the search is over.

With one arm at a time this is the published order: an arm keeps its turn until it has found a smaller trigger or is
out; arms that have not found enough go first; then the arm with the best of speed and smallness, or a random one. With
several, each place is filled by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .arms import Arm
from .settings import KArmSettings


class Bandit:
    """Plays arms until the steps are used up, the smallest is done, or none is left."""

    def __init__(self, arms: Sequence[Arm], settings: KArmSettings, stream: torch.Generator) -> None:
        """``stream`` draws the random arms and nothing else."""
        self.arms, self.settings, self.stream = list(arms), settings, stream

    def run(self, step: Callable[[Sequence[Arm]], None], at_once: int) -> None:
        """Call ``step`` with the arms whose turn it is, as long as there are some."""
        playing: list[Arm] = []
        used = 0
        while used < self.settings.steps:
            playing = self._fill(playing, min(at_once, self.settings.steps - used))
            if not playing:
                return
            step(playing)
            used += len(playing)
            for arm in playing:
                arm.out = self._hopeless(arm) or (self._warm and self._done(arm))
            if self._over(playing):
                return
            playing = [arm for arm in playing if not arm.out and (self._cold(arm) or not arm.improved)]

    @property
    def live(self) -> list[Arm]:
        """Arms that are neither pruned nor done."""
        return [arm for arm in self.arms if not arm.out]

    @property
    def _warm(self) -> bool:
        return not any(self._cold(arm) for arm in self.live)

    def _cold(self, arm: Arm) -> bool:
        return arm.successes < self.settings.warm_successes

    def _fill(self, playing: list[Arm], count: int) -> list[Arm]:
        chosen = playing[:count]
        while len(chosen) < count:
            waiting = [arm for arm in self.live if all(arm is not other for other in chosen)]
            if not waiting:
                break
            chosen.append(self._next(waiting))
        return chosen

    def _next(self, waiting: list[Arm]) -> Arm:
        cold = [arm for arm in waiting if self._cold(arm)]
        if cold:
            return cold[0]
        if float(torch.rand((), generator=self.stream)) < self.settings.random_share:
            return waiting[int(torch.randint(len(waiting), (), generator=self.stream))]
        return max(waiting, key=self._promise)

    def _promise(self, arm: Arm) -> float:
        """Speed of shrinking so far, plus smallness now."""
        speed = (self.settings.speed_from - arm.best_size) / (arm.successes + arm.steps / 2)
        return speed + self.settings.size_weight / max(arm.size, 1e-6)

    def _hopeless(self, arm: Arm) -> bool:
        settings, best = self.settings, arm.best_success
        if not settings.prune or arm.victim is None:
            return False
        return (
            (arm.steps > settings.prune_hopeless and best == 0)
            or (arm.steps > settings.prune_early and best < settings.prune_early_success)
            or (arm.steps > settings.prune_late and best < settings.prune_late_success)
        )

    def _done(self, arm: Arm) -> bool:
        enough = arm.successes > self.settings.enough_successes
        settled = arm.raised and arm.lowered and arm.stale > self.settings.universal_patience
        return enough or (arm.victim is None and settled)

    def _over(self, playing: Sequence[Arm]) -> bool:
        """Whether an arm that is done is the smallest of all."""
        smallest = min(self.arms, key=lambda arm: arm.best_size)
        return smallest.found and smallest.out and any(arm is smallest for arm in playing) and self._done(smallest)
