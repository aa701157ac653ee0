"""The evidence on one flagged model: before hardening, after hardening everything, all but the suspects, and these."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..errors import MothError
from ..fitting import stamped
from ..hardeners.moth import Moth
from ..hardeners.scope import Scope
from ..pairs import Pair
from ..records import to_dict
from ..samples import Samples
from ..scanner import Verdict
from ..seeding import derive_seed, generator
from ..subject import Subject
from ..trigger import Trigger
from . import growth
from .choice import choose_pairs
from .differencing import difference_features
from .features import BlindEvidence, PairFeatures
from .measure import Measured, measure_pairs
from .reach import held_success, jitter_success, transfer
from .settings import EvidenceSettings
from .similarity import class_similarity, similarity_residuals


def collect_evidence(
    subject: Subject,
    samples: Samples,
    verdict: Verdict,
    settings: EvidenceSettings,
    *,
    seed: int,
    hardened: Subject | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> BlindEvidence:
    """Look into the suspicious pairs of ``verdict``; ``hardened``: the same network after plain MOTH, if at hand.

    Pairs are inverted on ``samples.train`` and their triggers tried on ``samples.held``. A stage that fails with a
    MothError is left out and named in ``skipped``; its features are then None.
    """
    return _Collector(subject, samples, settings, seed, progress).run(verdict, hardened)


@dataclass
class _Collector:
    subject: Subject
    samples: Samples
    settings: EvidenceSettings
    seed: int
    progress: Callable[[str], None]
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    states: dict[str, Measured] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)

    def run(self, verdict: Verdict, hardened: Subject | None) -> BlindEvidence:
        started, classes = time.perf_counter(), self.subject.classes
        present = sorted(set(self.samples.train.y.tolist()))
        stream = generator(self.seed, "controls")
        self.chosen = choose_pairs(verdict.evidence, present, classes, self.settings, stream)
        self.images = self.samples.train.first_per_class(self.settings.images_per_class)
        if self.chosen.candidates:
            with self._stage("before"):
                self._measure("before", self.subject)
            if hardened is not None:
                with self._stage("hardened"):
                    self._measure("hardened", hardened)
            with self._stage("withheld"):
                self._harden_others()
            with self._stage("burst"):
                self._burst()
        features = [self._features(pair) for pair in self.chosen.candidates] if "before" in self.states else []
        return self._evidence(features, time.perf_counter() - started)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Time a stage; what it fails with is remembered, and the others go on."""
        self.progress(f"evidence: {name}")
        began = time.perf_counter()
        try:
            yield
        except MothError as error:
            self.skipped[name] = str(error)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - began, 2)

    def _measure(self, state: str, subject: Subject) -> None:
        seed = derive_seed(self.seed, "distances")
        self.subjects[state] = subject
        self.states[state] = measure_pairs(subject, self.images, self.chosen.measured, self.settings.inversion, seed)

    def _harden_others(self) -> None:
        moth = Moth(self.settings.hardening, scope=Scope.except_for(self.chosen.held_out))
        seed = derive_seed(self.seed, "withheld")
        self._measure("withheld", moth(self.subject, self.samples, seed=seed, progress=self.progress).subject)

    def _burst(self) -> None:
        if "withheld" not in self.subjects:
            raise MothError("the hardening of the other pairs is missing")
        moth = Moth(self.settings.burst, scope=Scope.just(self.chosen.held_out))
        start, seed = self.subjects["withheld"], derive_seed(self.seed, "burst")
        self._measure("burst", moth(start, self.samples, seed=seed, progress=self.progress).subject)

    def _features(self, pair: Pair) -> PairFeatures:
        before = self.states["before"]
        known: dict[str, Any] = {"size": before.sizes[pair], "log_size": growth.log_size(pair, before.sizes)}
        known["asymmetry"] = growth.asymmetry(pair, before.sizes)
        trigger = before.triggers.get(pair)
        if trigger is not None:
            with self._stage("success"):
                known |= self._successes(pair, trigger)
            with self._stage("differencing"):
                known |= self._differences(pair, trigger)
        with self._stage("similarity"):
            known["similarity_residual"] = self._similarity().get(pair)
        known |= self._growths(pair)
        return PairFeatures(victim=pair[0], target=pair[1], **known)

    def _successes(self, pair: Pair, trigger: Trigger) -> dict[str, float | None]:
        """Of the trigger found before: on unseen images, other classes, and the networks that hardening made."""
        held, stream = self.samples.held, generator(self.seed, "jitter", *pair)
        found = {
            "held_success": held_success(self.subject, held, trigger),
            "jitter_success": jitter_success(self.subject, held, trigger, self.settings.jitter, stream),
            "transfer": transfer(self.subject, held, trigger),
        }
        for state in ("hardened", "withheld", "burst"):
            if state in self.subjects:
                found[f"{state}_success"] = held_success(self.subjects[state], held, trigger)
        burst = found.pop("burst_success", None)
        kept = found.get("withheld_success")
        found["burst_drop"] = None if burst is None or kept is None else kept - burst
        return found

    def _differences(self, pair: Pair, trigger: Trigger) -> dict[str, float]:
        held = self.samples.held
        victims, targets = (held.take(held.positions(label)) for label in pair)
        settings = self.settings.differencing
        device = self.subject.device
        found = difference_features(
            self.subject, victims.x.to(device), targets.x.to(device), stamped(victims.to(device), trigger).x, settings,
            victim=pair[0], target=pair[1],
        )  # fmt: skip
        return {
            "shared_channels": found.shared_channels,
            "shared_channels_trigger": found.shared_channels_trigger,
            "cross_accuracy": found.cross_accuracy,
        }

    def _similarity(self) -> dict[Pair, float]:
        sizes = self.states["before"].sizes
        logs = {pair: growth.log_size(pair, sizes) or 0.0 for pair in sizes}
        return dict(similarity_residuals(logs, class_similarity(self.subject, self.images)))

    def _growths(self, pair: Pair) -> dict[str, float | None]:
        sizes = {state: measured.sizes for state, measured in self.states.items()}
        before, controls = sizes["before"], [*self.chosen.withheld, *self.chosen.trained]
        found: dict[str, float | None] = {}
        if "hardened" in sizes:
            after = sizes["hardened"]
            found["growth_residual"] = growth.growth_residual(pair, before, after, controls)
            found["rank_jump"] = growth.rank_jump(pair, before, after)
            first, second = growth.asymmetry(pair, before), growth.asymmetry(pair, after)
            found["asymmetry_change"] = None if first is None or second is None else second - first
        if "withheld" in sizes:
            found["withheld_residual"] = growth.growth_residual(pair, before, sizes["withheld"], self.chosen.withheld)
        if "burst" in sizes:
            own = growth.log_growth(pair, before, sizes["withheld"])
            later = growth.log_growth(pair, sizes["withheld"], sizes["burst"])
            found["burst_residual"] = growth.growth_residual(
                pair, sizes["withheld"], sizes["burst"], self.chosen.withheld
            )
            found["burst_contrast"] = growth.contrast(own, later)
        return found

    def _evidence(self, features: list[PairFeatures], seconds: float) -> BlindEvidence:
        clean, states = self.samples.clean, list(self.states.values())
        accuracy = {name: subject.accuracy(clean.x, clean.y) for name, subject in self.subjects.items()}
        measured = sum(len(state.sizes) for state in states)
        missing = measured - sum(len(state.triggers) for state in states)
        return BlindEvidence(
            candidates=tuple(features),
            classes=self.subject.classes,
            images_per_class=self.settings.images_per_class,
            pairs_measured=len(self.chosen.measured),
            controls=len(self.chosen.withheld),
            censored=missing / measured if measured else 0.0,
            withheld_growth=self._median(self.chosen.withheld),
            trained_growth=self._median(self.chosen.trained),
            accuracy_before=accuracy.get("before", self.subject.accuracy(clean.x, clean.y)),
            accuracy_withheld=accuracy.get("withheld"),
            accuracy_burst=accuracy.get("burst"),
            skipped=self.skipped,
            settings=to_dict(self.settings),
            seed=self.seed,
            stage_seconds=self.seconds,
            seconds=seconds,
        )

    def _median(self, pairs: tuple[Pair, ...]) -> float | None:
        if "withheld" not in self.states:
            return None
        return growth.median_growth(pairs, self.states["before"].sizes, self.states["withheld"].sizes)
