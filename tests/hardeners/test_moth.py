import copy
import dataclasses

import numpy as np
import pytest
import torch
from toys import (
    BRIGHT,
    PlantedNet,
    make_samples,
    make_subject,
    planted_images,
    square_images,
    square_samples,
    trained_subject,
)

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_json, to_json
from trojai_moth.hardeners import moth as module_of_moth
from trojai_moth.hardeners.accuracy_guard import AccuracyGuard
from trojai_moth.hardeners.moth import Moth, warm_up
from trojai_moth.hardeners.moth_settings import MothSettings
from trojai_moth.hardeners.trace import HardeningTrace
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import DistanceSettings
from trojai_moth.triggers.task import InversionSettings

SETTINGS = MothSettings(rounds=8, pairs_per_round=2, learning_rate=1e-3, batch=32)
METER = DistanceSettings(images_per_class=10, steps=80, seeds=(1,))


def harden(subject, samples, settings, seed):
    return Moth(settings)(subject, samples, seed=seed)


@pytest.fixture(scope="module")
def case():
    """A trained subject, a copy of its weights before hardening, its samples, and the result."""
    subject, samples = trained_subject(), square_samples()
    before = copy.deepcopy(subject.module.state_dict())
    return subject, before, samples, harden(subject, samples, SETTINGS, seed=1)


def test_distances_grow_on_fresh_images_and_the_accuracy_stays(case):
    subject, _, samples, hardened = case
    fresh = square_images(20, seed=77)
    old, new = (measure_distances(s, fresh, METER, "squares") for s in (subject, hardened.subject))
    assert old.censored == 0
    ratios = [
        b / a if b else np.inf  # no trigger any more is further than any
        for row_a, row_b in zip(old.distances, new.distances, strict=True)
        for a, b in zip(row_a, row_b, strict=True)
        if a
    ]
    assert len(ratios) == 6
    # Not every pair has to: which ones stay behind depends on rounding, so on threads and on the processor.
    assert np.exp(np.log(ratios).mean()) > 1.2 and max(ratios) > 1.5
    trace = hardened.trace
    assert trace.accuracy_before - trace.accuracy_after <= SETTINGS.accuracy_limit + 1e-9
    assert trace.accuracy_after == hardened.subject.accuracy(samples.clean.x, samples.clean.y)


def test_the_input_is_untouched_and_the_output_is_not_the_input(case):
    subject, before, _, hardened = case
    for name, tensor in subject.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert hardened.subject.module is not subject.module
    assert any(
        not torch.equal(a, b)
        for a, b in zip(hardened.subject.module.parameters(), subject.module.parameters(), strict=True)
    )
    assert not subject.module.training and all(p.requires_grad and p.grad is None for p in subject.module.parameters())


def test_batch_norm_statistics_move_only_when_asked(case):
    subject, before, samples, hardened = case
    statistics = [name for name in before if "running" in name]
    assert statistics
    assert all(torch.equal(hardened.subject.module.state_dict()[name], before[name]) for name in statistics)
    asked = harden(subject, samples, dataclasses.replace(SETTINGS, rounds=1, train_batch_norm=True), seed=1)
    state = asked.subject.module.state_dict()
    kept = all(part.taken_back for part in asked.trace.rounds)
    assert kept or any(not torch.equal(state[name], before[name]) for name in statistics)


def test_the_same_seed_gives_the_same_weights_whatever_the_global_stream(case):
    subject, _, samples, hardened = case
    torch.rand(5)
    again = harden(subject, samples, SETTINGS, seed=1)
    for a, b in zip(again.subject.module.parameters(), hardened.subject.module.parameters(), strict=True):
        assert torch.equal(a, b)
    other = harden(subject, samples, dataclasses.replace(SETTINGS, rounds=1), seed=2)
    assert other.trace.rounds[1].pairs != hardened.trace.rounds[1].pairs


def test_the_trace_holds_every_round_and_survives_json(case):
    trace = case[3].trace
    assert [part.number for part in trace.rounds] == list(range(SETTINGS.rounds + 1))
    assert all(len(part.pairs) == 2 * SETTINGS.pairs_per_round for part in trace.rounds[1:])
    for part in trace.rounds[1:]:  # symmetric: both directions of every pair
        directed = {(victim, target) for victim, target, _ in part.pairs}
        assert directed == {(target, victim) for victim, target in directed}
    assert from_json(HardeningTrace, to_json(trace)) == trace


def test_it_works_with_more_classes_than_a_batch_holds_pairs_of():
    """The public code never stamps at more than about 13 classes; per-class pools must not care."""
    classes = 40
    stream = torch.Generator().manual_seed(0)
    images = ImagePool(torch.rand(3 * classes, 3, 16, 16, generator=stream), torch.arange(classes).repeat(3))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, classes))
    subject = make_subject(module, classes=classes)
    held = ImagePool(images.x, subject.logits(images.x).argmax(1))  # so that the guard has an accuracy to watch
    settings = MothSettings(
        rounds=2, sgd_steps=2, warmup_steps=5, first_steps=30, success_bound=0.5, accuracy_limit=1.0, largest_share=1.0
    )
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        real = module_of_moth.warm_up
        patch.setattr(module_of_moth, "warm_up", lambda s, images, *a: drawn.append(images) or real(s, images, *a))
        trace = harden(subject, make_samples(images, held), settings, seed=0).trace
    assert sorted(drawn[0].y.tolist()) == sorted([*range(classes), *range(classes)])  # 80 images over 40 classes
    assert all(part.loss is not None for part in trace.rounds[1:])


def test_without_held_back_images_it_refuses():
    images = planted_images()
    with pytest.raises(SettingsError, match="held-back"):
        harden(make_subject(PlantedNet()), make_samples(images, images.take(torch.arange(0))), SETTINGS, seed=0)


def test_the_guard_takes_back_a_ruinous_rate_and_stops(case):
    subject, before, samples, _ = case
    settings = dataclasses.replace(SETTINGS, learning_rate=50.0, optimiser="sgd", clip_norm=1e6, back_offs=2)
    hardened = harden(subject, samples, settings, seed=1)
    trace = hardened.trace
    assert sum(part.taken_back for part in trace.rounds) >= 3 and "accuracy guard" in trace.stopped
    assert trace.accuracy_after >= trace.accuracy_before - settings.accuracy_limit
    if all(part.taken_back for part in trace.rounds):
        assert all(torch.equal(t, before[n]) for n, t in hardened.subject.module.state_dict().items())


def test_the_guard_watches_every_pool_and_refuses_infinite_weights():
    subject = make_subject(PlantedNet())
    good, empty = planted_images(), planted_images().take(torch.arange(0))
    wrong = ImagePool(good.x, (good.y + 1) % len(BRIGHT))
    guard = AccuracyGuard(subject, [good, empty, wrong], limit=0.0)
    assert guard.before == [1.0, 0.0]
    assert guard.passes()
    with torch.no_grad():
        subject.module.rows[2] *= 0.0
    assert not guard.passes()
    guard.go_back()
    assert guard.passes()
    with torch.no_grad():
        subject.module.rows[0, 0, 15, 0] = torch.inf
    assert not guard.passes()


def test_warm_up_speed_is_the_share_of_loss_that_went():
    subject, images = make_subject(PlantedNet()), planted_images()
    warm = warm_up(subject, images, InversionSettings(steps=300, success_bound=0.99, stall_steps=300), seed=0)
    assert len(warm.working) == 3 and len(warm.universal()) == 3
    off_diagonal = warm.speed[~np.eye(3, dtype=bool)]
    assert (np.diag(warm.speed) == 0).all()
    # Not 1 for every pair, which is what the public code's dead bookkeeping gives.
    assert (off_diagonal < 1).all() and (off_diagonal > 0.5).all()
    assert len(set(off_diagonal.round(6))) > 1
