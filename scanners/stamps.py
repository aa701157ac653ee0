"""Plain stamps: no trigger is searched, but the one that rounds 1 to 4 draw is tried, everywhere and in every colour.

A disc of each of eight colours is put all over a few images of every class. A pair is suspicious when one colour turns
its victim almost wherever it is put, when taking a piece away from images of the target does not give the victim, and
when the same stamp does next to nothing to clean networks of the same classes, which are trained on the spot (the
blind verdict's evidence, triggers/stamps.py). All three must hold, so that a model's score is that of its best pair's
weakest point. Triggers that are no compact patch of one colour are not seen by this scanner.
"""

from __future__ import annotations

import math
from typing import ClassVar

from ..core.errors import MothError
from ..core.records import Field, record
from ..core.seeding import derive_seed
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..synthesis.clean_networks import SurrogateSettings, train_surrogate
from ..triggers.stamps import StampBounds, StampSettings, StampTables, stamp_gap
from ..triggers.trigger import Pair
from .base import Scanner
from .result import Candidate, ScanResult


@record
class StampScanSettings:
    """Settings of the stamp scanner."""

    bounds: StampBounds = Field(default_factory=StampBounds, description="what a suspicious pair is within")
    candidates: int = Field(default=5, gt=0, le=1_000_000, description="pairs that are tried on clean networks, too")
    clean_networks: int = Field(
        default=2, ge=0, le=1_000_000, description="clean networks of the same classes; 0: without that test"
    )
    clean_training: SurrogateSettings = Field(
        default_factory=lambda: SurrogateSettings(network="plain"), description="how those networks are trained"
    )
    stamps: StampSettings = Field(default_factory=StampSettings, description="which stamps are tried")


class Stamps(Scanner):
    """Stamps of one colour on every class; the evidence lists the pairs that they turn, size being the stamp's area."""

    name: ClassVar[str] = "stamps"
    settings_type: ClassVar[type] = StampScanSettings
    settings: StampScanSettings

    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> ScanResult:
        """Score of the most suspicious pair: how far it is within its nearest bound, in log odds."""
        settings = self.settings
        if len(set(samples.train.y.tolist())) < 2:
            return self.not_judged("example images of fewer than 2 classes; at least 2 are needed")
        tables = StampTables(subject, samples.train, settings.stamps)
        if not bool((tables.stamps.isfinite().all() & tables.removals.isfinite().all()).item()):
            return self.not_judged("the network's outputs are not finite on stamped images")
        pairs = tables.suspects(settings.candidates)
        before = {pair: tables.weakest(pair, None, settings.bounds) for pair in pairs}
        gaps: dict[Pair, float] = {}
        if settings.clean_networks and max(before.values()) > 0:  # else no gap can make a pair suspicious
            gaps = self._gaps(subject, samples, tables, pairs, seed)
        scores = {pair: tables.weakest(pair, gaps.get(pair), settings.bounds) for pair in pairs}
        order = sorted(pairs, key=lambda pair: -scores[pair])
        words = self._words(tables, order[0], gaps.get(order[0]))
        return self.judged(scores[order[0]], words, [self._candidate(subject, tables, pair) for pair in order])

    def _gaps(
        self, subject: Subject, samples: Samples, tables: StampTables, pairs: tuple[Pair, ...], seed: int
    ) -> dict[Pair, float]:
        """Of every pair; empty where no clean network learned the classes from these images."""
        victims, shown = {victim for victim, _ in pairs}, []
        for number in range(self.settings.clean_networks):
            own = derive_seed(seed, self.name, number)
            try:
                clean = train_surrogate(subject, samples.train, samples.held, self.settings.clean_training, seed=own)
            except MothError:  # too few images to train on, or none to check it on
                break
            shown += [] if clean is None else [tables.on(clean, victims).success]
        return {pair: stamp_gap(tables.stamps, shown, pair) for pair in pairs} if shown else {}

    def _words(self, tables: StampTables, pair: Pair, gap: float | None) -> str:
        bounds = self.settings.bounds
        beside = "no clean network was asked" if gap is None else f"gap to clean networks {gap:.1f}"
        broad = f"breadth {tables.breadth(pair):.2f} (bound {bounds.breadth:.2f}), " if bounds.breadth else ""
        return (
            f"{pair[0]}->{pair[1]} turns with a plain stamp, success {tables.success(pair):.2f} (bound "
            f"{bounds.success:.2f}), {broad}removal {tables.removal(pair):.2f} (bound "
            f"{bounds.removal:.2f}), {beside} (bound {bounds.gap:.1f})"
        )

    def _candidate(self, subject: Subject, tables: StampTables, pair: Pair) -> Candidate:
        success = tables.success(pair)
        works = success >= self.settings.bounds.success
        area = math.pi * self.settings.stamps.side**2 / 4 * subject.area
        return Candidate(
            victim=pair[0],
            target=pair[1],
            size=area if works else None,
            success=success,
            held_success=None,
            held_images=0,
            converged=works,
        )
