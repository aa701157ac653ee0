"""What every scanner must do, run for each one that is installed."""

import math

import pytest
import torch
from toys import PlantedNet, make_subject, planted_samples

from trojai_moth import scanner as contract
from trojai_moth.errors import MothError, SettingsError
from trojai_moth.records import from_json, to_json
from trojai_moth.scanner import Scanner, Verdict, logistic, make_scanner, scanners

from .fake_scanner import install

NAMES = sorted(scanners())


@pytest.fixture(scope="module", params=NAMES)
def verdicts(request):
    """The same scan twice, with the global random stream moved in between, and the module around it."""
    subject, samples = make_subject(PlantedNet(backdoor=(2, 0, 6.0))), planted_samples()
    subject.module.train()
    state = {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}
    first = make_scanner(request.param, {})(subject, samples, seed=7)
    torch.rand(11)
    second = make_scanner(request.param, {})(subject, samples, seed=7)
    return first, second, subject, state


def test_the_same_seed_gives_the_same_verdict(verdicts):
    first, second, _, _ = verdicts
    assert first.evidence == second.evidence and first.score == second.score and first.outcome == second.outcome


def test_the_model_is_left_as_it_was(verdicts):
    _, _, subject, state = verdicts
    assert subject.module.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in subject.module.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in subject.module.state_dict().items())


def test_the_verdict_survives_json(verdicts):
    assert from_json(Verdict, to_json(verdicts[0])) == verdicts[0]


def test_the_verdict_is_whole(verdicts):
    verdict = verdicts[0]
    assert verdict.outcome in ("flagged", "clean")
    assert (verdict.score > 0) == verdict.flagged
    assert 0.02 <= verdict.probability <= 0.98
    assert verdict.reason and verdict.evidence and verdict.settings and verdict.seed == 7 and verdict.seconds > 0
    assert verdict.scanner in NAMES


class Odd(Scanner):
    """A scanner that misbehaves on demand."""

    name = "odd"
    settings_type = contract.Candidate

    def __init__(self, act):
        super().__init__(
            contract.Candidate(victim=0, target=1, size=1.0, success=1, held_success=1, held_images=1, converged=True)
        )
        self.act = act

    def scan(self, subject, samples, *, seed):
        return self.act()


def odd_verdict(score):
    return Verdict(scanner="odd", outcome="clean", score=score, probability=0.5, reason="")


@pytest.mark.parametrize("error", [MothError("bad"), ValueError("bad"), RuntimeError("out of memory")])
def test_a_scanner_that_fails_has_not_judged(error):
    def fail():
        raise error

    verdict = Odd(fail)(make_subject(PlantedNet()), planted_samples(), seed=0)
    assert verdict.outcome == "not judged" and str(error) in verdict.reason


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_has_not_judged(score):
    verdict = Odd(lambda: odd_verdict(score))(make_subject(PlantedNet()), planted_samples(), seed=0)
    assert verdict.outcome == "not judged"


class FakeEntry:
    def __init__(self, name):
        self.name = name

    def load(self):
        return Odd


def test_two_scanners_of_one_name_are_refused(monkeypatch):
    install(monkeypatch, FakeEntry("a"), FakeEntry("a"))
    with pytest.raises(MothError, match="two installed packages"):
        scanners()


def test_no_scanner_at_all_says_what_to_run(monkeypatch):
    install(monkeypatch)
    with pytest.raises(MothError, match="pip install"):
        scanners()


def test_an_unknown_scanner_lists_the_known():
    with pytest.raises(SettingsError, match="neural-cleanse"):
        make_scanner("nonsense", {})


def test_probabilities_are_never_certain():
    assert logistic(1e9) == 0.98 and logistic(-1e9) == 0.02 and logistic(0) == 0.5
