"""The evidence on one flagged model: before hardening, after hardening everything, all but the suspects, and these."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import MothError
from ..pairs import Pair
from ..records import to_dict
from ..samples import Samples
from ..scanner import Verdict
from ..seeding import generator
from ..subject import Subject
from . import growth
from .choice import choose_pairs, shown
from .features import BlindEvidence, PairFeatures
from .filtered import FILTERS, RELEARNED, FilterEvidence
from .gather import Gathering, Values
from .settings import EvidenceSettings
from .stages import STAGES, Cascade, features_for, pairs_for, stages_for
from .stamps import StampTables

UNUSED = "the rule does not use it"


def collect_evidence(
    subject: Subject,
    samples: Samples,
    verdict: Verdict,
    settings: EvidenceSettings,
    *,
    seed: int,
    hardened: Subject | None = None,
    cascade: Cascade | None = None,
    signs: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> BlindEvidence:
    """Look into the suspicious pairs of ``verdict``; ``hardened``: the same network after plain MOTH, if at hand.

    Pairs are inverted on ``samples.train`` and their triggers tried on ``samples.held``. With a cascade only what its
    rule uses is gathered, and only until the verdict can not change any more; what is left out is named in
    ``unneeded``. Each number is the same with and without it, up to rounding. A stage that fails with a MothError is
    named in ``skipped``; its features are then None. ``signs``: the classes' foregrounds, for a surrogate.
    """
    started, classes = time.perf_counter(), subject.classes
    present = sorted(set(samples.train.y.tolist()))
    wanted, tables = features_for(cascade, settings), StampTables(subject, samples.train, settings.stamps)
    stamping = "stamps" in stages_for(cascade, settings)

    def stamped() -> tuple[Pair, ...]:
        return tables.suspects(settings.candidates + settings.suspects) if stamping else ()

    chosen = choose_pairs(
        shown(verdict), present, classes, settings, generator(seed, "controls"), stamped,
        withholding=bool(wanted & {*STAGES["withheld"], *STAGES["burst"]}),
    )  # fmt: skip
    pairs = pairs_for(wanted, chosen)
    gathering = Gathering(
        subject, samples, settings, seed, chosen, pairs, hardened, signs, tables,
        not wanted.isdisjoint(("stamp_gap", "conviction_gap", "clean_conviction")), progress,
    )  # fmt: skip
    collector = _Collector(gathering, cascade, wanted)
    if chosen.candidates and stamping:  # choosing pairs took what the stage of that name only reads off
        collector.seconds["stamps"] = time.perf_counter() - started
    if chosen.candidates:
        collector.run()
    return collector.evidence(started)


@dataclass
class _Collector:
    gathering: Gathering
    cascade: Cascade | None
    wanted: frozenset[str]
    known: dict[Pair, Values] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unneeded: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    filter: FilterEvidence | None = None

    def run(self) -> None:
        """Every stage that is needed, one after the other."""
        settings = self.gathering.settings
        stages = stages_for(self.cascade, settings)
        self.unneeded = {stage: UNUSED for stage in stages_for(None, settings) if stage not in stages}
        if self.gathering.hardened is None:
            stages = [stage for stage in stages if stage != "hardened"]
        for at, stage in enumerate(stages):
            self._do(stage)
            if "before" not in self.gathering.states:
                return
            if self._settled(stages[at + 1 :]):
                break
        if self.cascade is None or self.cascade.settled(self.pairs(), frozenset()) != "kept":
            with self._stage(FILTERS):
                self.gathering.progress(f"evidence: {FILTERS}")
                self.filter = self.gathering.filters()
        filters, found = settings.filters, self.filter
        if found is not None and settings.relearning.kept and found.suspicion(filters) >= filters.odds:
            with self._stage(RELEARNED):
                self.gathering.progress(f"evidence: {RELEARNED}")
                self.filter = self.gathering.unexplained()

    def _do(self, stage: str) -> None:
        self.gathering.progress(f"evidence: {stage}")
        ready = False
        with self._stage(stage):
            self.gathering.prepare(stage)
            ready = True
        for pair in self.gathering.chosen.candidates if ready else ():
            with self._stage(stage):
                found = self.gathering.features(stage, pair)
                own = self.known.setdefault(pair, {})
                own |= {name: value for name, value in found.items() if name in self.wanted or name == "size"}

    def _settled(self, rest: list[str]) -> bool:
        """Whether the other stages can not change the verdict; they are then named with the verdict."""
        if self.cascade is None or not rest:
            return False
        unknown = frozenset(name for stage in rest for name in STAGES[stage]) & self.wanted
        outcome = self.cascade.settled(self.pairs(), unknown) if unknown else None
        if outcome is None:
            return False
        self.unneeded |= dict.fromkeys(rest, f"{outcome} whatever it would show")
        self.wanted -= unknown
        return True

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Time a stage; what it fails with is remembered, and the others go on."""
        began = time.perf_counter()
        try:
            yield
        except MothError as error:
            self.skipped[name] = str(error)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - began, 2)

    def pairs(self) -> list[PairFeatures]:
        """The candidates with what is known of them."""
        candidates = self.gathering.chosen.candidates if "before" in self.gathering.states else ()
        return [PairFeatures(victim=pair[0], target=pair[1], **self.known.get(pair, {})) for pair in candidates]

    def evidence(self, started: float) -> BlindEvidence:
        """Everything as a record."""
        made, chosen = self.gathering, self.gathering.chosen
        clean, states = made.samples.clean, list(made.states.values())
        accuracy = {name: subject.accuracy(clean.x, clean.y) for name, subject in made.subjects.items()}
        measured = sum(len(state.sizes) for state in states)
        missing = measured - sum(len(state.triggers) for state in states)
        everything = features_for(None, made.settings)
        return BlindEvidence(
            candidates=tuple(self.pairs()),
            classes=made.subject.classes,
            images_per_class=made.settings.images_per_class,
            pairs_measured=len(made.pairs),
            controls=len(set(chosen.withheld) & set(made.pairs)),
            censored=missing / measured if measured else 0.0,
            withheld_growth=self._median(chosen.withheld),
            trained_growth=self._median(chosen.trained),
            accuracy_before=accuracy.get("before", made.subject.accuracy(clean.x, clean.y)),
            accuracy_withheld=accuracy.get("withheld"),
            accuracy_burst=accuracy.get("burst"),
            filter=self.filter,
            skipped=self.skipped,
            unneeded=self.unneeded,
            left_open=tuple(name for given in STAGES.values() for name in given if name in everything - self.wanted),
            settings=to_dict(made.settings),
            seed=made.seed,
            stage_seconds=self.seconds,
            seconds=time.perf_counter() - started,
        )

    def _median(self, pairs: tuple[Pair, ...]) -> float | None:
        states = self.gathering.states
        if "withheld" not in states:
            return None
        return growth.median_growth(pairs, states["before"].sizes, states["withheld"].sizes)
