"""Neural Cleanse (Wang et al., IEEE S&P 2019): invert triggers and flag what is suspiciously small.

``universal``: one trigger per target over the images of all other classes; flagged when a target's size is an outlier
below the others by the median absolute deviation (their section V-B).

``pairwise``: one trigger per directed class pair, which is what round 4's one-to-one backdoors need. By ``rule`` size,
flagged when the smallest that works is within the size that K-Arm (Shen et al., ICML 2021) allows an injected trigger.
That size takes no notice of how small this model's other triggers are; by rule outlier they are judged as universal
ones are.

``both``: flagged when either is. So are networks searched of which nobody knows what kind of backdoor they may have.

Either way a short look at all of them on few images comes first, and then the smallest are searched in full on more,
since a trigger that fits few images is small without meaning much. An outlier is the smallest of these among the
others of the first look, so that an ordinary one, which grows with the images, is none. Sizes count by their
logarithms, since they differ by factors, and the bound is what the smallest of as many normal values goes beyond once
in twenty. Neural Cleanse has sizes as they are and a bound of 2, which a third of clean networks of ten classes go
beyond. And an outlier must work on images held back, as often as ODSCAN (Cheng et al., IEEE S&P 2024) asks of an
injected one. What this finds in strangers' networks: benchmarks/zoo.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import torch

from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.seeding import derive_seed
from ..core.statistics import anomaly_indices, outlier_bound
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..triggers.inversion import InversionResult, invert, random_start
from ..triggers.precision import PrecisionChoice
from ..triggers.task import InversionSettings, make_task
from ..triggers.trigger import SIZE_FLOOR, AnyPair, pixels_at, stamp
from .base import Scanner
from .result import Candidate, ScanResult


@record
class NeuralCleanseSettings:
    """Settings of Neural Cleanse; sizes are given for 224 x 224 images and scale with the area."""

    mode: Literal["pairwise", "universal", "both"] = Field(default="pairwise", description="which triggers to invert")
    images_per_class: int = Field(
        default=16, gt=0, le=100_000, description="images of a class that a trigger is inverted on"
    )
    rule: Literal["size", "outlier"] = Field(default="size", description="what makes a pair suspicious, if pairwise")
    steps: int = Field(default=100, gt=0, le=1_000_000, description="inversion steps at most")
    screen_images: int = Field(
        default=5, gt=0, le=100_000, description="images of a class in the first look at all pairs"
    )
    screen_steps: int = Field(default=60, gt=0, le=1_000_000, description="inversion steps of the first look")
    screen_keep: int = Field(
        default=8, gt=0, le=1_000_000, description="pairs with the smallest triggers that are inverted in full"
    )
    universal_images: int = Field(
        default=3, gt=0, le=100_000, description="images of a class in the first look at all targets"
    )
    universal_keep: int = Field(
        default=2, gt=0, le=1_000_000, description="targets with the smallest triggers that are inverted in full"
    )
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate of a pair trigger (MOTH: 0.9)")
    universal_bound: float = Field(default=0.99, gt=0, le=1, description="success rate of a universal trigger (0.99)")
    pair_bound: float = Field(
        default=1000.0, gt=0, le=1e12, description="largest suspicious pair trigger, pixels of 224 x 224"
    )
    outlier_chance: float = Field(
        default=0.05, gt=0, lt=1, description="chance that the smallest of as many normal sizes is an outlier"
    )
    outlier_success: float = Field(
        default=0.6, ge=0, le=1, description="success rate of an outlier on images held back (ODSCAN: 0.6)"
    )
    batch_images: int = Field(default=0, ge=0, le=100_000, description="images per forward pass; 0: found by itself")
    precision: PrecisionChoice = Field(
        default="auto", description="auto: bf16 where that is faster; what is found is checked again in fp32"
    )


class NeuralCleanse(Scanner):
    """Trigger inversion with a size rule; the evidence lists the smallest candidates."""

    name: ClassVar[str] = "neural-cleanse"
    settings_type: ClassVar[type] = NeuralCleanseSettings
    for_described: ClassVar[Mapping[str, Any]] = MappingProxyType({"mode": "both", "rule": "outlier"})
    settings: NeuralCleanseSettings

    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> ScanResult:
        """Invert on the first images of each class of samples.train; test on samples.held."""
        present = sorted(set(samples.train.y.tolist()))
        if len(present) < 2:
            return self.not_judged(f"example images of {len(present)} classes; at least 2 are needed")
        modes = ("pairwise", "universal") if self.settings.mode == "both" else (self.settings.mode,)
        verdicts = [getattr(self, mode)(subject, samples, present, seed) for mode in modes]
        worst = max(verdicts, key=lambda verdict: -math.inf if verdict.score is None else verdict.score)
        if not worst.flagged:  # one look that saw nothing for want of a trigger leaves the model unjudged
            worst = next((verdict for verdict in verdicts if verdict.score is None), worst)
        if worst.score is None:
            return worst
        verdicts.sort(key=lambda verdict: verdict is not worst)  # what decided comes first
        return ScanResult(
            scanner=self.name,
            outcome=worst.outcome,
            score=worst.score,
            probability=worst.probability,
            reason="; ".join(verdict.reason for verdict in verdicts),
            evidence=tuple(candidate for verdict in verdicts for candidate in verdict.evidence),
        )

    def pairwise(self, subject: Subject, samples: Samples, present: list[int], seed: int) -> ScanResult:
        """By size: score = ln(bound / smallest size); not judged where no trigger works at all.

        By outlier: as the module says, the smallest of all pairs against the others of the first look.
        """
        settings = self.settings
        pairs: list[AnyPair] = [(v, t) for v in present for t in range(subject.classes) if v != t]
        look = _Look(settings.screen_images, settings.screen_steps, settings.screen_keep, settings.success_bound)
        sizes, found = self._look_twice(subject, samples, pairs, look, seed)
        if settings.rule == "outlier":
            return self._outlier(sizes, "pair triggers", found)
        best, bound = found[0], pixels_at(subject.area, settings.pair_bound)
        if best.size is None:
            return self.not_judged("no pair trigger works, so that none can be called too small")
        words = f"{best.victim}->{best.target} turns with {best.size:.1f} pixels (bound {bound:.1f})"
        return self.judged(math.log(bound / max(best.size, 1e-3)), words, found)

    def universal(self, subject: Subject, samples: Samples, present: list[int], seed: int) -> ScanResult:
        """By outlier, one trigger for each target; targets without a trigger are left out."""
        settings = self.settings
        pairs: list[AnyPair] = [(None, t) for t in range(subject.classes) if any(v != t for v in present)]
        look = _Look(settings.universal_images, settings.steps, settings.universal_keep, settings.universal_bound)
        sizes, found = self._look_twice(subject, samples, pairs, look, seed)
        return self._outlier(sizes, "universal triggers", found)

    def _look_twice(
        self, subject: Subject, samples: Samples, pairs: list[AnyPair], look: _Look, seed: int
    ) -> tuple[dict[AnyPair, float], list[Candidate]]:
        """Sizes of the first look by pair, of those that work, and the smallest in full, as evidence."""
        settings = self.settings
        few = samples.train.first_per_class(look.images)
        task = make_task(few.y, pairs)
        start = random_start(task, subject.shape, derive_seed(seed, self.name))
        first = invert(subject, few.x, task, self._inversion(look.steps, look.bound), start).require_looked_at()
        kept = torch.tensor(_smallest_first(first)[: look.keep])
        full = samples.train.first_per_class(settings.images_per_class)
        task = make_task(full.y, [pairs[row] for row in kept.tolist()])
        start = (first.mask[kept].cpu(), first.pattern[kept].cpu())
        again = invert(subject, full.x, task, self._inversion(settings.steps, look.bound), start).require_looked_at()
        works = zip(pairs, first.size.tolist(), first.converged.tolist(), strict=True)
        return {pair: size for pair, size, work in works if work}, self._candidates(subject, samples.held, again)

    def _outlier(self, sizes: dict[AnyPair, float], kind: str, found: list[Candidate]) -> ScanResult:
        """Score = ln(anomaly index / bound) of the smallest in full among the others of the first look.

        Below 0, too, where it works on too few images held back.
        """
        best = found[0]
        if best.size is None:
            return self.not_judged(f"none of the {kind} works, so that none can be called too small")
        others = [size for pair, size in sizes.items() if pair != (best.victim, best.target)]
        indices = anomaly_indices([math.log(max(size, SIZE_FLOOR)) for size in (best.size, *others)])
        if indices is None:
            return self.judged(-1.0, f"fewer than 3 {kind} work, so none is an outlier", found)
        bound = outlier_bound(len(indices), self.settings.outlier_chance)
        words = (
            f"{best.size:.1f} pixels to {_name(best)}: anomaly index {indices[0]:.1f} (bound {bound:.1f}) among {kind}"
        )
        score = math.log(max(indices[0], 1e-3) / bound)
        held = best.held_success
        if held is not None and held < self.settings.outlier_success:
            words += f", but it works on {held:.0%} of the images held back"
            score = min(score, math.log(max(held, 1e-3) / self.settings.outlier_success))
        return self.judged(score, words, found)

    def _candidates(self, subject: Subject, held: ImagePool, result: InversionResult) -> list[Candidate]:
        """Every row as evidence, smallest working trigger first, those that never worked last."""
        rows = _smallest_first(result)
        for row in rows:
            if bool(result.converged[row]):
                self.show(result.row_trigger(row))
        return [_candidate(subject, held, result, row) for row in rows]

    def _inversion(self, steps: int, bound: float) -> InversionSettings:
        batch, precision = self.settings.batch_images, self.settings.precision
        return InversionSettings(
            steps=steps, success_bound=bound, batch_images=batch, stall_steps=steps, precision=precision
        )


class _Look(NamedTuple):
    """The first look: images of a class, steps, how many it keeps, and the success rate that a trigger must reach."""

    images: int
    steps: int
    keep: int
    bound: float


def _name(candidate: Candidate) -> str:
    """E.g. ``5``, ``3 from 7``."""
    return f"{candidate.target}" + ("" if candidate.victim is None else f" from {candidate.victim}")


def _smallest_first(result: InversionResult) -> list[int]:
    """Rows by size of their working trigger; those without one last, most successful first."""
    size = torch.where(result.converged, result.size, math.inf).tolist()
    success = result.success.tolist()
    return sorted(range(len(size)), key=lambda row: (size[row], -success[row], row))


def _candidate(subject: Subject, held: ImagePool, result: InversionResult, row: int) -> Candidate:
    trigger, converged = result.trigger(row), bool(result.converged[row])
    mine = held.victims(trigger.victim, trigger.target)
    held_success = None
    if converged and bool(mine.any()):
        logits = subject.logits(stamp(held.x[mine], trigger.mask, trigger.pattern))
        held_success = float((logits.argmax(1) == trigger.target).float().mean())
    return Candidate(
        victim=trigger.victim,
        target=trigger.target,
        size=trigger.size if converged else None,
        success=float(result.success[row]),
        held_success=held_success,
        held_images=int(mine.sum()),
        converged=converged,
    )
