"""The evidence on one flagged model: its suspicious pairs and their sizes, plain stamps, the same on clean networks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ..core.channels import COLOURS
from ..core.errors import MothError
from ..core.messages import Progress, silent
from ..core.records import to_dict
from ..core.seeding import derive_seed
from ..core.standard_logits import standardised
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..scanners.result import Candidate, ScanResult
from ..synthesis.clean_networks import train_surrogate
from ..synthesis.retrained_copies import retrained_copies
from ..triggers.distance import Measured, measure_pairs
from ..triggers.known_filters import FilterTable, filter_success, filter_table
from ..triggers.stamps import StampTable, StampTables, mean_conviction, stamp_gap
from ..triggers.success import held_success
from ..triggers.trigger import Pair
from .features import FEATURES, STAGES, BlindEvidence, PairFeatures, Question, Stage, stages_for, wanted_features
from .filter_evidence import FILTERS, RELEARNED, FilterEvidence, filter_evidence
from .settings import EvidenceSettings

Values = dict[str, float | None]
UNUSED = "the rule does not use it"


def collect_evidence(
    subject: Subject,
    samples: Samples,
    verdict: ScanResult,
    settings: EvidenceSettings,
    *,
    seed: int,
    question: Question | None = None,
    signs: Sequence[Path] = (),
    progress: Progress = silent,
) -> BlindEvidence:
    """Look into the suspicious pairs of ``verdict``.

    Pairs are inverted on ``samples.train`` and their triggers tried on ``samples.held``. With a question only what its
    rule uses is gathered, and only until the verdict cannot change any more; what is left out is named in
    ``unneeded``. Each number is the same with and without it, up to rounding. A stage that fails with a MothError is
    named in ``skipped``; its features are then None. ``signs``: the classes' foregrounds, for clean networks.
    """
    started = time.perf_counter()
    found = _Evidence(standardised(subject, samples.train), samples, settings, seed, signs, question, progress)
    found.choose(verdict)
    if found.candidates:
        found.gather()
    return found.record(started)


@dataclass
class _Evidence:
    """What is known of a model so far."""

    subject: Subject
    samples: Samples
    settings: EvidenceSettings
    seed: int
    signs: Sequence[Path]
    question: Question | None
    progress: Progress
    candidates: tuple[Pair, ...] = ()
    measured: Measured | None = None
    filter: FilterEvidence | None = None
    known: dict[Pair, Values] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unneeded: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _networks: list[Subject] = field(default_factory=list)
    _no_networks: MothError | None = None

    def __post_init__(self) -> None:
        """Pick the images that distances are measured on."""
        self.images = self.samples.train.first_per_class(self.settings.images_per_class)
        self.tables = StampTables(self.subject, self.samples.train, self.settings.stamps)
        self.wanted = wanted_features(self.question)
        self.stages = stages_for(self.wanted)

    def choose(self, verdict: ScanResult) -> None:
        """The scanner's pairs, and those whose plain stamps work best where stamps are looked at."""
        settings, present = self.settings, sorted(set(self.samples.train.y.tolist()))
        stamping = "stamps" in self.stages

        def stamped() -> tuple[Pair, ...]:
            return self.tables.suspects(settings.candidates + settings.suspects) if stamping else ()

        began = time.perf_counter()
        self.candidates = choose_candidates(shown(verdict), present, settings, stamped)
        if self.candidates and stamping:  # choosing took what the stage of that name only reads off
            self.seconds["stamps"] = time.perf_counter() - began

    def gather(self) -> None:
        """Each stage that can still change the verdict, the cheap ones first; then the photo filters."""
        self.unneeded = {stage: UNUSED for stage in STAGES if stage not in self.stages}
        self._do("before", self._measure, self._before)
        if self.measured is None:
            return
        if "stamps" in self.stages and not self._settled("stamps", "clean_stamps"):
            self._do("stamps", lambda: None, self.tables.features)
            if "clean_stamps" in self.stages and not self._settled("clean_stamps"):
                self._do("clean_stamps", self._stamp_clean, self._beside_clean)
        if self.question is None or self.question.settled(self.pairs(), frozenset()) != "kept":
            self._try_filters()

    def pairs(self) -> list[PairFeatures]:
        """The candidates with what is known of them."""
        candidates = () if self.measured is None else self.candidates
        return [PairFeatures(victim=pair[0], target=pair[1], **self.known.get(pair, {})) for pair in candidates]

    def _do(self, stage: Stage, prepare: Callable[[], None], features: Callable[[Pair], Values]) -> None:
        """What a stage does once for all pairs, and then its numbers of each."""
        self.progress(f"evidence: {stage}")
        ready = False
        with self._timed(stage):
            prepare()
            ready = True
        for pair in self.candidates if ready else ():
            with self._timed(stage):
                found = features(pair)
                own = self.known.setdefault(pair, {})
                own |= {name: value for name, value in found.items() if name in self.wanted or name == "size"}

    def _settled(self, *rest: Stage) -> bool:
        """Whether the other stages cannot change the verdict; they are then named with it."""
        unknown = frozenset(name for stage in rest for name in STAGES[stage]) & self.wanted
        outcome = self.question.settled(self.pairs(), unknown) if self.question and unknown else None
        if outcome is None:
            return False
        self.unneeded |= {stage: f"{outcome} whatever it would show" for stage in rest if stage in self.stages}
        self.wanted -= unknown
        return True

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Time a stage; what it fails with is remembered, and the others go on."""
        began = time.perf_counter()
        try:
            yield
        except MothError as error:
            self.skipped[name] = str(error)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - began, 2)

    def _measure(self) -> None:
        seed = derive_seed(self.seed, "distances")
        self.measured = measure_pairs(self.subject, self.images, self.candidates, self.settings.inversion, seed)

    def _before(self, pair: Pair) -> Values:
        assert self.measured is not None
        trigger, size = self.measured.triggers.get(pair), self.measured.sizes[pair]
        held = None if trigger is None else held_success(self.subject, self.samples.held, trigger)
        return {"size": size, "log_size": math.log(size), "held_success": held}

    def _stamp_clean(self) -> None:
        victims = {victim for victim, _ in self.candidates}
        self._clean: list[StampTable] = [self.tables.on(clean, victims) for clean in self._clean_networks()]

    def _beside_clean(self, pair: Pair) -> Values:
        return {
            "stamp_gap": stamp_gap(self.tables.stamps, [table.success for table in self._clean], pair),
            "clean_conviction": mean_conviction(self.tables.table, self._clean, pair),
        }

    def _try_filters(self) -> None:
        """The known filters; clean networks and retrained copies are asked where they could still explain it.

        Nothing for a network that sees no colours, which no filter changes.
        """
        if self.subject.shape[0] != COLOURS:
            return
        settings, relearning = self.settings.filters, self.settings.relearning
        with self._timed(FILTERS):
            self.progress(f"evidence: {FILTERS}")
            found = filter_evidence(self._own_filters, settings)
            if found.suspicion(settings) >= settings.odds:
                found = filter_evidence(self._own_filters, settings, self._clean_filters)
            self.filter = found
        if self.filter is not None and relearning.kept and self.filter.suspicion(settings) >= settings.odds:
            with self._timed(RELEARNED):
                self.progress(f"evidence: {RELEARNED}")
                self.filter = self._beside_copies()

    def _beside_copies(self) -> FilterEvidence:
        """Beside copies of the network, retrained from clean images, which explain what is its own."""
        settings, copies = self.settings.filters, list[Tensor]()
        train, held = self.samples.train, self.samples.held
        for copy in retrained_copies(self.subject, train, held, self.settings.relearning, seed=self.seed):
            copies.append(filter_success(copy, self.images))
            found = filter_evidence(self._own_filters, settings, self._clean_filters, copies)
            if found.suspicion(settings) < settings.odds and not self.settings.complete:
                break  # more copies can only explain more
        return filter_evidence(self._own_filters, settings, self._clean_filters, copies)

    @cached_property
    def _own_filters(self) -> FilterTable:
        return filter_table(self.subject, self.images)

    @cached_property
    def _clean_filters(self) -> list[Tensor]:
        return [filter_success(network, self.images) for network in self._clean_networks()]

    def _clean_networks(self) -> list[Subject]:
        """Trained once for all that asks for them; the same MothError every time where they learn nothing."""
        if self._no_networks:
            raise self._no_networks
        try:
            for number in range(len(self._networks), self.settings.clean_networks):
                self._networks.append(self._clean_network(derive_seed(self.seed, "clean", number)))
        except MothError as error:
            self._no_networks = error
            raise
        return self._networks

    def _clean_network(self, seed: int) -> Subject:
        settings = self.settings.clean_training
        train, held = self.samples.train, self.samples.held
        clean = train_surrogate(self.subject, train, held, settings, seed=seed, foregrounds=self.signs)
        if clean is None:
            least = settings.least_accuracy
            raise MothError(f"no clean network of these classes came to an accuracy of {least:.0%}")
        return clean

    def record(self, started: float) -> BlindEvidence:
        """All that was found."""
        clean, measured = self.samples.clean, self.measured
        sizes, triggers = (len(measured.sizes), len(measured.triggers)) if measured else (0, 0)
        return BlindEvidence(
            candidates=tuple(self.pairs()),
            classes=self.subject.classes,
            images_per_class=self.settings.images_per_class,
            pairs_measured=len(self.candidates),
            censored=(sizes - triggers) / sizes if sizes else 0.0,
            accuracy_before=self.subject.accuracy(clean.x, clean.y),
            filter=self.filter,
            skipped=self.skipped,
            unneeded=self.unneeded,
            left_open=tuple(name for name in FEATURES if name not in self.wanted),
            settings=to_dict(self.settings),
            seed=self.seed,
            stage_seconds=self.seconds,
            seconds=time.perf_counter() - started,
        )


def shown(verdict: ScanResult) -> tuple[Candidate, ...]:
    """What a verdict shows; nothing where one of several scanners flagged the model for what is no patch.

    Patches alone are looked into, and must not take back the flag of a scanner that saw something else.
    """
    other = any(one.kind != "patch" and one.scanner in verdict.flagged_by for one in verdict.evidence)
    return () if other else verdict.evidence


def choose_candidates(
    evidence: Sequence[Candidate], present: Sequence[int], settings: EvidenceSettings,
    stamped: Callable[[], Sequence[Pair]] = tuple,
) -> tuple[Pair, ...]:  # fmt: skip
    """The scanner's smallest working patches of one victim class each, worst first.

    ``stamped``: asked for more candidates, worst first, where the scanner has any; up to ``suspects`` are added.
    ``present``: classes with images.
    """
    found = [(c.victim, c.target) for c in evidence if c.kind == "patch" and c.size is not None and c.victim in present]
    candidates = tuple(dict.fromkeys((int(victim or 0), target) for victim, target in found))[: settings.candidates]
    # A model whose scanner shows no patch was not flagged for one, and patches cannot take its flag back.
    if not candidates or not settings.suspects:
        return candidates
    return tuple(dict.fromkeys([*candidates, *stamped()]))[: len(candidates) + settings.suspects]
