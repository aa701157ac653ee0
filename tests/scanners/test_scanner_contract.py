"""What every scanner must do, run for each one that is installed, and what becomes of one that misbehaves."""

import math
import time

import pytest
import torch
from toys import PlantedNet, make_subject, planted_samples

from trojai_moth.core.errors import MothError, SettingsError
from trojai_moth.core.records import from_json, record, to_json
from trojai_moth.core.statistics import logistic
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.registry import make_scanner, scanners
from trojai_moth.scanners.result import Candidate, ScanResult
from trojai_moth.testing import ScannerContract
from trojai_moth.testing.planted import NotANumber, around

# Settings for scanners that would be slow without; all others are tested as they are.
SMALL = {}


class Ours(ScannerContract):
    def test_there_is_evidence(self):
        assert self.verdict().evidence and self.verdict().skip is None


# The registry is the list: a scanner that is installed is tested.
for _name, _kind in scanners().items():
    _class = f"Test{_kind.__name__}"
    globals()[_class] = type(_class, (Ours,), {"scanner": _kind, "settings": SMALL.get(_name, {})})


def test_every_scanner_is_tested():
    tested = [kind for kind in Ours.__subclasses__() if globals().get(kind.__name__) is kind]
    assert {kind.scanner.name for kind in tested} == set(scanners())


@record
class NoSettings:
    """None."""


class Odd(Scanner):
    """A scanner that does what it is told to."""

    name = "odd"
    settings_type = NoSettings

    def __init__(self, act):
        super().__init__()
        self.act = act

    def scan(self, subject, samples, *, seed):
        return self.act(subject)


def verdict_of(act, subject=None, **how):
    return Odd(act)(subject or make_subject(PlantedNet()), planted_samples(), seed=0, **how)


def said(score=-1.0, outcome="clean", probability=0.3, evidence=()):
    return ScanResult(
        scanner="odd", outcome=outcome, score=score, probability=probability, reason="", evidence=tuple(evidence)
    )


def found(**changes):
    whole = {"victim": 0, "target": 1, "size": 3.0, "success": 1.0, "held_success": 1.0, "held_images": 4}
    return Candidate(**{**whole, "converged": True, **changes})


@pytest.mark.parametrize("error", [MothError("bad"), ValueError("bad"), RuntimeError("no\nroom"), SystemExit("bad")])
def test_a_scanner_that_fails_has_not_judged(error):
    def fail(_):
        raise error

    verdict = verdict_of(fail)
    assert verdict.outcome == "not judged" and verdict.skip == "error" and verdict.flagged is None
    assert verdict.reason == f"{type(error).__name__}: {error}".replace("\n", " ")
    assert from_json(ScanResult, to_json(verdict)) == verdict


def test_ctrl_c_is_no_failure_of_the_scanner():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verdict_of(interrupted)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said(score=math.nan), "gave the score nan"),
        (said(score=math.inf, outcome="flagged"), "gave the score inf"),
        (said(score=None), "gave the score None"),
        (said(score=2.0), "says clean but gave the score 2.0"),
        (said(probability=math.nan), "gave the probability nan"),
        (said(probability=1.0), "gave the probability 1.0"),
        (said(probability=None), "gave the probability None"),
        (said(outcome="not judged"), "judges and does not judge"),
        (said(evidence=[found(size=math.nan)]), "gave the size nan in its evidence"),
        (said(evidence=[found(), found(size=-1.0)]), "gave the size -1.0"),
        (said(evidence=[found(reverse_size=math.inf)]), "gave the reverse_size inf"),
        (said(evidence=[found(success=math.nan)]), "gave the success nan"),
        (said(evidence=[found(held_success=1.5)]), "gave the held_success 1.5"),
        (said(evidence=[found(jitter_success=math.nan)]), "gave the jitter_success nan"),
        (said(evidence=[found(target=3)]), "named the pair 0->3 of 3 classes"),
        (said(evidence=[found(held_images=-1)]), "gave -1 held images"),
        (None, "returned NoneType, not a ScanResult"),
        ({"outcome": "clean"}, "returned dict, not a ScanResult"),
    ],
)
def test_what_is_no_number_and_no_verdict_has_not_judged(answer, words):
    verdict = verdict_of(lambda _: answer)
    assert verdict.outcome == "not judged" and verdict.skip == "invalid" and f"the scanner {words}" in verdict.reason


@pytest.mark.parametrize("answer", [said(), said(evidence=[found(victim=None, size=None, held_success=None)])])
def test_what_is_right_passes(answer):
    verdict = verdict_of(lambda _: answer)
    assert verdict.outcome == "clean" and verdict.skip is None and verdict.evidence == answer.evidence


def test_a_scanner_may_decline_by_itself():
    verdict = Odd(lambda _: None).not_judged("nothing to go by")
    declined = verdict_of(lambda _: verdict)
    assert declined.outcome == "not judged" and declined.skip is None and declined.reason == "nothing to go by"


def test_a_network_that_gives_no_numbers_is_not_clean():
    verdict = verdict_of(lambda _: said(), subject=around(make_subject(PlantedNet()), NotANumber))
    assert verdict.outcome == "not judged" and verdict.skip == "invalid" and "no finite numbers" in verdict.reason


class Buffered(PlantedNet):
    """Has a buffer that is saved, one that is not, and a nan in it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.tensor([1.0, math.nan]))
        self.register_buffer("passing", torch.ones(2), persistent=False)


def replaced(module):
    module.rows = torch.nn.Parameter(module.rows * 2)


def shrunk(module):
    module.rows = torch.nn.Parameter(module.rows[:, :, :8].clone(), requires_grad=False)


CHANGES = {
    "weights": (lambda module: module.rows.data.add_(1e-6), "changed the model's rows"),
    "buffer": (lambda module: module.seen.add_(1), "changed the model's seen"),
    "unsaved buffer": (lambda module: module.passing.zero_(), "changed the model's passing"),
    "mode": (lambda module: module.train(), "training mode"),
    "flags": (lambda module: module.requires_grad_(True), "gradients on"),
    "another parameter": (replaced, "changed the model's rows"),
    "another shape": (shrunk, "changed the model's rows"),
    "a new parameter": (lambda module: module.register_parameter("new", None), None),
    "a new buffer": (lambda module: module.register_buffer("new", torch.ones(1)), "which weights"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_scanner_that_changes_the_model_has_not_judged_and_the_model_is_as_before(change):
    act, words = CHANGES[change]
    subject = make_subject(Buffered())
    subject.module.train()
    subject.module.rows.requires_grad_(False)
    before = {name: value.clone() for name, value in {**subject.module.state_dict()}.items()}

    def meddle(given):
        act(given.module)
        return said()

    verdict = verdict_of(meddle, subject=subject)
    if words is None:  # a name without a tensor changes nothing
        assert verdict.outcome == "clean"
    else:
        assert verdict.outcome == "not judged" and verdict.skip == "changed the model" and words in verdict.reason
    after = subject.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value.nan_to_num(), after[name].nan_to_num()) for name, value in before.items())
    assert subject.module.passing.sum() == 2 and not hasattr(subject.module, "new")
    assert subject.module.training and not subject.module.rows.requires_grad


def test_a_scanner_that_hangs_has_not_judged():
    started = time.monotonic()
    verdict = verdict_of(lambda _: time.sleep(60), time_budget=0.1)
    assert time.monotonic() - started < 10
    assert verdict.outcome == "not judged" and verdict.skip == "time-out"
    assert verdict.reason == "the scanner took longer than its time budget of 0.1 s"


def test_a_scanner_in_time_judges():
    assert verdict_of(lambda _: said(), time_budget=60).outcome == "clean"


@pytest.mark.parametrize("budget", [0, -1.0, math.nan, math.inf])
def test_an_impossible_budget_is_the_callers_mistake(budget):
    with pytest.raises(SettingsError, match="positive number of seconds"):
        verdict_of(lambda _: said(), time_budget=budget)


def test_an_unknown_scanner_lists_the_known():
    with pytest.raises(SettingsError, match="neural-cleanse"):
        make_scanner("nonsense", {})


def test_probabilities_are_never_certain():
    assert logistic(1e9) == 0.98 and logistic(-1e9) == 0.02 and logistic(0) == 0.5
