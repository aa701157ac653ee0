import dataclasses

import pytest
import torch
from torch import nn
from toys import make_samples, square_samples, trained_subject

from trojai_moth.core.images import ImagePool
from trojai_moth.core.seeding import generator
from trojai_moth.core.statistics import anomaly_indices
from trojai_moth.hardeners.fit_settings import FitSettings
from trojai_moth.hardeners.trainer import Trainer, cross_entropy, split_share, stamped
from trojai_moth.hardeners.trigger_batches import small_enough, turns
from trojai_moth.triggers.trigger import Trigger

SETTINGS = FitSettings(batch=8, recovery_steps=0, back_offs=1)


@pytest.fixture(scope="module")
def trained():
    return trained_subject()


def make_trainer(trained, seed=0, samples=None, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return Trainer(trained.clone(), samples or square_samples(), settings, generator(seed))


def ruin(trainer):
    with torch.no_grad():
        trainer.subject.module.body[-1].bias += 1e3 * torch.eye(3)[0]


def trigger(victim=None, target=0, pixels=4):
    mask = torch.zeros(1, 16, 16)
    mask[0, 0, :pixels] = 1.0
    return Trigger(victim, target, mask, torch.ones(3, 16, 16))


def test_fit_lowers_the_loss_it_is_given(trained):
    trainer = make_trainer(trained)
    wrong = ImagePool(trainer.train.x, (trainer.train.y + 1) % 3)
    before = float(cross_entropy(trainer.subject.module, wrong).detach())
    first = trainer.fit(lambda: wrong, 1)
    assert first == pytest.approx(before, rel=1e-4)
    assert trainer.fit(lambda: wrong, 20) < first
    own = trainer.fit(lambda: wrong, 3, lambda module, batch: cross_entropy(module, batch) * 0 + 7)
    assert own == pytest.approx(7)


def test_a_kept_round_grows_the_rate_up_to_its_start_and_a_lost_one_halves_it(trained):
    trainer = make_trainer(trained)
    good = {name: value.clone() for name, value in trainer.subject.module.state_dict().items()}
    ruin(trainer)
    assert not trainer.settle()
    assert trainer.learning_rate == SETTINGS.learning_rate / 2 and trainer.back_offs == 1
    assert all(torch.equal(value, good[name]) for name, value in trainer.subject.module.state_dict().items())
    rates = []
    for _ in range(4):
        assert trainer.settle()
        rates.append(trainer.learning_rate / SETTINGS.learning_rate)
    assert rates == pytest.approx([0.625, 0.78125, 0.9765625, 1.0]) and trainer.back_offs == 0


def test_clean_steps_may_win_the_accuracy_back(trained):
    samples = square_samples()
    trainer = make_trainer(trained, samples=samples, recovery_steps=60, learning_rate=0.02, clip_norm=1e6, batch=32)
    ruined = trainer.subject.module.body[-1]
    with torch.no_grad():
        ruined.weight.mul_(-0.1)
    accuracy = trainer.subject.accuracy(samples.held.x, samples.held.y)
    assert accuracy < 0.5
    assert trainer.settle()
    assert trainer.subject.accuracy(samples.held.x, samples.held.y) >= trainer.guard.before[0] - 0.005 - 1e-6


def test_run_records_every_round_and_ends_after_too_many_lost(trained):
    trainer, words = make_trainer(trained), []

    def play(number):
        if number > 1:
            ruin(trainer)
        return [(0, 1, 3.0)], float(number)

    rounds, stopped = trainer.run(9, play, words.append)
    assert [(part.number, part.loss, part.taken_back) for part in rounds] == [
        (1, 1.0, False),
        (2, 2.0, True),
        (3, 3.0, True),
    ]
    assert rounds[0].pairs == ((0, 1, 3.0),) and "accuracy guard: 2 rounds" in stopped
    assert words == ["round 1/9", "round 2/9", "round 3/9"]
    rounds, stopped = make_trainer(trained).run(1, lambda number: ((), None), words.append, first=0)
    assert [part.number for part in rounds] == [0, 1] and stopped == "all rounds done"


def test_stamped_batches_are_half_clean_and_stamp_the_right_images(trained):
    trainer = make_trainer(trained, batch=16)
    pair, universal = trigger(victim=2, target=0), trigger(victim=None, target=1)
    batch = trainer.stamped_batch([pair, universal])
    assert len(batch) == 16
    lit = (batch.x[:, :, 0, :4] == 1).flatten(1).all(1)
    assert lit.tolist() == [False] * 8 + [True] * 8
    assert set(batch.y[8:12].tolist()) == {2} and 1 not in batch.y[12:].tolist()


def test_random_takes_no_image_twice_before_all_are_taken(trained):
    trainer = make_trainer(trained)
    pool = ImagePool(torch.arange(5.0), torch.arange(5))
    trainer.train = pool
    assert sorted(trainer.random(torch.arange(5), 5).y.tolist()) == list(range(5))
    drawn = trainer.random(torch.arange(2), 5).y.tolist()
    assert sorted(drawn) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


def test_per_class_draws_different_images_of_each_class_in_order(trained):
    trainer = make_trainer(trained)
    drawn = trainer.per_class([2, 0], 4)
    assert drawn.y.tolist() == [2, 2, 2, 2, 0, 0, 0, 0]
    assert len(drawn.x.flatten(1).unique(dim=0)) == 8
    assert len(trainer.per_class([1], 10_000)) == 30


def test_the_optimiser_and_batch_norm_settings_do_something(trained):
    finals = []
    for changes in ({}, {"optimiser": "sgd"}, {"train_batch_norm": True}):
        trainer = make_trainer(trained, **changes)
        trainer.fit(trainer.clean_batch, 3)
        finals.append({name: value.clone() for name, value in trainer.subject.module.state_dict().items()})
    plain, sgd, trained_norm = finals
    assert not torch.equal(plain["body.0.weight"], sgd["body.0.weight"])
    assert torch.equal(plain["body.1.running_mean"], sgd["body.1.running_mean"])
    assert not torch.equal(plain["body.1.running_mean"], trained_norm["body.1.running_mean"])


def test_dropout_draws_from_the_trainers_stream_and_leaves_the_global_one_alone(trained):
    finals = []
    for extra in (0, 7):
        torch.rand(extra)
        before = torch.get_rng_state()
        trainer = make_trainer(trained, train_batch_norm=True)
        trainer.fit(trainer.clean_batch, 3)
        assert torch.equal(before, torch.get_rng_state())
        finals.append(trainer.subject.module.body[-1].weight.detach().clone())
    assert torch.equal(*finals)


def test_an_epoch_sees_as_many_images_as_there_are(trained):
    assert make_trainer(trained, batch=8).epoch_steps == 12  # of 90 images
    images = square_samples()
    few = make_samples(images.train.take(torch.arange(3)), images.held)
    assert make_trainer(trained, samples=few).epoch_steps == 1


def test_side_outputs_of_a_training_googlenet_do_not_count():
    class Sided(nn.Module):
        def forward(self, x):
            return x, x + torch.tensor([0.0, 5.0, 0.0])

    batch = ImagePool(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert float(cross_entropy(Sided(), batch)) == pytest.approx(float(torch.tensor(3.0).log()))


def test_stamping_changes_the_masked_pixels_alone():
    pool = ImagePool(torch.zeros(2, 3, 16, 16), torch.tensor([1, 2]))
    out = stamped(pool, trigger(pixels=3))
    assert out.x.sum() == 2 * 3 * 3 and torch.equal(out.y, pool.y) and pool.x.sum() == 0


def test_every_item_has_its_turn_and_none_twice_in_a_round():
    for count, per_round, passes in ((5, 4, 3), (3, 10, 2), (6, 2, 1)):
        order = turns(list(range(count)), per_round, passes, generator(0))
        assert sorted(item for part in order for item in part) == sorted(list(range(count)) * passes)
        assert all(len(set(part)) == len(part) <= per_round for part in order)
    assert turns([], 4, 2, generator(0)) == []


def test_large_triggers_and_their_share():
    assert [t.size for t in small_enough([trigger(pixels=2), trigger(pixels=9)], 16 * 16, 0.02)] == [2.0]


def test_a_batch_is_split_into_a_clean_share_and_a_rest_that_is_never_empty():
    pool = ImagePool(torch.zeros(10, 1), torch.arange(10))
    for share, cut in ((0.0, 0), (0.5, 5), (0.99, 9)):
        clean, rest = split_share(pool, share)
        assert (clean.y.tolist(), rest.y.tolist()) == (list(range(cut)), list(range(cut, 10)))


def test_anomaly_indices_need_three_sizes_and_some_spread():
    assert anomaly_indices([1.0, 2.0]) is None and anomaly_indices([3.0, 3.0, 3.0]) is None
    indices = anomaly_indices([1.0, 10.0, 11.0, 12.0, 13.0])
    assert indices[0] > 2 and max(indices[1:]) < 2


def test_a_round_s_weights_are_the_average_of_those_after_its_steps(trained):
    """Two single steps, settled as one round: a quarter of the way from the first step's weights to the second's."""

    def flat(trainer):
        return torch.cat([value.flatten() for value in trainer.subject.module.parameters()])

    seen = {}
    for decay in (0.0, 0.75):
        trainer = make_trainer(trained, average_decay=decay, accuracy_limit=1.0, learning_rate=1e-2)
        wrong = ImagePool(trainer.train.x, (trainer.train.y + 1) % 3)
        steps = []
        for _ in range(2):
            trainer.fit(lambda images=wrong: images, 1)
            steps.append(flat(trainer).detach().clone())
        assert trainer.settle()
        seen[decay] = steps, flat(trainer).detach()
    (first, second), last = seen[0.0]
    assert torch.equal(last, second) and not torch.allclose(first, second)
    (first, second), averaged = seen[0.75]
    torch.testing.assert_close(averaged, first + 0.25 * (second - first))
