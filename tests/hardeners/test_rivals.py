"""Each rival's own part: what it is trained on, and that this does something."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rewritings import backdoored_subject, patched
from toys import SIZE, make_samples, square_images, square_samples, trained_subject

from trojai_moth.core.seeding import generator
from trojai_moth.hardeners import ft_sam, i_bau, nad, nc_unlearn, pgd, seam, trainer, trigger_batches, uap
from trojai_moth.hardeners.ft_sam import FtSam, FtSamSettings, sharp_loss
from trojai_moth.hardeners.i_bau import IBau, IBauSettings, changed, hypergradient_loss, shared_change, unlearning_loss
from trojai_moth.hardeners.nad import (
    Nad,
    NadSettings,
    activations_at,
    attention_distance,
    attention_places,
    make_teacher,
)
from trojai_moth.hardeners.nc_unlearn import NcUnlearn, NcUnlearnSettings, outliers
from trojai_moth.hardeners.pairwise import Pairwise, PairwiseSettings
from trojai_moth.hardeners.pgd import Pgd, PgdTrainingSettings
from trojai_moth.hardeners.seam import Seam, SeamSettings, forget
from trojai_moth.hardeners.trainer import Trainer, cross_entropy
from trojai_moth.hardeners.trigger_batches import TriggerSettings
from trojai_moth.hardeners.uap import Uap, UapSettings
from trojai_moth.hardeners.universal import Universal, UniversalSettings
from trojai_moth.synthesis.pgd import pgd_accuracy
from trojai_moth.synthesis.settings import PgdSettings
from trojai_moth.triggers.inversion import invert
from trojai_moth.triggers.task import InversionSettings
from trojai_moth.triggers.trigger import Trigger

GENTLE = {"learning_rate": 1e-3, "batch": 32, "recovery_steps": 10}
BOX = 0.15


@pytest.fixture(scope="module")
def trained():
    return trained_subject()


def sizes_of(subject, pairs, seed=0):
    """Sizes of triggers on fresh images, infinite where none works."""
    images = square_images(10, seed=99)
    settings = InversionSettings(steps=100, success_bound=0.9, stall_steps=100)
    visits, _ = trigger_batches.fresh_triggers(subject, images, pairs, settings, seed)
    return np.array([np.inf if size is None else size for _, _, size in visits])


class Recorder:
    """Calls a function and keeps what went in and what came out."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, *given, **named):
        result = self.function(*given, **named)
        self.calls.append((given, named, result))
        return result


def record(monkeypatch, module, name):
    recorder = Recorder(getattr(module, name))
    monkeypatch.setattr(module, name, recorder)
    return recorder


@pytest.mark.parametrize("passes", [1, 2])
def test_universal_covers_every_target_in_every_pass(trained, passes):
    settings = UniversalSettings(passes=passes, targets_per_round=2, sgd_steps=1, largest_share=1.0, **GENTLE)
    trace = Universal(settings)(trained, square_samples(), seed=0).trace
    visits = [pair for part in trace.rounds for pair in part.pairs]
    assert Counter((victim, target) for victim, target, _ in visits) == {(None, t): passes for t in range(3)}
    assert len(trace.rounds) == -(-3 * passes // 2)


def test_universal_triggers_grow(trained):
    settings = UniversalSettings(passes=4, targets_per_round=3, sgd_steps=15, largest_share=0.5, **GENTLE)
    hardened = Universal(settings)(trained, square_samples(), seed=0)
    targets = [(None, target) for target in range(3)]
    before, after = sizes_of(trained, targets), sizes_of(hardened.subject, targets)
    assert np.median(after / before) > 1.1


@pytest.mark.parametrize("passes", [1, 2])
def test_pairwise_visits_both_directions_of_every_pair(trained, passes):
    settings = PairwiseSettings(passes=passes, pairs_per_round=2, sgd_steps=1, **GENTLE)
    trace = Pairwise(settings)(trained, square_samples(), seed=0).trace
    visits = Counter((victim, target) for part in trace.rounds for victim, target, _ in part.pairs)
    assert visits == {(v, t): passes for v in range(3) for t in range(3) if v != t}
    for part in trace.rounds:
        directed = {(victim, target) for victim, target, _ in part.pairs}
        assert directed == {(target, victim) for victim, target in directed}


def test_pairwise_reuses_nothing(trained, monkeypatch):
    """Every visit starts at random, elsewhere than before, and runs all of its steps."""
    calls = record(monkeypatch, trigger_batches, "invert").calls
    settings = PairwiseSettings(passes=2, pairs_per_round=3, inversion_steps=30, sgd_steps=1, **GENTLE)
    Pairwise(settings)(trained, square_samples(), seed=0)
    assert len(calls) == 2
    (first, _, result), (second, _, again) = calls
    order = [list(zip(r.task.victims, r.task.targets.tolist(), strict=True)) for r in (result, again)]
    assert order[0] == order[1]
    for mask_a, mask_b in zip(first[4][0], second[4][0], strict=True):
        assert not torch.allclose(mask_a, mask_b, atol=0.1)
        assert mask_a.mean() == pytest.approx(0.5, abs=0.1)
    assert (result.steps == 30).all() and (again.steps == 30).all()


def test_pairwise_distances_grow(trained):
    settings = PairwiseSettings(passes=4, pairs_per_round=3, sgd_steps=15, largest_share=0.5, **GENTLE)
    hardened = Pairwise(settings)(trained, square_samples(), seed=0)
    pairs = [(v, t) for v in range(3) for t in range(3) if v != t]
    before, after = sizes_of(trained, pairs), sizes_of(hardened.subject, pairs)
    assert np.median(after / before) > 1.3


@pytest.mark.parametrize("kind, settings", [(Universal, UniversalSettings), (Pairwise, PairwiseSettings)])
def test_triggers_that_are_too_large_are_not_trained_on(kind, settings, trained):
    trace = kind(settings(passes=1, sgd_steps=1, largest_share=1e-6))(trained, square_samples(), seed=0).trace
    assert all(part.loss is None for part in trace.rounds) and isinstance(kind().settings, TriggerSettings)
    assert any(size for part in trace.rounds for _, _, size in part.pairs)


@pytest.fixture(scope="module")
def backdoored():
    return backdoored_subject()


def attack_success(subject):
    images = square_images(20, seed=55)
    others = images.x[images.y != 1]
    return float((subject.logits(patched(others)).argmax(1) == 1).float().mean())


def test_nc_unlearn_finds_the_planted_target_and_unlearns_it(backdoored):
    samples = square_samples()
    assert attack_success(backdoored) > 0.95
    settings = NcUnlearnSettings(rounds=10, images_per_class=6, sgd_steps=20, **GENTLE)
    hardened = NcUnlearn(settings)(backdoored, samples, seed=0)
    assert {(victim, target) for part in hardened.trace.rounds for victim, target, _ in part.pairs} == {(None, 1)}
    before, after = (sizes_of(subject, [(None, 1)])[0] for subject in (backdoored, hardened.subject))
    assert after > 1.5 * before
    assert attack_success(hardened.subject) < 0.2


def test_nc_unlearn_looks_for_what_is_left_and_keeps_the_last_triggers(backdoored, monkeypatch):
    inversions = record(monkeypatch, trigger_batches, "invert").calls
    stamps = record(monkeypatch, trainer, "stamped").calls
    settings = NcUnlearnSettings(rounds=6, sgd_steps=1, kept_triggers=2, fewest_steps=5, inversion_steps=30, **GENTLE)
    NcUnlearn(settings)(backdoored, square_samples(), seed=0)
    steps = [given[3].steps for given, _, _ in inversions if len(given[2]) == 1]
    assert len(steps) == 5 and all(5 <= count <= 30 for count in steps) and len(set(steps)) > 1
    shown = [trigger for given, _, _ in stamps for trigger in given[1:2]]
    assert len({id(trigger) for trigger in shown[-2:]}) == 2 and len({id(trigger) for trigger in shown}) > 2


def test_nc_unlearn_takes_pairs_where_no_target_stands_out(trained, monkeypatch):
    """Of an all-to-all backdoor no universal trigger is small; what stands out are pairs."""
    small, large = ({pair: size for pair in ((0, 1), (1, 2))} for size in (2, 40))
    sizes = {(None, 0): 40, (None, 1): 42, (None, 2): 44, (0, 2): 41, (1, 0): 43, (2, 0): 45, (2, 1): 39}

    def found(subject, images, rows, settings, seed):
        triggers = [of_size(target, {**sizes, **small}[victim, target], victim) for victim, target in rows]
        return [], triggers

    monkeypatch.setattr(nc_unlearn, "fresh_triggers", found)
    settings = NcUnlearnSettings(rounds=1, sgd_steps=1, **GENTLE)
    hardened = NcUnlearn(settings)(trained, square_samples(), seed=0)
    assert {(victim, target) for victim, target, _ in hardened.trace.rounds[0].pairs} == set(small)
    small = large
    hardened = NcUnlearn(settings)(trained, square_samples(), seed=0)
    assert {(victim, target) for victim, target, _ in hardened.trace.rounds[0].pairs} == {(None, 0)}


def test_nc_unlearn_without_any_trigger_changes_nothing(trained):
    settings = NcUnlearnSettings(inversion_steps=1)
    hardened = NcUnlearn(settings)(trained, square_samples(), seed=0)
    assert hardened.trace.rounds == () and "no universal trigger" in hardened.trace.stopped
    for a, b in zip(trained.module.parameters(), hardened.subject.module.parameters(), strict=True):
        assert torch.equal(a, b)


def of_size(target, pixels, victim=None):
    mask = torch.zeros(1, SIZE, SIZE)
    mask.flatten()[:pixels] = 1
    return Trigger(victim, target, mask, torch.ones(3, SIZE, SIZE))


def test_outliers_are_those_far_below_the_others_smallest_first():
    triggers = [of_size(target, pixels) for target, pixels in enumerate((40, 3, 42, 44, 2, 46, 43))]
    sizes = [trigger.size for trigger in triggers]
    assert [trigger.target for trigger in outliers(triggers, sizes, 2.0)] == [4, 1]
    assert outliers(triggers, sizes, 1e9) == outliers(triggers[2:4], sizes[2:4], 2.0) == outliers([], [], 2.0) == []


def attention_gap(student, teacher, x, stages):
    """The sum over stages of the squared difference of two models' maps of images x (N, 3, H, W)."""
    seen = []
    for subject in (student, teacher):
        with activations_at(subject.module, attention_places(student, stages)) as found, torch.no_grad():
            subject.logits(x, len(x))
        seen.append(dict(found))
    return float(attention_distance(*seen))


def test_nad_draws_the_attention_to_the_teachers(trained, monkeypatch):
    """With a teacher that looks elsewhere, learning the labels alone does not bring the attention nearer."""
    samples, x, teacher = square_samples(), square_images(10, seed=5).x, trained_subject(seed=5)
    monkeypatch.setattr(nad, "make_teacher", lambda *_: teacher)
    gaps = {}
    for weight in (0.0, 1000.0):
        settings = NadSettings(epochs=5, stages=2, attention_weight=weight, **GENTLE)
        gaps[weight] = attention_gap(Nad(settings)(trained, samples, seed=3).subject, teacher, x, 2)
    before = attention_gap(trained, teacher, x, 2)
    assert attention_gap(teacher, teacher, x, 2) == 0 < before
    assert gaps[0.0] > 0.8 * before and gaps[1000.0] < 0.5 * before


def test_nads_teacher_is_a_fine_tuned_copy(trained):
    samples = square_samples()
    before = [value.clone() for value in trained.module.state_dict().values()]
    same, teacher = (
        make_teacher(trained, samples, NadSettings(teacher_epochs=epochs, **GENTLE), 0) for epochs in (0, 5)
    )
    assert all(torch.equal(a, b) for a, b in zip(before, trained.module.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, same.module.state_dict().values(), strict=True))
    losses = [F.cross_entropy(subject.logits(samples.train.x), samples.train.y) for subject in (trained, teacher)]
    assert losses[1] < losses[0]


def test_nads_loss_falls(trained):
    settings = NadSettings(teacher_epochs=5, epochs=6, stages=2, **GENTLE)
    losses = [part.loss for part in Nad(settings)(trained, square_samples(), seed=3).trace.rounds]
    assert len(losses) == 6 and min(losses[3:]) < losses[0]


def test_uap_trains_against_one_bounded_change_for_all_images(trained, monkeypatch):
    made = record(monkeypatch, uap, "UniversalPerturbation").calls
    settings = UapSettings(rounds=3, sgd_steps=8, epsilon=BOX, step=BOX / 2, **GENTLE)
    Uap(settings)(trained, square_samples(), seed=0)
    ((_, _, change),) = made
    assert change.value.shape == (3, SIZE, SIZE)
    assert change.value.abs().max() == pytest.approx(BOX) and (change.value != 0).float().mean() > 0.5
    images = square_images(2, seed=1)
    moved = change.on(images)
    assert moved.x.min() >= 0 and moved.x.max() <= 1 and torch.equal(moved.y, images.y)
    free = (images.x + change.value - (images.x + change.value).clamp(0, 1)).abs().sum(0) == 0
    assert torch.allclose((moved.x - images.x)[:, free], change.value[free].expand(len(images), -1), atol=1e-6)


def test_the_universal_perturbation_goes_up_the_loss(trained):
    images, change = square_images(20, seed=1), uap.UniversalPerturbation(trained, BOX, BOX / 4)
    losses = []
    for _ in range(6):
        moved = change.on(images)
        losses.append(float(F.cross_entropy(trained.logits(moved.x), moved.y)))
        change.ascend(images)
    assert losses[-1] > 1.5 * losses[0]
    assert trained.module.body[0].weight.grad is None


@pytest.mark.parametrize("clean_share, moved", [(0.0, 32), (0.25, 24)])
def test_uaps_batches_carry_the_change(trained, monkeypatch, clean_share, moved):
    batches, fit, samples = [], Trainer.fit, square_samples()

    def recorded(self, draw, steps):
        def keep():
            batches.append(draw())
            return batches[-1]

        return fit(self, keep, steps)

    monkeypatch.setattr(Trainer, "fit", recorded)
    settings = UapSettings(rounds=1, sgd_steps=4, epsilon=BOX, step=BOX, clean_share=clean_share, **GENTLE)
    Uap(settings)(trained, samples, seed=0)
    assert len(batches) >= 4
    for batch in batches[:4]:
        distance = torch.cdist(batch.x.flatten(1), samples.train.x.flatten(1), p=float("inf")).amin(1)
        assert (distance <= BOX + 1e-6).all() and int((distance > 0.9 * BOX).sum()) == moved


def test_pgd_trains_on_images_in_the_box_that_raise_the_loss(trained, monkeypatch):
    calls = record(monkeypatch, pgd, "pgd").calls
    settings = PgdTrainingSettings(
        rounds=1, sgd_steps=3, epsilon=BOX, step=BOX / 4, steps=6, clean_share=0.25, **GENTLE
    )
    Pgd(settings)(trained, square_samples(), seed=0)
    assert len(calls) == 3
    for (_, pool, used, _), _, moved in calls:
        assert used == settings and len(pool) == 24  # three quarters of 32
        assert (moved - pool.x).abs().max() <= BOX + 1e-6 and moved.min() >= 0 and moved.max() <= 1
        plain, attacked = (F.cross_entropy(trained.logits(x), pool.y) for x in (pool.x, moved))
        assert attacked > plain


def test_pgd_makes_the_model_robust(trained):
    settings = PgdTrainingSettings(rounds=5, sgd_steps=15, epsilon=BOX, step=BOX / 3, steps=4, **GENTLE)
    hardened = Pgd(settings)(trained, square_samples(), seed=0)
    images, attack = square_images(20, seed=1), PgdSettings(epsilon=BOX, step=BOX / 5, steps=10)
    before, after = (pgd_accuracy(subject, images, attack, seed=0) for subject in (trained, hardened.subject))
    assert after > before + 0.1


def test_adversarial_batches_without_a_clean_share_are_all_moved(trained, monkeypatch):
    calls = record(monkeypatch, pgd, "pgd").calls
    Pgd(PgdTrainingSettings(rounds=1, sgd_steps=1, clean_share=0.0, **GENTLE))(trained, make_few(), seed=0)
    assert [len(given[1]) for given, _, _ in calls] == [32]


def make_few():
    return make_samples(square_images(5, seed=1), square_images(5, seed=2))


def test_invert_is_the_shared_one():
    assert trigger_batches.invert is invert


def test_seam_falls_below_the_bound_and_comes_back(trained, monkeypatch):
    calls = record(monkeypatch, seam, "forget").calls
    settings = SeamSettings(recovery_epochs=12, batch=32, learning_rate=3e-3)
    hardened = Seam(settings)(trained, square_samples(), seed=0)
    ((_, _, accuracies),) = calls
    assert accuracies[0] > 0.9 and accuracies[-1] < settings.forgetting_bound <= min(accuracies[:-1])
    (done,) = hardened.trace.rounds
    assert not done.taken_back and done.accuracy >= hardened.trace.accuracy_before - settings.accuracy_limit


def test_seam_forgets_by_labels_that_are_all_wrong(trained, monkeypatch):
    settings, drawn = SeamSettings(forgetting_steps=3, forgetting_bound=0.0, forgetting_images=20, batch=16), []
    ours = Trainer(trained.clone(), square_samples(), settings, generator(0, "test"))
    monkeypatch.setattr(ours, "random", lambda *given: drawn.append(Trainer.random(ours, *given)) or drawn[-1])
    shown = record(monkeypatch, F, "cross_entropy").calls
    assert len(forget(ours, settings)) == 3
    assert len({tuple(image.flatten().tolist()) for pool in drawn for image in pool.x}) <= 20
    for pool, ((_, labels), _, _) in zip(drawn, shown, strict=True):
        assert (labels != pool.y).all() and labels.min() >= 0 and labels.max() <= 2
    assert len({tuple(labels.tolist()) for (_, labels), _, _ in shown}) == 3


def test_seam_keeps_nothing_that_has_not_recovered(trained):
    settings = SeamSettings(recovery_epochs=1, recovery_steps=0, learning_rate=0.1, forgetting_steps=20, part_ways=())
    hardened = Seam(settings)(trained, square_samples(), seed=0)
    assert hardened.trace.rounds[0].taken_back
    for a, b in zip(trained.module.parameters(), hardened.subject.module.parameters(), strict=True):
        assert torch.equal(a, b)


I_BAU = IBauSettings(
    rounds=6, unlearning_steps=10, ascent_steps=8, ascent_share=0.5, size=0.3, iterations=2, inner_batch=16,
    batch=32, learning_rate=5e-3, recovery_steps=10,
)  # fmt: skip


def change_of(subject, settings=I_BAU):
    return shared_change(Trainer(subject.clone(), square_samples(), settings, generator(3, "test")), settings)


def test_i_baus_change_is_bounded_and_goes_up_the_loss(trained):
    change, images = change_of(trained), square_images(20, seed=1)
    assert change.shape == trained.shape
    assert change.square().mean().sqrt() == pytest.approx(I_BAU.size, rel=1e-4)
    moved = changed(images, change)
    assert moved.x.min() >= 0 and moved.x.max() <= 1 and torch.equal(moved.y, images.y)
    plain, attacked = (float(F.cross_entropy(trained.logits(pool.x), pool.y)) for pool in (images, moved))
    assert attacked > plain + 1
    assert trained.module.body[0].weight.grad is None


def test_i_bau_makes_new_changes_harmless_and_unlearns_the_backdoor(backdoored):
    hardened, images = IBau(I_BAU)(backdoored, square_samples(), seed=0), square_images(20, seed=1)
    losses = []
    for subject in (backdoored, hardened.subject):
        moved = changed(images, change_of(subject))
        losses.append(float(F.cross_entropy(subject.logits(moved.x), moved.y)))
    assert losses[1] < 0.7 * losses[0]
    assert attack_success(backdoored) > 0.95 and attack_success(hardened.subject) < 0.3


@pytest.mark.parametrize("share, moved", [(1.0, 8), (0.25, 2)])
def test_i_baus_batches_carry_the_change_on_a_share(trained, monkeypatch, share, moved):
    calls = record(monkeypatch, i_bau, "changed").calls
    images, settings = square_images(4, seed=1).take(torch.arange(8)), IBauSettings(changed_share=share)
    value = unlearning_loss(trained.module, images, images, torch.zeros(trained.shape), settings)
    assert [len(given[0]) for given, _, _ in calls] == [moved, 8]
    assert float(value.detach()) == pytest.approx(float(F.cross_entropy(trained.logits(images.x), images.y)), rel=1e-5)


class TinyGame:
    """A network of 35 weights in double precision, and losses of a change that it answers with its own best one."""

    def __init__(self):
        stream = torch.Generator().manual_seed(0)
        self.x, *self.weights = (
            torch.randn(*shape, generator=stream, dtype=torch.float64) for shape in ((6, 4), (5, 4), (3, 5))
        )
        for weight in self.weights:
            weight.requires_grad_()

    def loss(self, change):
        first, second = self.weights
        return F.cross_entropy(F.softplus((self.x + change) @ first.T) @ second.T, torch.tensor([0, 1, 2, 0, 1, 2]))

    def inner(self, change):
        return 2.0 * change.square().sum() - self.loss(change)

    def outer(self, change):
        return self.loss(1.5 * change)

    def answer(self):
        change = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        for _ in range(100):
            (slope,) = torch.autograd.grad(self.inner(change), change)
            change = (change - 0.1 * slope).detach().requires_grad_()
        return change

    def outer_with(self, weight, at, step):
        with torch.no_grad():
            weight.view(-1)[at] += step
        value = float(self.outer(self.answer()).detach())
        with torch.no_grad():
            weight.view(-1)[at] -= step
        return value


def test_the_hypergradient_is_a_finite_difference_through_the_best_answer():
    game, step = TinyGame(), 1e-5
    value = hypergradient_loss(game.outer, game.inner, game.answer(), rate=0.1, iterations=100)
    found = torch.autograd.grad(value, game.weights)
    direct = torch.autograd.grad(game.outer(game.answer()), game.weights)
    assert float(value.detach()) == pytest.approx(float(game.outer(game.answer()).detach()))
    for weight, ours, partial in zip(game.weights, found, direct, strict=True):
        for at in range(0, weight.numel(), 4):
            expected = (game.outer_with(weight, at, step) - game.outer_with(weight, at, -step)) / (2 * step)
            assert float(ours.flatten()[at]) == pytest.approx(expected, abs=1e-6)
        assert not torch.allclose(partial, ours, atol=1e-3)


@pytest.mark.parametrize("adaptive", [True, False])
def test_ft_sams_gradient_is_that_of_weights_moved_by_hand(trained, adaptive):
    images, rho = square_images(4, seed=1), 0.3
    module = trained.clone().module.eval()
    sharp_loss(module, images, rho, adaptive).backward()
    by_hand = trained.clone().module.eval()
    weights = list(by_hand.parameters())
    slopes = torch.autograd.grad(cross_entropy(by_hand, images), weights)
    scale = [weight.detach().abs() if adaptive else 1.0 for weight in weights]
    length = sum(float((size * slope).square().sum()) for size, slope in zip(scale, slopes, strict=True)) ** 0.5
    with torch.no_grad():
        for weight, size, slope in zip(weights, scale, slopes, strict=True):
            weight += rho * size * size * slope / length
    cross_entropy(by_hand, images).backward()
    before = trained.module.parameters()
    for ours, moved, first in zip(module.parameters(), weights, before, strict=True):
        assert torch.allclose(ours.grad, moved.grad, atol=1e-6) and torch.equal(ours, first)
        assert not torch.equal(moved, first)


def test_ft_sam_without_a_step_is_plain_and_updates_statistics_once(trained):
    images = square_images(4, seed=1)
    ours, plain = (trained.clone().module for _ in range(2))
    for module in (ours, plain):
        module.train()
        module.body[7].p = 0.0
    sharp_loss(ours, images, 0.0, True).backward()
    cross_entropy(plain, images).backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)
    for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)


def test_ft_sam_trains_on_the_sharp_loss_at_a_falling_rate(trained, monkeypatch):
    calls = record(monkeypatch, ft_sam, "sharp_loss").calls
    rates, set_rate = [], Trainer.set_rate
    monkeypatch.setattr(Trainer, "set_rate", lambda ours, rate=1.0: rates.append(rate) or set_rate(ours, rate))
    settings = FtSamSettings(epochs=2, rho=0.5, adaptive=False, batch=32, rate_decay=0.01, recovery_steps=0)
    hardened = FtSam(settings)(trained, square_samples(), seed=0)
    assert len(hardened.trace.rounds) == 2 and len(calls) == 2 * 3
    assert all(given[2:] == (0.5, False) for given, _, _ in calls)
    assert rates[::2] == pytest.approx([1.0, 0.1])  # the guard sets it back after each round
