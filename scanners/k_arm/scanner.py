"""K-Arm (Shen et al., ICML 2021): a bandit searches the triggers of the likeliest class pairs, smallest first.

Pre-screening on clean images, one arm per pair left, a scheduler that favours what shrinks, pruning, and a symmetric
check: an injected trigger is small one way only. It runs on the batched engine, and differs from its public code where
that is faulty: no pair left is not judged; arms that were given up are never played again; a step is one update over
all of an arm's images, and success is measured on them with the trigger that is kept; every switch can be switched.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from ...core.errors import MothError
from ...core.images import ImagePool
from ...core.seeding import generator
from ...core.subject import Subject
from ...rounds.samples import Samples
from ...triggers.engine import Engine
from ...triggers.inversion import VANISHING
from ...triggers.trigger import AnyPair
from ..base import Scanner
from ..result import Candidate, ScanResult
from .arms import AREA_224, Arm, Stepper
from .bandit import Bandit
from .evidence import held_out, left_out, reverse_arms
from .screening import screen
from .settings import KArmSettings


class KArm(Scanner):
    """Bandit search over screened class pairs, with a symmetric check; the evidence lists the smallest candidates."""

    name: ClassVar[str] = "k-arm"
    settings_type: ClassVar[type] = KArmSettings
    settings: KArmSettings

    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> ScanResult:
        """Search on the first images of each class of samples.train; test on samples.held."""
        images = samples.train.first_per_class(self.settings.images_per_class)
        present = sorted(set(images.y.tolist()))
        if len(present) < 2:
            return self.not_judged(f"example images of {len(present)} classes; at least 2 are needed")
        pairs = [
            (victim, target)
            for victim, target in screen(subject.logits(images.x).softmax(1).cpu(), self.settings)
            if (victim in present if victim is not None else any(label != target for label in present))
        ]
        if not pairs:
            return self.not_judged("no pair passes the screen, so that none was searched")
        engine = Engine(subject, batch=self.settings.batch_images)
        with engine.running():
            found = self._search(engine, images, pairs, seed)
            evidence, backs = self._evidence(engine, subject, images, samples.held, found, seed)
        return self._decide(found, evidence, backs)

    def _search(self, engine: Engine, images: ImagePool, pairs: list[AnyPair], seed: int) -> list[Arm]:
        """All arms after the search, smallest trigger first, those without one last."""
        stepper = Stepper(engine, images.x, self.settings)
        arms = []
        for victim, target in pairs:
            own = torch.nonzero(images.victims(victim, target)).flatten().cpu()
            arms.append(stepper.arm(victim, target, own, generator(seed, self.name, victim, target)))
        width = max(len(arm.index) for arm in arms)
        # More than a share of the arms at once would give all of them the same number of steps, and choose nothing.
        most = math.ceil(self.settings.largest_turn * len(arms))
        at_once = self.settings.arms_at_once or max(1, min(engine.batch // width, most))
        Bandit(arms, self.settings, generator(seed, self.name, "bandit")).run(stepper.step, at_once)
        for arm in arms:
            if not arm.led:
                raise MothError(f"inversion of {arm.victim}->{arm.target} {VANISHING}")
        return sorted(arms, key=lambda arm: (arm.best_size, -arm.best_success))

    def _evidence(
        self, engine: Engine, subject: Subject, images: ImagePool, held: ImagePool, found: list[Arm], seed: int
    ) -> tuple[list[Candidate], list[float | None]]:
        """The smallest arms as evidence, with what is known of them beside their size; and their ways back."""
        settings, chosen = self.settings, found[: self.settings.candidates]
        works = [arm for arm in chosen if arm.found]
        backs: list[Arm | None] = [None] * len(chosen)
        if settings.symmetric_check:
            backs[: len(works)] = reverse_arms(engine, images, works, settings, seed)
        left: list[float | None] = [None] * len(chosen)
        few = works[: settings.left_out_candidates]
        left[: len(few)] = left_out(engine, subject, images, few, settings, seed)
        area = AREA_224 / subject.area
        evidence = []
        for arm, back, left_success in zip(chosen, backs, left, strict=True):
            held_success, jittered, count = held_out(subject, held, arm, settings.jitter, seed)
            if arm.best is not None:
                self.show(arm.best)
            evidence.append(
                Candidate(
                    victim=arm.victim,
                    target=arm.target,
                    size=arm.best_size / area if arm.found else None,
                    success=arm.best_success,
                    held_success=held_success,
                    held_images=count,
                    converged=arm.found,
                    left_out_success=left_success,
                    jitter_success=jittered,
                    reverse_size=back.best_size / area if back is not None and back.found else None,
                )
            )
        return evidence, [None if back is None else back.best_size for back in backs]

    def _decide(self, found: list[Arm], evidence: list[Candidate], backs: list[float | None]) -> ScanResult:
        """By the smallest arm alone, as published; sizes in the words are those of this model's images."""
        best, settings = found[0], self.settings
        bound = settings.universal_bound if best.victim is None else settings.pair_bound
        if not best.found:
            return self.not_judged(f"none of {len(found)} arms has a trigger, so that none can be called too small")
        size, pair = evidence[0].size, f"{'any' if best.victim is None else best.victim}->{best.target}"
        scale = best.best_size / size if size else 1.0
        words = f"{pair} turns with {size:.1f} pixels (bound {bound / scale:.1f})"
        score = math.log(bound / max(best.best_size, 1e-3))
        if best.victim is None or not settings.symmetric_check:
            return self.judged(score, words, evidence)
        if backs[0] is None:
            return self.judged(score, f"{words}; the way back has no images to be searched on", evidence)
        # A way back that was not found is at least the whole image.
        ratio = min(backs[0], AREA_224) / max(best.best_size, 1e-3)
        at_least = "" if math.isfinite(backs[0]) else "at least "
        words += f", back {at_least}{ratio:.1f} times as many (bound {settings.ratio_bound:g})"
        return self.judged(min(score, math.log(max(ratio, 1e-3) / settings.ratio_bound)), words, evidence)
