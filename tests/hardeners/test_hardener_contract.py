"""What every hardener must do, run for each one that is installed, and what becomes of one that misbehaves."""

import math
import time

import pytest
import torch
from toys import make_samples, square_samples, trained_subject

from trojai_moth.core.errors import MothError, PluginError, SettingsError
from trojai_moth.core.records import record
from trojai_moth.hardeners.base import Hardener
from trojai_moth.hardeners.registry import hardeners, make_hardener
from trojai_moth.hardeners.trace import HardeningRound
from trojai_moth.testing import HardenerContract
from trojai_moth.testing.contract import SEED

NAMES = sorted(hardeners())
# Settings with which each hardener is done in a second or two.
SMALL = {
    "ft-sam": {"epochs": 2, "recovery_steps": 4, "train_batch_norm": False},
    "i-bau": {"rounds": 2, "ascent_steps": 2, "unlearning_steps": 3, "inner_batch": 16, "recovery_steps": 4},
    "moth": {"rounds": 2, "pairs_per_round": 2, "sgd_steps": 4, "recovery_steps": 4, "batch": 32},
    "nad": {"teacher_epochs": 1, "epochs": 2, "recovery_steps": 4},
    "nc-unlearn": {"images_per_class": 4, "inversion_steps": 30, "rounds": 2, "recovery_steps": 4},
    "pairwise": {"passes": 1, "pairs_per_round": 2, "sgd_steps": 4, "recovery_steps": 4, "largest_share": 1.0},
    "pgd": {"rounds": 2, "sgd_steps": 4, "steps": 2, "recovery_steps": 4},
    "seam": {"recovery_epochs": 2, "forgetting_steps": 4, "recovery_steps": 4, "train_batch_norm": False},
    "uap": {"rounds": 2, "sgd_steps": 4, "recovery_steps": 4},
    "universal": {"passes": 1, "targets_per_round": 2, "sgd_steps": 4, "recovery_steps": 4, "largest_share": 1.0},
}


def test_every_hardener_has_small_settings():
    assert sorted(SMALL) == NAMES


class Ours(HardenerContract):
    """The contract, and what only ours promise."""

    def test_the_weights_are_new(self):
        assert not all(torch.equal(a, b) for a, b in zip(weights(self.subject()), self.ours(), strict=True))

    def test_batch_norm_statistics_stay(self):
        before, after = self.subject().module.state_dict(), self.hardened().subject.module.state_dict()
        statistics = [name for name in before if "running" in name]
        assert statistics and all(torch.equal(after[name], before[name]) for name in statistics)

    def test_no_hooks_are_left(self):
        assert not any(part._forward_hooks for part in self.hardened().subject.module.modules())

    def test_the_trace_tells_all_rounds(self):
        trace, clean = self.hardened().trace, self.samples().clean
        assert trace.settings.items() >= self.settings.items()
        assert trace.accuracy_before == self.subject().accuracy(clean.x, clean.y)
        assert [part.number for part in trace.rounds] == list(
            range(trace.rounds[0].number, trace.rounds[-1].number + 1)
        )
        assert any(part.loss is not None for part in trace.rounds)

    def test_progress_is_told_and_another_seed_gives_other_weights(self):
        words = []
        other = self.make()(self.subject(), self.samples(), seed=SEED + 1, progress=words.append)
        assert len(words) >= 2 and all(isinstance(word, str) and word for word in words)
        assert not all(torch.equal(a, b) for a, b in zip(weights(other.subject), self.ours(), strict=True))

    def ours(self):
        return weights(self.hardened().subject)


# The registry is the list: a hardener that is installed is tested.
for _name, _kind in hardeners().items():
    _class = f"Test{_kind.__name__}"
    globals()[_class] = type(_class, (Ours,), {"hardener": _kind, "settings": SMALL.get(_name, {})})


def test_every_hardener_is_tested():
    tested = [kind for kind in Ours.__subclasses__() if globals().get(kind.__name__) is kind]
    assert {kind.hardener.name for kind in tested} == set(NAMES)


def weights(subject):
    return list(subject.module.state_dict().values())


@pytest.fixture(scope="module")
def trained():
    return trained_subject()


@pytest.mark.parametrize("name", NAMES)
def test_the_guard_takes_a_ruinous_rate_back(name, trained):
    ruinous = {"learning_rate": 50.0, "optimiser": "sgd", "clip_norm": 1e6, "back_offs": 0, "recovery_steps": 0}
    hardened = make_hardener(name, {**SMALL[name], **ruinous})(trained, square_samples(), seed=1)
    trace = hardened.trace
    assert "accuracy guard" in trace.stopped and trace.rounds[-1].taken_back
    assert trace.accuracy_after >= trace.accuracy_before - trace.settings["accuracy_limit"] - 1e-9
    assert all(torch.isfinite(value).all() for value in weights(hardened.subject) if value.is_floating_point())


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_names_the_hardener(name):
    with pytest.raises(SettingsError, match=f"hardener {name}: nonsense"):
        make_hardener(name, {"nonsense": 1})


@record
class NoSettings:
    """None."""


class Odd(Hardener):
    """A hardener that does what it is told to."""

    name = "odd"
    settings_type = NoSettings

    def __init__(self, act):
        super().__init__()
        self.act = act

    def harden(self, work, samples, *, seed, progress):
        return self.act(work)


def harden(act, trained, **how):
    return Odd(act)(trained, square_samples(), seed=0, **how)


def one_round(**changes):
    whole = {"number": 1, "pairs": (), "loss": 0.1, "learning_rate": 0.1, "accuracy": 1.0, "taken_back": False}
    return HardeningRound(**{**whole, **changes})


def raising(error):
    def fail(_):
        raise error

    return fail


@pytest.mark.parametrize("error", [ValueError("bad"), RuntimeError("no\nroom"), SystemExit("bad")])
def test_a_hardener_that_fails_is_a_typed_error(error, trained):
    with pytest.raises(PluginError) as caught:
        harden(raising(error), trained)
    assert caught.value.kind == "error" and isinstance(caught.value, MothError)
    assert str(caught.value) == f"{type(error).__name__}: {error}".replace("\n", " ")


@pytest.mark.parametrize("error", [SettingsError("mend it so"), KeyboardInterrupt()])
def test_words_of_our_own_and_ctrl_c_pass_through(error, trained):
    with pytest.raises(type(error)) as caught:
        harden(raising(error), trained)
    assert caught.value is error


def spoilt(change):
    def act(work):
        with torch.no_grad():
            change(work.module)
        return [one_round()], "done"

    return act


def to_nan(module):
    module.body[0].weight[0, 0, 0, 0] = math.nan


def to_double(module):
    module.double()


def to_another_shape(module):
    module.body[8] = torch.nn.Linear(512, 4)


def without_bias(module):
    module.body[0].bias = None


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (spoilt(to_nan), r"left numbers in body\.0\.weight that are not finite"),
        (spoilt(to_double), "shape, kind or device"),
        (spoilt(to_another_shape), r"shape, kind or device of body\.8\.weight"),
        (spoilt(without_bias), "which weights the model has"),
        (lambda _: ([one_round(accuracy=math.nan)], "done"), "gave the accuracy nan"),
        (lambda _: ([one_round(learning_rate=math.inf)], "done"), "learning rate inf"),
        (lambda _: ([one_round(), one_round(loss=math.nan)], "done"), "gave the loss nan"),
        (lambda _: ([one_round(pairs=((0, 1, math.nan),))], "done"), "no number in round 1"),
        (lambda _: ([{"number": 1}], "done"), "returned dict, not a HardeningRound"),
        (lambda _: ([], None), "returned NoneType as the reason"),
    ],
)
def test_what_a_hardener_may_not_leave_or_return(act, words, trained):
    before = [value.clone() for value in weights(trained)]
    with pytest.raises(PluginError, match=f"the hardener odd .*{words}") as caught:
        harden(act, trained)
    assert caught.value.kind == "invalid"
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trained), strict=True))


def test_what_is_right_passes(trained):
    rounds = [one_round(pairs=((None, 1, 3.0), (0, 1, None)), loss=None), one_round(loss=math.inf, taken_back=True)]
    hardened = harden(lambda _: (iter(rounds), "done"), trained)
    assert hardened.trace.rounds == tuple(rounds) and hardened.trace.stopped == "done"


def test_a_hardener_that_hangs_is_a_typed_error(trained):
    started = time.monotonic()
    with pytest.raises(PluginError, match=r"the hardener odd took longer than its time budget of 0\.1 s") as caught:
        harden(lambda _: time.sleep(60), trained, time_budget=0.1)
    assert caught.value.kind == "time-out" and time.monotonic() - started < 10
    with pytest.raises(SettingsError, match="positive number of seconds"):
        harden(lambda _: ([], "done"), trained, time_budget=0)


def test_an_unknown_hardener_lists_the_known():
    names = "ft-sam, i-bau, moth, nad, nc-unlearn, pairwise, pgd, seam, uap, universal"
    with pytest.raises(SettingsError, match=names):
        make_hardener("nonsense", {})


def test_two_classes_of_images_are_enough(trained):
    """A class without images is nobody's victim, but can be a target."""
    samples = square_samples()
    few = samples.train.take(torch.nonzero(samples.train.y < 2).flatten())
    for name in NAMES:
        trace = make_hardener(name, SMALL[name])(trained, make_samples(few, samples.held), seed=0).trace
        assert all(victim != 2 for part in trace.rounds for victim, _, _ in part.pairs)
