"""Filter inversion: triggers that no mask can see, because they change the colours of the whole image.

Round 4 knows five photo filters, and the scanner tries these first, as colour maps that were fitted to them
(known_filters.py). A backdoor answers to its own filter with near certainty; clean networks give way to filters, too,
but less surely. By default that decides. The most suspicious pairs, and their ways back, are then searched from there
for the smallest map that still turns them (colour_maps.py says which maps there are), and tried on held-back images.

With ``decide=inverted``, for filters of another kind, the search itself decides. All pairs get a short look on few
images, from doing nothing; those with the smallest maps, and their ways back, are searched in full. How small a map is
says little by itself. A backdoor opens at the latest at its own filter, so its smallest map is at most as large as
that: on 72 pixel images of the pilot round Nashville changes a colour value by 0.03 to 0.06, Gotham, Kelvin and Toaster
by 0.08 to 0.17 and Lomo by 0.3. But small networks without a backdoor give way at 0.03 to 0.06, too: how much colour a
network puts up with depends on its training and its classes. So a pair is suspect only when its map is small in three
ways: in itself (``size_bound``), beside the maps of the model's other pairs (``median_ratio``), which is small for a
network that gives way to any change of colour, and beside its own way back (``reverse_ratio``), which is as small where
two classes look alike. A map that turns fewer than half of the held-back images fits the images that it was searched on
and nothing else; it is no evidence. The model's score is that of its most suspect pair. Of 6 poisoned and 6 clean small
models this told hardly any apart (benchmarks/results/scanners_filter_inverted.json).
"""

from __future__ import annotations

import math
import statistics
from typing import ClassVar, Literal

import torch

from ..colour_maps import apply_map
from ..engine import Engine
from ..filter_inversion import FilterResult, filter_start, invert_filters
from ..images import ImagePool
from ..inversion import InversionSettings, make_task
from ..known_filters import best_known_filters, known_filters
from ..precision import PrecisionChoice
from ..records import Field, record
from ..samples import Samples
from ..scanner import Candidate, Scanner, Verdict, log_odds
from ..subject import Subject

Pair = tuple[int, int]
Found = tuple[FilterResult, int]
# A colour value can not change by more; it stands for a map that was not found.
_LARGEST = 1.0
# A probability counts as no nearer to 0 or 1.
_LEAST = 1e-6
_NOT_FINITE = "the network's outputs are not finite on images with changed colours"


@record
class FilterSettings:
    """Settings of the filter scanner, ours if no source is given; sizes: mean changes of a colour value in [0, 1]."""

    decide: Literal["known", "inverted"] = Field(
        default="known",
        description="known: by what round 4's five filters do; inverted: by the smallest maps of any kind",
    )
    known_bound: float = Field(
        default=0.99,
        gt=0,
        lt=1,
        description="mean probability of the target under one of the five filters from which a pair is "
        "suspicious (ours: between the clean and the poisoned models of a small round)",
    )
    size_bound: float = Field(
        default=0.08, gt=0, le=1, description="largest suspicious map (a first value, to be calibrated)"
    )
    median_ratio: float = Field(
        default=2.0,
        gt=0,
        description="how many times as large the median of the model's other pairs is beside a suspicious one (ours)",
    )
    reverse_ratio: float = Field(
        default=2.0,
        gt=0,
        description="the same of the way back (ours; of patches in a clean model, two standard deviations are 1.8 by "
        "Ex-Ray's appendix M)",
    )
    held_bound: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of held-back images that a suspicious map turns at least (1/2: Xiang et al., ICLR 2022)",
    )
    images_per_class: int = Field(default=10, gt=0, description="images of a class that a map is searched on")
    steps: int = Field(default=100, gt=0, description="steps of the full search")
    starts: int = Field(
        default=1, gt=0, description="starts of the full search: what the first look found, then random"
    )
    screen_images: int = Field(default=5, gt=0, description="images of a class in the first look at all pairs")
    screen_steps: int = Field(default=60, gt=0, description="steps of the first look, which starts from no change")
    screen_keep: int = Field(default=4, gt=0, description="most suspicious pairs that are searched in full, both ways")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a map must reach (MOTH: 0.9)")
    learning_rate: float = Field(default=0.05, gt=0, description="Adam's step size at the start")
    initial_cost: float = Field(default=10.0, gt=0, description="weight of the size at the start")
    batch_images: int = Field(default=0, ge=0, description="images per forward pass; 0: found by itself")
    precision: PrecisionChoice = Field(
        default="auto", description="auto: bf16 for the first look where that is faster; all else is in fp32"
    )


class Filter(Scanner):
    """Pairwise inversion of colour maps; the evidence lists the most suspect pairs, kind "filter"."""

    name: ClassVar[str] = "filter"
    settings_type: ClassVar[type] = FilterSettings
    settings: FilterSettings

    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> Verdict:
        """Score of the most suspect pair; where no map works, the largest possible change, 1, stands for its size."""
        settings = self.settings
        present = sorted(set(samples.train.y.tolist()))
        if len(present) < 2:
            return self.not_judged(f"example images of {len(present)} classes; at least 2 are needed")
        engine = Engine(subject, settings.precision, settings.batch_images)
        if settings.decide == "known":
            return self._by_known(subject, samples, engine, present, seed)
        return self._by_inversion(subject, samples, engine, present, seed)

    def _by_known(self, subject: Subject, samples: Samples, engine: Engine, present: list[int], seed: int) -> Verdict:
        """Scored by the pair that a known filter turns most surely; the evidence holds what the search made of it."""
        settings, maps = self.settings, known_filters()
        known = best_known_filters(subject, samples.train.first_per_class(settings.images_per_class))
        if not all(math.isfinite(one.success) for one in known.values()):
            return self.not_judged(_NOT_FINITE)
        ranked = sorted(known, key=lambda pair: -known[pair].success)
        kept = ranked[: settings.screen_keep]
        warm = {pair: maps[known[pair].name] for pair in kept}
        candidates = self._candidates(subject, samples, engine, kept, _both_ways(kept, present), warm, seed)
        if candidates is None:
            return self.not_judged(_NOT_FINITE)
        (victim, target), top = ranked[0], known[ranked[0]]
        words = (
            f"{victim}->{target} turns under {top.name} with a probability of {top.success:.2%} (bound "
            f"{settings.known_bound:.2%})"
        )
        score = log_odds(top.success, _LEAST) - log_odds(settings.known_bound, _LEAST)
        return self.judged(score, words, [candidates[pair] for pair in kept])

    def _by_inversion(
        self, subject: Subject, samples: Samples, engine: Engine, present: list[int], seed: int
    ) -> Verdict:
        settings = self.settings
        pairs = [(victim, target) for victim in present for target in range(subject.classes) if victim != target]
        few = samples.train.first_per_class(settings.screen_images)
        task = make_task(few.y, pairs)
        screened = invert_filters(
            engine, few.x, task, self._inversion(settings.screen_steps), filter_start(task, 0, seed)
        )
        if not bool(screened.finite.all()):
            return self.not_judged(_NOT_FINITE)
        rows = [row for _, row in _smallest_first([(screened, row) for row in range(len(pairs))])]
        kept = [pairs[row] for row in rows[: settings.screen_keep]]
        both = _both_ways(kept, present)
        warm = {pair: screened.variables[row] for row, pair in enumerate(pairs) if pair in both}
        candidates = self._candidates(subject, samples, engine, kept, both, warm, seed)
        if candidates is None:
            return self.not_judged(_NOT_FINITE)
        looked = {pair: _size(screened, row) for row, pair in enumerate(pairs)}
        return self._verdict(list(candidates.values()), looked)

    def _candidates(
        self, subject: Subject, samples: Samples, engine: Engine, kept: list[Pair], both: list[Pair],
        warm: dict[Pair, torch.Tensor], seed: int,
    ) -> dict[Pair, Candidate] | None:  # fmt: skip
        """What the full search of ``both`` says of the pairs ``kept``, smallest map first; None without numbers."""
        found = self._search(engine.in_fp32(), samples.train, both, warm, seed)
        if not all(bool(result.finite[row]) for result, row in found):
            return None
        full = {_pair(*one): _size(*one) for one in found}
        mine = {_pair(*one): one for one in found if _pair(*one) in kept}
        return {pair: _candidate(subject, samples.held, one, full) for pair, one in mine.items()}

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

    def _verdict(self, candidates: list[Candidate], looked: dict[Pair, float]) -> Verdict:
        """By the most suspect candidate; ``looked``: sizes of all pairs in the first look.

        Pairs that the short first look found no map for are left out of the median: that says little of their size.
        """
        told = []
        for one in candidates:
            others = [size for pair, size in looked.items() if pair != (one.victim, one.target)]
            median = statistics.median([size for size in others if size < _LARGEST] or [_LARGEST])
            told.append((self._suspicion(one, median), median, one))
        told.sort(key=lambda row: (not row[2].converged, -row[0]))
        score, median, best = told[0]
        words = "no filter turns a class into another"
        if best.size is not None:
            back = "none" if best.reverse_size is None else f"{best.reverse_size:.3f}"
            words = (
                f"{best.victim}->{best.target} turns with a filter of {best.size:.3f} (bound "
                f"{self.settings.size_bound:.3f}), other pairs at their median {median:.3f}, back {back}"
            )
        return self.judged(score, words, [one for *_, one in told])

    def _suspicion(self, one: Candidate, median: float) -> float:
        """Logarithm of how far the pair is within its nearest bound; above 0 when it is within all of them."""
        settings, size = self.settings, max(_LARGEST if one.size is None else one.size, 1e-6)
        within = [
            settings.size_bound / size,
            median / size / settings.median_ratio,
            (_LARGEST if one.reverse_size is None else one.reverse_size) / size / settings.reverse_ratio,
        ]
        if one.held_success is not None:
            within.append(max(one.held_success, 1e-6) / settings.held_bound if settings.held_bound else 1)
        return math.log(min(within))


def _both_ways(pairs: list[Pair], present: list[int]) -> list[Pair]:
    return pairs + [pair[::-1] for pair in pairs if pair[1] in present and pair[::-1] not in pairs]


def _pair(result: FilterResult, row: int) -> Pair:
    return int(result.task.victims[row] or 0), int(result.task.targets[row])


def _size(result: FilterResult, row: int) -> float:
    return float(result.size[row]) if result.converged[row] else _LARGEST


def _smallest_first(found: list[Found]) -> list[Found]:
    """By size of the map that works; pairs without one last, most successful first."""

    def key(one: Found) -> tuple[float, float]:
        result, row = one
        return float(result.size[row]) if result.converged[row] else math.inf, -float(result.success[row])

    return sorted(found, key=key)


def _candidate(subject: Subject, held: ImagePool, found: Found, sizes: dict[Pair, float]) -> Candidate:
    """``sizes``: of all pairs that were searched in full."""
    result, row = found
    (victim, target), converged = _pair(result, row), bool(result.converged[row])
    mine = held.victims(victim, target)
    held_success = None
    if converged and bool(mine.any()):
        logits = subject.logits(apply_map(held.x[mine].to(subject.device), result.variables[row]))
        held_success = float((logits.argmax(1) == target).float().mean())
    back = sizes.get((target, victim), _LARGEST)
    return Candidate(
        victim=victim,
        target=target,
        size=float(result.size[row]) if converged else None,
        success=float(result.success[row]),
        held_success=held_success,
        held_images=int(mine.sum()),
        converged=converged,
        kind="filter",
        reverse_size=back if back < _LARGEST else None,
    )
