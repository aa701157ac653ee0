"""Several scanners as one, by the stated rule."""

import pytest
from fake_scanner import Entry, install
from toys import PlantedNet, make_subject, planted_samples

from trojai_moth.cli.options import parse_assignments
from trojai_moth.core.errors import SettingsError
from trojai_moth.core.records import Field, from_dict, record, to_dict
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.registry import make_scanner, settings_groups
from trojai_moth.scanners.result import Candidate, ScanResult

SIZES = {"alpha": 4.0, "beta": 0.2}


@record
class _Settings:
    says: float | str = Field(default=-1.0, description="a score, or what goes wrong")
    probability: float = 0.5


def _scan(self, subject, samples, *, seed):
    if self.settings.says == "crash":
        raise KeyError("gone")
    if self.settings.says == "silent":
        return self.not_judged("no images")
    found = [
        Candidate(victim=0, target=1, size=SIZES[self.name] + extra, success=1.0, held_success=None, held_images=0,
                  converged=True)
        for extra in (0.0, 1.0)
    ]  # fmt: skip
    return ScanResult(
        scanner=self.name, outcome="flagged" if self.settings.says > 0 else "clean", score=self.settings.says,
        probability=self.settings.probability, reason=f"seed {seed}", evidence=found,
    )  # fmt: skip


def kind(name):
    return type(name, (Scanner,), {"name": name, "settings_type": _Settings, "scan": _scan})


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    install(monkeypatch, *(Entry(kind(name), name=name) for name in SIZES))


def scan(alpha, beta, names="alpha,beta"):
    given = {name: value if isinstance(value, dict) else {"says": value} for name, value in
             (("alpha", alpha), ("beta", beta))}  # fmt: skip
    return make_scanner(names, given)(make_subject(PlantedNet()), planted_samples(), seed=3)


@pytest.mark.parametrize(
    ("alpha", "beta", "outcome", "score", "incomplete"),
    [
        (-1.0, -2.0, "clean", -1.0, False),
        (-1.0, 0.5, "flagged", 0.5, False),
        (1.0, 2.0, "flagged", 2.0, False),
        (1.0, "crash", "flagged", 1.0, True),
        ("silent", 1.0, "flagged", 1.0, True),
        (-1.0, "crash", "not judged", None, False),
        ("silent", -1.0, "not judged", None, False),
        ("silent", "crash", "not judged", None, False),
    ],
)
def test_one_flag_is_enough_and_one_silence_is_never_clean(alpha, beta, outcome, score, incomplete):
    verdict = scan(alpha, beta)
    assert (verdict.outcome, verdict.score, verdict.incomplete) == (outcome, score, incomplete)
    assert verdict.scanner == "alpha,beta" and "alpha: " in verdict.reason and "beta: " in verdict.reason
    flags = [name for name, said in (("alpha", alpha), ("beta", beta)) if not isinstance(said, str) and said > 0]
    assert list(verdict.flagged_by) == flags
    for name, said in (("alpha", alpha), ("beta", beta)):
        assert (f"{name}: not judged: " in verdict.reason) == isinstance(said, str)


def test_the_probability_is_the_largest_and_no_more():
    verdict = scan({"says": 1.0, "probability": 0.6}, {"says": 2.0, "probability": 0.6})
    assert verdict.probability == 0.6


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ((1.0, 2.0), "beta beta alpha alpha"),
        ((2.0, 1.0), "alpha alpha beta beta"),
        ((1.0, "silent"), "alpha alpha"),
    ],
)
def test_the_most_suspicious_scanner_leads_the_evidence_in_its_own_order(scores, order):
    evidence = scan(*scores).evidence
    assert " ".join(candidate.scanner for candidate in evidence) == order
    for name in set(order.split()):
        assert [c.size for c in evidence if c.scanner == name] == [SIZES[name], SIZES[name] + 1]


def test_each_sees_what_it_would_see_alone():
    together = scan(-1.0, -1.0)
    alone = make_scanner("beta", {})(make_subject(PlantedNet()), planted_samples(), seed=3)
    assert f"beta: {alone.reason}" in together.reason
    assert scan(-1.0, -1.0, names="beta, alpha").scanner == "beta,alpha"


def test_settings_come_back_from_the_journals_identity():
    scanner = make_scanner("alpha,beta", {"beta": {"says": 2.0}})
    kept = to_dict(scanner.settings)
    assert kept == {"alpha": {"says": -1.0, "probability": 0.5}, "beta": {"says": 2.0, "probability": 0.5}}
    again = make_scanner("alpha,beta", kept)
    assert again.settings == scanner.settings
    verdict = scanner(make_subject(PlantedNet()), planted_samples(), seed=3)
    assert verdict.settings == kept and from_dict(ScanResult, to_dict(verdict)) == verdict


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        ("alpha,alpha", {}, "alpha is named twice"),
        ("alpha,", {}, "a name is missing"),
        ("alpha,gamma", {}, "gamma: not installed; choose from alpha, beta"),
        ("alpha,beta", {"says": 1}, r"scanner\.says: .*scanner\.NAME\.SETTING=VALUE with NAME one of alpha, beta"),
        ("alpha,beta", {"alpha": 3}, r"scanner\.alpha: "),
        ("alpha,beta", {"alpha": {"sayz": 1}}, "scanner alpha: sayz"),
    ],
)
def test_mistakes_are_named(names, options, words):
    with pytest.raises(SettingsError, match=words):
        make_scanner(names, options)


def test_a_setting_goes_to_one_of_several():
    groups = parse_assignments(["scanner.k-arm.steps=9", "scanner.k-arm.rounds=2", "data.seed=4"], ("scanner", "data"))
    assert groups == {"scanner": {"k-arm": {"steps": 9, "rounds": 2}}, "data": {"seed": 4}}
    with pytest.raises(SettingsError, match="k-arm was given a value"):
        parse_assignments(["scanner.k-arm=9", "scanner.k-arm.steps=2"], ("scanner",))


def test_settings_are_listed_under_the_names_that_set_takes():
    assert settings_groups("alpha") == {"scanner": _Settings}
    assert settings_groups("alpha,beta") == {"scanner.alpha": _Settings, "scanner.beta": _Settings}
    with pytest.raises(SettingsError, match="gamma: not installed"):
        settings_groups("alpha,gamma")
