import math

import pytest
import torch
import torch.nn.functional as F
from toys import BRIGHT, PlantedNet, make_subject, planted_images, square_images, trained_subject

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.records import from_dict, from_json, to_json
from trojai_moth.core.seeding import generator
from trojai_moth.synthesis.pgd import pgd, pgd_accuracy
from trojai_moth.synthesis.settings import PgdSettings

BOX = 0.2
STRONG = PgdSettings(epsilon=BOX, step=BOX / 4, steps=8)


@pytest.fixture(scope="module")
def subject():
    return trained_subject()


@pytest.fixture(scope="module")
def images():
    return square_images(10, seed=3)


def loss_of(subject, x, y):
    return float(F.cross_entropy(subject.logits(x), y))


def test_attacked_images_stay_in_the_box_and_raise_the_loss(subject, images):
    moved = pgd(subject, images, STRONG, generator(0))
    change = (moved - images.x).abs().max()
    assert 0.9 * BOX < change <= BOX + 1e-6
    assert moved.min() >= 0 and moved.max() <= 1
    assert loss_of(subject, moved, images.y) > loss_of(subject, images.x, images.y) + 0.1


def test_more_steps_hurt_more_than_one_from_the_same_start(subject, images):
    one, many = (PgdSettings(epsilon=BOX, step=BOX / 8, steps=steps) for steps in (1, 12))
    losses = [loss_of(subject, pgd(subject, images, settings, generator(0)), images.y) for settings in (one, many)]
    assert losses[1] > losses[0] + 0.05


def test_the_planted_net_falls_exactly_at_the_known_bound():
    """Class v's row loses epsilon per lit pixel and the brightest rival row gains it per pixel: a closed form."""
    subject, images = make_subject(PlantedNet()), planted_images()
    gained = {v: max(count for t, count in enumerate(BRIGHT) if t != v) for v in range(len(BRIGHT))}
    for victim, count in enumerate(BRIGHT):
        own = images.take(images.positions(victim))
        edge = count / (count + gained[victim])  # count * (1 - e) == gained * e
        for epsilon, right in ((0.9 * edge, 1.0), (1.1 * edge, 0.0)):
            settings = PgdSettings(epsilon=epsilon, step=epsilon / 2, steps=10, random_start=False)
            assert pgd_accuracy(subject, own, settings, seed=0) == right


def test_without_a_box_it_is_the_accuracy(subject, images):
    settings = PgdSettings(epsilon=0.0)
    assert pgd_accuracy(subject, images, settings, seed=0) == subject.accuracy(images.x, images.y)
    accuracies = [pgd_accuracy(subject, images, PgdSettings(epsilon=e), seed=0) for e in (0.02, 0.5)]
    assert accuracies[0] > accuracies[1]


def test_what_is_wrong_already_is_not_robust(subject, images):
    wrong = (images.y + 1) % 3
    assert pgd_accuracy(subject, type(images)(images.x, wrong), PgdSettings(epsilon=0.5), seed=0) == 0.0


@pytest.mark.parametrize("batch_images", [1, 7])
def test_the_batch_size_does_not_matter(subject, images, batch_images):
    split = PgdSettings(epsilon=BOX, batch_images=batch_images)
    whole = PgdSettings(epsilon=BOX, batch_images=1000)
    one, other = (pgd(subject, images, settings, generator(5)) for settings in (split, whole))
    assert float(((one - other).abs() < 1e-5).float().mean()) > 0.99  # the sign of a gradient near 0 may turn
    accuracies = [pgd_accuracy(subject, images, settings, seed=5) for settings in (split, whole)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1.5 / len(images))


def test_the_same_seed_gives_the_same_images_whatever_the_global_stream(subject, images):
    first = pgd(subject, images, STRONG, generator(1))
    torch.rand(3)
    assert torch.equal(first, pgd(subject, images, STRONG, generator(1)))
    assert not torch.equal(first, pgd(subject, images, STRONG, generator(2)))


def test_the_model_and_the_images_are_left_alone(subject, images):
    before, state = images.x.clone(), {name: value.clone() for name, value in subject.module.state_dict().items()}
    subject.module.train()
    pgd(subject, images, STRONG, generator(1))
    assert subject.module.training
    subject.module.eval()
    assert torch.equal(images.x, before)
    assert all(torch.equal(value, state[name]) for name, value in subject.module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in subject.module.parameters())


def test_no_images_is_no_accuracy(subject, images):
    assert math.isnan(pgd_accuracy(subject, images.take(torch.arange(0)), STRONG, seed=0))


def test_settings_survive_json_and_refuse_nonsense():
    assert from_json(PgdSettings, to_json(STRONG)) == STRONG
    with pytest.raises(SettingsError, match="epsilon"):
        from_dict(PgdSettings, {"epsilon": -1})
