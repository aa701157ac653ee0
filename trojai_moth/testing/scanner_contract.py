"""What every scanner must do."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from ..core.records import from_dict, from_json, to_dict, to_json
from ..core.statistics import PROBABILITY_FLOOR
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..scanners.base import Scanner
from ..scanners.result import Verdict
from .planted import SLOW_S, Failing, NotANumber, PlantedNet, Slow, around, make_subject, planted_samples
from .surroundings import (
    GRACE_S,
    devices,
    first_images,
    misleading_folder,
    move_streams,
    odd,
    on_device,
    renamed,
    require,
    require_same,
    snapshot,
    streams,
)

SEED = 7


class ScannerContract:
    """Subclass it in a test module, under a name that begins with Test, and say which ``scanner``.

    ``settings``: those with which it is quick. A scanner that can say nothing about three classes of 16 x 16 images
    overrides ``subject`` and ``samples``; every scan gets fresh ones.
    """

    scanner: ClassVar[type[Scanner]]
    settings: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def make(self) -> Scanner:
        """A new scanner with the settings."""
        kind = self.scanner
        return kind(from_dict(kind.settings_type, dict(self.settings), source=f"scanner {kind.name}"))

    def subject(self) -> Subject:
        """A network in which 2 pixels turn class 2 into 0, where 12 are needed otherwise."""
        return make_subject(PlantedNet(backdoor=(2, 0, 6.0)))

    def samples(self) -> Samples:
        """Six images of each of its classes, and six held back."""
        return planted_samples()

    def scan(self, subject: Subject | None = None, samples: Samples | None = None, **how: Any) -> Verdict:
        """A verdict with the contract's seed."""
        return self.make()(subject or self.subject(), samples or self.samples(), seed=SEED, **how)

    def verdict(self) -> Verdict:
        """The verdict on the subject, scanned once for all tests of a class."""
        return self._twice()[0]

    def _twice(self) -> tuple[Verdict, Verdict, bool]:
        """Two verdicts, with the global streams moved in between, and whether the second scan left those alone."""
        kind: Any = type(self)
        if "_verdicts" not in vars(kind):
            first = self.scan()
            move_streams()
            before = streams()
            kind._verdicts = (first, self.scan(), streams() == before)
        found: tuple[Verdict, Verdict, bool] = kind._verdicts
        return found

    def test_it_judges_and_its_verdict_is_whole(self) -> None:
        """Flagged or clean, with a score, a probability, a reason, and the settings and the seed that led there."""
        verdict = self.verdict()
        require(verdict.outcome in ("flagged", "clean"), f"it has not judged the planted network: {verdict.reason}")
        require(verdict.score is not None and math.isfinite(verdict.score), f"its score is {verdict.score}")
        sure = verdict.probability is not None and PROBABILITY_FLOOR <= verdict.probability <= 1 - PROBABILITY_FLOOR
        require(sure, f"its probability is {verdict.probability}")
        require(verdict.scanner == self.scanner.name, f"it signs as {verdict.scanner}, not as {self.scanner.name}")
        require(bool(verdict.reason.strip()), "it gives no reason")
        require(verdict.settings == to_dict(self.make().settings), "the verdict does not hold the settings")
        require(verdict.seed == SEED and verdict.seconds > 0, "the verdict does not hold the seed and the seconds")

    def test_the_same_seed_gives_the_same_verdict(self) -> None:
        """Whatever the global random streams hold."""
        first, second, _ = self._twice()
        same = _content(first) == _content(second)
        require(same, "the same seed gave two verdicts: draw from seeding.generator(seed, ...)")

    def test_global_random_streams_are_left_alone(self) -> None:
        """What runs next must not depend on whether a scanner ran."""
        require(self._twice()[2], "it drew from a global random stream or seeded one")

    def test_nothing_is_changed(self) -> None:
        """Neither the model, whose modes and gradient flags are odd here, nor the images."""
        subject, samples = odd(self.subject()), self.samples()
        before = snapshot(subject, samples)
        verdict = self.scan(subject, samples)
        require(verdict.skip != "changed the model", verdict.reason)
        require_same(before, subject, samples)

    def test_it_scans_on_every_device(self) -> None:
        """On the CPU and, where there is one, on the accelerator; images lie on the CPU."""
        for device in devices():
            verdict = self.verdict() if device.type == "cpu" else self.scan(on_device(self.subject(), device))
            require(verdict.outcome != "not judged", f"on {device}: {verdict.reason}")

    def test_the_verdict_survives_json(self) -> None:
        """As the journal writes it."""
        verdict = self.verdict()
        require(from_json(Verdict, to_json(verdict)) == verdict, "the verdict read back from JSON is another one")

    def test_names_and_files_around_say_nothing(self) -> None:
        """The same network under another id, in a folder whose labels mislead, gets the same verdict."""
        expected, subject = _content(self.verdict()), renamed(self.subject())
        with misleading_folder():
            found = _content(self.scan(subject))
        require(found == expected, "the verdict depends on the model's id, its file's hash or files around")

    def test_what_is_broken_is_not_judged(self) -> None:
        """A network that fails, one that gives no numbers, and one without images: a reason, and never "clean"."""
        network, images = self.subject(), self.samples()
        cases = {
            "a network that fails": (around(network, Failing), images),
            "a network that gives nan": (around(network, NotANumber), images),
            "a network without images": (network, first_images(images, 0)),
        }
        for words, (subject, samples) in cases.items():
            verdict = self.scan(subject, samples)
            require(verdict.outcome == "not judged", f"{words} was called {verdict.outcome}: {verdict.reason}")
            require(bool(verdict.reason.strip()), f"{words} was not judged, but no reason is given")

    def test_it_ends_when_its_time_is_over(self) -> None:
        """On a network that takes longer for one batch than the whole budget."""
        budget, started = SLOW_S / 3, time.monotonic()
        verdict = self.scan(around(self.subject(), Slow), time_budget=budget)
        seconds = time.monotonic() - started
        require(seconds < GRACE_S, f"it went on for {seconds:.0f} s with a time budget of {budget} s")
        late = verdict.outcome == "not judged" and verdict.skip == "time-out"
        require(late or verdict.seconds <= budget + SLOW_S, f"it was late but said {verdict.outcome}: {verdict.reason}")


def _content(verdict: Verdict) -> dict[str, Any]:
    """All of a verdict but how long it took."""
    return {name: value for name, value in to_dict(verdict).items() if name != "seconds"}
