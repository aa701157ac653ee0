"""What every scanner must do."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..core.records import from_json, to_dict, to_json
from ..core.statistics import PROBABILITY_FLOOR
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..scanners.base import Scanner
from ..scanners.result import ScanResult
from .contract import BUDGET_S, SEED, PluginContract
from .planted import SLOW_S, Failing, NotANumber, PlantedNet, around, make_subject, planted_samples, slow
from .surroundings import devices, first_images, odd, on_device, require, require_same, snapshot


class ScannerContract(PluginContract[ScanResult]):
    """Subclass it in a test module, under a name that begins with Test, and say which ``scanner``.

    ``settings``: those with which it is quick. A scanner that can say nothing about three classes of 16 x 16 images
    overrides ``subject`` and ``samples``; every scan gets fresh ones.
    """

    scanner: ClassVar[type[Scanner]]
    gives: ClassVar[str] = "verdicts"

    def plugin(self) -> type[Scanner]:
        """The scanner."""
        return self.scanner

    def subject(self) -> Subject:
        """A network in which 2 pixels turn class 2 into 0, where 12 are needed otherwise."""
        return make_subject(PlantedNet(backdoor=(2, 0, 6.0)))

    def samples(self) -> Samples:
        """Six images of each of its classes, and six held back."""
        return planted_samples()

    def scan(self, subject: Subject | None = None, samples: Samples | None = None, **how: Any) -> ScanResult:
        """A verdict with the contract's seed."""
        return self.run(subject, samples, **how)

    def verdict(self) -> ScanResult:
        """The verdict on the subject, scanned once for all tests of a class."""
        return self.result()

    def same(self, one: ScanResult, other: ScanResult) -> bool:
        """Whether all is the same but how long it took."""
        first, second = ({**to_dict(verdict), "seconds": None} for verdict in (one, other))
        return first == second

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
        require(from_json(ScanResult, to_json(verdict)) == verdict, "the verdict read back from JSON is another one")

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
        with self.in_time():
            verdict = self.scan(slow(self.subject(), self.samples()), time_budget=BUDGET_S)
        late = verdict.outcome == "not judged" and verdict.skip == "time-out"
        in_time = verdict.seconds <= BUDGET_S + SLOW_S
        require(late or in_time, f"it was late but said {verdict.outcome}: {verdict.reason}")
