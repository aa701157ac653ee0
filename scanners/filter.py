"""Filter inversion: triggers that no mask can see, because they change the colours of the whole image.

For every ordered pair of classes the scanner searches the colour map nearest to doing nothing that turns images of the
first into the second (colour_maps.py says which maps there are). All pairs get a short look on few images; those with
the smallest maps are then searched in full, on more images and from several starts, and tried on held-back images; for
the best few the way back is searched too.

Flagged when the smallest map that works changes a colour value by less than ``size_bound`` on average. A backdoor opens
at the latest at its own filter, so its smallest map is at most as large as that: on 72 pixel images of the pilot round
Nashville changes a colour value by 0.03 to 0.06, Gotham, Kelvin and Toaster by 0.08 to 0.17 and Lomo by 0.3. A network
without a backdoor has been trained to put up with changes of brightness, contrast and colour by a tenth (round 4's
ColorJitter), which is 0.02 to 0.05, and gives way at the latest where nothing is left to see: making such an image
uniformly grey takes about 0.2. The default lies between; it is a first value, argued for and not calibrated. Tried on a
made round of four small networks (32 pixels, trained with each colour's contrast changed by up to a tenth) it is too
large: the two clean ones gave way at 0.03 to 0.04, the two with a filter backdoor at 0.02 to 0.03, and all are flagged.
So learn from labelled models what a score means (``calibrate``).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from ..colour_maps import apply_map
from ..engine import Engine, PrecisionChoice
from ..filter_inversion import FilterResult, filter_start, invert_filters
from ..images import ImagePool
from ..inversion import InversionSettings, make_task
from ..records import Field, record
from ..samples import Samples
from ..scanner import Candidate, Scanner, Verdict
from ..subject import Subject

Pair = tuple[int, int]
Found = tuple[FilterResult, int]
_NOT_FINITE = "the network's outputs are not finite on images with changed colours"


@record
class FilterSettings:
    """Settings of the filter scanner; sizes are mean changes of a colour value in [0, 1]."""

    size_bound: float = Field(
        default=0.08, gt=0, le=1, description="largest suspicious map (a first value, to be calibrated)"
    )
    images_per_class: int = Field(default=16, gt=0, description="images of a class that a map is searched on")
    steps: int = Field(default=150, gt=0, description="steps of the full search")
    starts: int = Field(
        default=2, gt=0, description="starts of the full search: what the first look found, then random"
    )
    screen_images: int = Field(default=5, gt=0, description="images of a class in the first look at all pairs")
    screen_steps: int = Field(default=60, gt=0, description="steps of the first look, which starts from no change")
    screen_keep: int = Field(default=6, gt=0, description="pairs with the smallest maps that are searched in full")
    reverse_keep: int = Field(default=2, ge=0, description="pairs whose way back is searched, too")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a map must reach (MOTH: 0.9)")
    learning_rate: float = Field(default=0.05, gt=0, description="Adam's step size at the start")
    initial_cost: float = Field(default=10.0, gt=0, description="weight of the size at the start")
    batch_images: int = Field(default=0, ge=0, description="images per forward pass; 0: found by itself")
    precision: PrecisionChoice = Field(
        default="auto", description="auto: bf16 for the first look where that is faster; all else is in fp32"
    )


class Filter(Scanner):
    """Pairwise inversion of colour maps with a size rule; the evidence lists the smallest maps, kind "filter"."""

    name: ClassVar[str] = "filter"
    settings_type: ClassVar[type] = FilterSettings
    settings: FilterSettings

    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> Verdict:
        """Score = ln(bound / smallest size); where no map works, the largest possible change, 1, stands for it."""
        settings = self.settings
        present = sorted(set(samples.train.y.tolist()))
        if len(present) < 2:
            return self.not_judged(f"example images of {len(present)} classes; at least 2 are needed")
        engine = Engine(subject, settings.precision, settings.batch_images)
        pairs = [(victim, target) for victim in present for target in range(subject.classes) if victim != target]
        few = samples.train.first_per_class(settings.screen_images)
        task = make_task(few.y, pairs)
        screened = invert_filters(
            engine, few.x, task, self._inversion(settings.screen_steps), filter_start(task, 0, seed)
        )
        if not bool(screened.finite.all()):
            return self.not_judged(_NOT_FINITE)
        kept = _smallest_first([(screened, row) for row in range(len(pairs))])[: settings.screen_keep]
        warm = {pairs[row]: screened.variables[row] for _, row in kept}
        exact = engine.in_fp32()
        found = self._search(exact, samples.train, list(warm), warm, seed)
        if not all(bool(result.finite[row]) for result, row in found):
            return self.not_judged(_NOT_FINITE)
        candidates = [_candidate(subject, samples.held, *one) for one in found]
        return self._verdict(self._with_reverse(exact, samples.train, present, candidates, seed))

    def _inversion(self, steps: int) -> InversionSettings:
        settings = self.settings
        return InversionSettings(
            steps=steps,
            success_bound=settings.success_bound,
            learning_rate=settings.learning_rate,
            initial_cost=settings.initial_cost,
        )

    def _search(
        self, engine: Engine, images: ImagePool, pairs: list[Pair], warm: dict[Pair, torch.Tensor], seed: int
    ) -> list[Found]:
        """The best of all starts for every pair, smallest map first; ``warm`` replaces the start that does nothing."""
        pool, starts = images.first_per_class(self.settings.images_per_class), range(self.settings.starts)
        task = make_task(pool.y, pairs * len(starts))
        once = make_task(pool.y, pairs)
        start = torch.cat([filter_start(once, attempt, seed) for attempt in starts])
        for place, pair in enumerate(pairs):
            start[place] = warm.get(pair, start[place]).cpu()
        result = invert_filters(engine, pool.x, task, self._inversion(self.settings.steps), start)
        best = [
            _smallest_first([(result, row) for row in range(place, len(task), len(pairs))])[0]
            for place in range(len(pairs))
        ]
        return _smallest_first(best)

    def _with_reverse(
        self, engine: Engine, images: ImagePool, present: list[int], found: list[Candidate], seed: int
    ) -> list[Candidate]:
        wanted = [one for one in found if one.converged and one.target in present][: self.settings.reverse_keep]
        pairs = [(one.target, one.victim) for one in wanted if one.victim is not None]
        if not pairs:
            return found
        back = self._search(engine, images, pairs, {}, seed)
        sizes: dict[tuple[int | None, int | None], float] = {
            _pair(result, row): float(result.size[row]) for result, row in back if result.converged[row]
        }
        return [Candidate(**{**vars(one), "reverse_size": sizes.get((one.target, one.victim))}) for one in found]

    def _verdict(self, found: list[Candidate]) -> Verdict:
        best, bound = found[0], self.settings.size_bound
        words = "no filter turns a class into another"
        if best.size is not None:
            words = f"{best.victim}->{best.target} turns with a filter of {best.size:.3f} (bound {bound:.3f})"
        score = math.log(bound / max(best.size if best.size is not None else 1.0, 1e-6))
        return self.judged(score, words, found)


def _pair(result: FilterResult, row: int) -> tuple[int | None, int]:
    return result.task.victims[row], int(result.task.targets[row])


def _smallest_first(found: list[Found]) -> list[Found]:
    """By size of the map that works; pairs without one last, most successful first."""

    def key(one: Found) -> tuple[float, float]:
        result, row = one
        return float(result.size[row]) if result.converged[row] else math.inf, -float(result.success[row])

    return sorted(found, key=key)


def _candidate(subject: Subject, held: ImagePool, result: FilterResult, row: int) -> Candidate:
    (victim, target), converged = _pair(result, row), bool(result.converged[row])
    mine = held.victims(victim, target)
    held_success = None
    if converged and bool(mine.any()):
        logits = subject.logits(apply_map(held.x[mine].to(subject.device), result.variables[row]))
        held_success = float((logits.argmax(1) == target).float().mean())
    return Candidate(
        victim=victim,
        target=target,
        size=float(result.size[row]) if converged else None,
        success=float(result.success[row]),
        held_success=held_success,
        held_images=int(mine.sum()),
        converged=converged,
        kind="filter",
    )
