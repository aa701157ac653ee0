"""What every hardener must do, run for each one that is installed."""

import pytest
import torch
from toys import PlantedNet, make_samples, make_subject, planted_images, square_samples, trained_subject

from trojai_moth.errors import MothError, SettingsError
from trojai_moth.hardener import Hardener, HardeningTrace, hardeners, make_hardener
from trojai_moth.records import from_json, to_json

from .fake_scanner import Entry, install

NAMES = sorted(hardeners())
# Settings with which each hardener is done in a second or two.
SMALL = {
    "moth": {"rounds": 2, "pairs_per_round": 2, "sgd_steps": 4, "recovery_steps": 4, "batch": 32},
    "nad": {"teacher_epochs": 1, "epochs": 2, "recovery_steps": 4},
    "nc-unlearn": {"images_per_class": 4, "inversion_steps": 30, "epochs": 2, "recovery_steps": 4},
    "pairwise": {"passes": 1, "pairs_per_round": 2, "sgd_steps": 4, "recovery_steps": 4, "largest_share": 1.0},
    "pgd": {"rounds": 2, "sgd_steps": 4, "steps": 2, "recovery_steps": 4},
    "uap": {"rounds": 2, "sgd_steps": 4, "recovery_steps": 4},
    "universal": {"passes": 1, "targets_per_round": 2, "sgd_steps": 4, "recovery_steps": 4, "largest_share": 1.0},
}


def test_every_hardener_has_small_settings():
    assert sorted(SMALL) == NAMES


@pytest.fixture(scope="module")
def trained():
    return trained_subject()


class Case:
    """The same hardening twice, with the global random stream moved in between, and what went in."""

    def __init__(self, name, trained):
        self.name, self.subject, self.samples, self.words = name, trained.clone(), square_samples(), []
        self.subject.module.body[1].train()  # an odd mode and an odd flag, to see whether they come back
        self.subject.module.body[0].bias.requires_grad_(False)
        self.before = {key: value.clone() for key, value in self.subject.module.state_dict().items()}
        self.images = [pool.x.clone() for pool in (self.samples.train, self.samples.held)]
        self.first = self.harden(7)
        torch.rand(11)
        stream = torch.get_rng_state()
        self.second = self.harden(7)
        self.stream_kept = torch.equal(stream, torch.get_rng_state())

    def harden(self, seed):
        hardener = make_hardener(self.name, SMALL[self.name])
        return hardener(self.subject, self.samples, seed=seed, progress=self.words.append)


@pytest.fixture(scope="module", params=NAMES)
def case(request, trained):
    return Case(request.param, trained)


def weights(subject):
    return list(subject.module.state_dict().values())


def test_the_same_seed_gives_the_same_weights_whatever_the_global_stream(case):
    assert all(
        torch.equal(a, b) for a, b in zip(weights(case.first.subject), weights(case.second.subject), strict=True)
    )
    assert case.first.trace.rounds == case.second.trace.rounds


def test_the_global_stream_is_left_alone(case):
    assert case.stream_kept


def test_the_input_is_untouched(case):
    module = case.subject.module
    assert all(torch.equal(value, case.before[key]) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert [torch.equal(a, b.x) for a, b in zip(case.images, (case.samples.train, case.samples.held), strict=True)]
    assert case.first.subject.module is not module


def test_modes_flags_and_hooks_are_as_before_in_both(case):
    for subject in (case.subject, case.first.subject):
        parts = subject.module.body
        assert [part.training for part in parts] == [number == 1 for number in range(len(parts))]
        flags = {name: parameter.requires_grad for name, parameter in subject.module.named_parameters()}
        assert [name for name, flag in flags.items() if not flag] == ["body.0.bias"]
        assert not any(part._forward_hooks for part in subject.module.modules())


def test_the_weights_are_new_and_finite(case):
    assert any(not torch.equal(a, b) for a, b in zip(weights(case.first.subject), case.before.values(), strict=True))
    assert all(torch.isfinite(value).all() for value in weights(case.first.subject) if value.is_floating_point())
    assert all(parameter.grad is None for parameter in case.first.subject.module.parameters())


def test_batch_norm_statistics_stay(case):
    state = case.first.subject.module.state_dict()
    statistics = [name for name in case.before if "running" in name]
    assert statistics and all(torch.equal(state[name], case.before[name]) for name in statistics)


def test_the_trace_is_whole_and_survives_json(case):
    trace = case.first.trace
    assert from_json(HardeningTrace, to_json(trace)) == trace
    assert trace.hardener == case.name and trace.seed == 7 and trace.seconds > 0 and trace.stopped
    assert trace.settings.items() >= SMALL[case.name].items()
    clean = case.samples.clean
    assert trace.accuracy_before == case.subject.accuracy(clean.x, clean.y)
    assert trace.accuracy_after == case.first.subject.accuracy(clean.x, clean.y)
    assert [part.number for part in trace.rounds] == list(range(trace.rounds[0].number, trace.rounds[-1].number + 1))
    assert any(part.loss is not None for part in trace.rounds)


def test_progress_is_told(case):
    assert len(case.words) >= 2 and all(isinstance(word, str) and word for word in case.words)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_other_weights(name, trained):
    first, other = (make_hardener(name, SMALL[name])(trained, square_samples(), seed=seed) for seed in (1, 2))
    assert any(not torch.equal(a, b) for a, b in zip(weights(first.subject), weights(other.subject), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_guard_takes_a_ruinous_rate_back(name, trained):
    ruinous = {"learning_rate": 50.0, "optimiser": "sgd", "clip_norm": 1e6, "back_offs": 0, "recovery_steps": 0}
    hardened = make_hardener(name, {**SMALL[name], **ruinous})(trained, square_samples(), seed=1)
    trace = hardened.trace
    assert "accuracy guard" in trace.stopped and trace.rounds[-1].taken_back
    assert trace.accuracy_after >= trace.accuracy_before - trace.settings["accuracy_limit"] - 1e-9
    assert all(torch.isfinite(value).all() for value in weights(hardened.subject) if value.is_floating_point())


@pytest.mark.parametrize("name", NAMES)
def test_without_held_back_images_it_refuses(name):
    images = planted_images()
    with pytest.raises(SettingsError, match="held-back"):
        make_hardener(name, SMALL[name])(
            make_subject(PlantedNet()), make_samples(images, images.take(torch.arange(0))), seed=0
        )


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_names_the_hardener(name):
    with pytest.raises(SettingsError, match=f"hardener {name}: nonsense"):
        make_hardener(name, {"nonsense": 1})


class Idle(Hardener):
    """Does nothing."""

    name = "idle"

    def harden(self, work, samples, *, seed, progress):
        return [], "idle"


def test_two_hardeners_of_one_name_are_refused(monkeypatch):
    install(monkeypatch, Entry(Idle, name="a"), Entry(Idle, name="a"), group="trojai_moth.hardeners")
    with pytest.raises(MothError, match="two installed packages offer the hardener 'a'"):
        hardeners()


def test_no_hardener_at_all_says_what_to_run(monkeypatch):
    install(monkeypatch, group="trojai_moth.hardeners")
    with pytest.raises(MothError, match="pip install"):
        hardeners()


def test_an_unknown_hardener_lists_the_known():
    with pytest.raises(SettingsError, match="moth, nad, nc-unlearn, pairwise, pgd, uap, universal"):
        make_hardener("nonsense", {})


def test_two_classes_of_images_are_enough(trained):
    """A class without images is nobody's victim, but can be a target."""
    samples = square_samples()
    few = samples.train.take(torch.nonzero(samples.train.y < 2).flatten())
    for name in NAMES:
        trace = make_hardener(name, SMALL[name])(trained, make_samples(few, samples.held), seed=0).trace
        assert all(victim != 2 for part in trace.rounds for victim, _, _ in part.pairs)
