"""The numbers of each stage of the evidence on one flagged model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ..errors import MothError
from ..fitting import stamped
from ..hardeners.moth import Moth
from ..hardeners.scope import Scope
from ..images import ImagePool
from ..known_filters import FilterTable, filter_success, filter_table
from ..pairs import Pair
from ..samples import Samples
from ..seeding import derive_seed, generator
from ..subject import Subject
from ..trigger import Trigger
from . import growth
from .choice import ChosenPairs
from .differencing import difference_features
from .filtered import FilterEvidence, filter_evidence
from .measure import Measured, measure_pairs
from .pasted import bound_ratio, pasted_bounds
from .reach import held_success, jitter_success, transfer
from .relearned import relearned_copies
from .settings import EvidenceSettings
from .similarity import class_similarity, similarity_residuals
from .stamps import StampTable, StampTables, conviction_gap, mean_conviction, stamp_gap
from .suppressed import suppressed_growth
from .surrogate import SurrogateSettings, surrogate_gap, train_surrogate

Values = dict[str, float | None]


@dataclass
class Gathering:
    """What has been measured of a model so far; ``pairs`` are those whose distances are.

    ``needs_gap``: the gap to clean networks is a feature of its own, even where no candidate's stamp works.
    A stage is first prepared, once, and then asked for its features of each candidate. Raises MothError where a stage
    can not be done.
    """

    subject: Subject
    samples: Samples
    settings: EvidenceSettings
    seed: int
    chosen: ChosenPairs
    pairs: tuple[Pair, ...]
    hardened: Subject | None
    signs: Sequence[Path]
    tables: StampTables
    needs_gap: bool
    progress: Callable[[str], None]
    states: dict[str, Measured] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)
    _residuals: dict[Pair, float] = field(default_factory=dict)
    _bounds: dict[Pair, float] = field(default_factory=dict)
    _clean: list[StampTable] = field(default_factory=list)
    _networks: list[Subject] = field(default_factory=list)
    _no_networks: MothError | None = None

    def __post_init__(self) -> None:
        """Pick the images that distances are measured on."""
        self.images: ImagePool = self.samples.train.first_per_class(self.settings.images_per_class)

    def prepare(self, stage: str) -> None:
        """What a stage does once for all pairs."""
        {
            "before": lambda: self._measure("before", self.subject),
            "similarity": self._likeness,
            "clean_stamps": self._train_clean,
            "pasted": self._paste,
            "surrogate": self._surrogate,
            "hardened": lambda: self._measure("hardened", self.hardened or self.subject),
            "withheld": self._harden_others,
            "burst": self._burst,
        }.get(stage, lambda: None)()

    def features(self, stage: str, pair: Pair) -> Values:
        """A stage's features of one pair, by name; empty where they need a trigger and none was found."""
        trigger = self.states["before"].triggers.get(pair)
        if stage in ("success", "differencing", "pasted", "suppressed") and trigger is None:
            return {}
        ways: dict[str, Callable[[], Values]] = {
            "before": lambda: self._before(pair, trigger),
            "stamps": lambda: dict(self.tables.features(pair)),
            "clean_stamps": lambda: self._beside_clean(pair),
            "success": lambda: self._reach(pair, _there(trigger)),
            "similarity": lambda: {"similarity_residual": self._residuals.get(pair)},
            "differencing": lambda: self._differences(pair, _there(trigger)),
            "pasted": lambda: {"bound_ratio": bound_ratio(self._size(pair), self._bounds[pair])},
            "suppressed": lambda: {"suppressed_growth": self._suppressed(_there(trigger))},
            "surrogate": lambda: self._surrogate_features(pair, trigger),
            "hardened": lambda: self._growth(pair, trigger),
            "withheld": lambda: self._withheld(pair, trigger),
            "burst": lambda: self._bursts(pair, trigger),
        }
        return ways[stage]()

    def _measure(self, state: str, subject: Subject) -> None:
        seed = derive_seed(self.seed, "distances")
        self.subjects[state] = subject
        self.states[state] = measure_pairs(subject, self.images, self.pairs, self.settings.inversion, seed)

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

    def _likeness(self) -> None:
        sizes = self.states["before"].sizes
        logs = {pair: growth.log_size(pair, sizes) or 0.0 for pair in sizes}
        self._residuals = dict(similarity_residuals(logs, class_similarity(self.subject, self.images)))

    def _paste(self) -> None:
        seed, pairs = derive_seed(self.seed, "distances"), self.chosen.candidates
        found = pasted_bounds(
            self.subject, self.images, pairs, self.settings.pasting, self.settings.inversion, seed=seed
        )
        self._bounds = {pair: bound.size for pair, bound in found.items()}

    def _train_clean(self) -> None:
        victims = {victim for victim, _ in self.chosen.candidates}
        if not self.needs_gap and not any(self.tables.weakest(pair, None) > 0 for pair in self.chosen.candidates):
            return  # no gap could make any of them suspicious
        self._clean = [self.tables.on(clean, victims) for clean in self._clean_networks()]

    def _beside_clean(self, pair: Pair) -> Values:
        if not self._clean:
            return {"stamp_weakest": self.tables.weakest(pair, None)}
        own = self.tables.table
        gap = stamp_gap(self.tables.stamps, [table.success for table in self._clean], pair)
        found: Values = {"stamp_gap": gap, "stamp_weakest": self.tables.weakest(pair, gap)}
        found["clean_conviction"] = mean_conviction(own, self._clean, pair)
        return found | {"conviction_gap": conviction_gap(own, self._clean, pair)}

    def filters(self) -> FilterEvidence:
        """What the known filters do; clean networks are asked where they could still explain it."""
        settings = self.settings.filters
        found = filter_evidence(self._own_filters, settings)
        if found.suspicion(settings) < settings.odds:
            return found
        return filter_evidence(self._own_filters, settings, self._clean_filters)

    def unexplained(self) -> FilterEvidence:
        """The same beside copies of the network, relearned from clean images, which explain what is its own."""
        settings, copies = self.settings.filters, list[Tensor]()
        train, held = self.samples.train, self.samples.held
        for copy in relearned_copies(self.subject, train, held, self.settings.relearning, seed=self.seed):
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
                seed = derive_seed(self.seed, "clean", number)
                self._networks.append(self._clean_network(self.settings.clean_training, seed))
        except MothError as error:
            self._no_networks = error
            raise
        return self._networks

    def _surrogate(self) -> None:
        clean = self._clean_network(self.settings.surrogate_training, derive_seed(self.seed, "surrogate"))
        self._measure("surrogate", clean)

    def _clean_network(self, settings: SurrogateSettings, seed: int) -> Subject:
        train, held = self.samples.train, self.samples.held
        clean = train_surrogate(self.subject, train, held, settings, seed=seed, foregrounds=self.signs)
        if clean is None:
            least = settings.least_accuracy
            raise MothError(f"no clean network of these classes came to an accuracy of {least:.0%}")
        return clean

    def _before(self, pair: Pair, trigger: Trigger | None) -> Values:
        sizes = self.states["before"].sizes
        held = None if trigger is None else held_success(self.subject, self.samples.held, trigger)
        known = {"size": sizes[pair], "log_size": growth.log_size(pair, sizes), "held_success": held}
        return known | {"asymmetry": growth.asymmetry(pair, sizes)}

    def _reach(self, pair: Pair, trigger: Trigger) -> Values:
        held, stream = self.samples.held, generator(self.seed, "jitter", *pair)
        return {
            "jitter_success": jitter_success(self.subject, held, trigger, self.settings.jitter, stream),
            "transfer": transfer(self.subject, held, trigger),
        }

    def _differences(self, pair: Pair, trigger: Trigger) -> Values:
        held, device = self.samples.held, self.subject.device
        victims, targets = (held.take(held.positions(label)) for label in pair)
        found = difference_features(
            self.subject, victims.x.to(device), targets.x.to(device), stamped(victims.to(device), trigger).x,
            self.settings.differencing, victim=pair[0], target=pair[1],
        )  # fmt: skip
        return {
            "shared_channels": found.shared_channels,
            "shared_channels_trigger": found.shared_channels_trigger,
            "cross_accuracy": found.cross_accuracy,
        }

    def _suppressed(self, trigger: Trigger) -> float:
        seed, settings = derive_seed(self.seed, "distances"), self.settings
        found = suppressed_growth(
            self.subject, self.images, trigger, settings.suppression, settings.inversion, seed=seed
        )
        return found.growth

    def _surrogate_features(self, pair: Pair, trigger: Trigger | None) -> Values:
        before, clean = self.states["before"].sizes, self.states["surrogate"].sizes
        changes = [growth.log_growth(p, before, clean) for p in (*self.chosen.withheld, *self.chosen.trained)]
        own, other = growth.log_size(pair, before), growth.log_size(pair, clean)
        known = [change for change in changes if change is not None]
        gap = None if own is None or other is None else surrogate_gap(own, other, known)
        return {"surrogate_gap": gap, "surrogate_success": self._success("surrogate", trigger)}

    def _growth(self, pair: Pair, trigger: Trigger | None) -> Values:
        before, after = self.states["before"].sizes, self.states["hardened"].sizes
        first, second = growth.asymmetry(pair, before), growth.asymmetry(pair, after)
        controls = [*self.chosen.withheld, *self.chosen.trained]
        return {
            "growth_residual": growth.growth_residual(pair, before, after, controls),
            "rank_jump": growth.rank_jump(pair, before, after),
            "asymmetry_change": None if first is None or second is None else second - first,
            "hardened_success": self._success("hardened", trigger),
        }

    def _withheld(self, pair: Pair, trigger: Trigger | None) -> Values:
        before, after = self.states["before"].sizes, self.states["withheld"].sizes
        return {
            "withheld_residual": growth.growth_residual(pair, before, after, self.chosen.withheld),
            "withheld_success": self._success("withheld", trigger),
        }

    def _bursts(self, pair: Pair, trigger: Trigger | None) -> Values:
        before, withheld, burst = (self.states[state].sizes for state in ("before", "withheld", "burst"))
        own, later = growth.log_growth(pair, before, withheld), growth.log_growth(pair, withheld, burst)
        kept, left = self._success("withheld", trigger), self._success("burst", trigger)
        return {
            "burst_residual": growth.growth_residual(pair, withheld, burst, self.chosen.withheld),
            "burst_contrast": growth.contrast(own, later),
            "burst_drop": None if kept is None or left is None else kept - left,
        }

    def _success(self, state: str, trigger: Trigger | None) -> float | None:
        """Of the trigger found before, on the held-back images, with another network."""
        return None if trigger is None else held_success(self.subjects[state], self.samples.held, trigger)

    def _size(self, pair: Pair) -> float:
        return self.states["before"].sizes[pair]


def _there(trigger: Trigger | None) -> Trigger:
    assert trigger is not None
    return trigger
