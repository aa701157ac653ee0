import pytest
import torch
from toys import BRIGHT, SIZE, PlantedNet, make_subject, planted_images

from trojai_moth.triggers.inversion import invert, random_start
from trojai_moth.triggers.search import success_rate
from trojai_moth.triggers.task import InversionSettings, make_task

PAIRS = [(v, t) for v in range(3) for t in range(3) if v != t]
SETTINGS = InversionSettings(steps=400, success_bound=0.99, stall_steps=400)


def run(pairs=PAIRS, settings=SETTINGS, subject=None, images=None, seed=3):
    subject = subject or make_subject(PlantedNet())
    images = images or planted_images()
    task = make_task(images.y, pairs)
    return invert(subject, images.x, task, settings, random_start(task, (3, SIZE, SIZE), seed))


@pytest.fixture(scope="module")
def together():
    return run()


def test_sizes_are_the_closed_form_ones(together):
    expected = torch.tensor([float(BRIGHT[v]) for v, _ in PAIRS])
    assert together.converged.all()
    assert (together.size >= expected - 1e-3).all()  # nothing smaller can work
    assert (together.size <= 1.1 * expected).all()


def test_a_planted_backdoor_is_found_at_its_size():
    result = run(subject=make_subject(PlantedNet(backdoor=(2, 0, 6.0))))
    sizes = dict(zip(PAIRS, result.size.tolist(), strict=True))
    assert BRIGHT[2] / 6 - 1e-3 <= sizes[2, 0] <= 1.2 * BRIGHT[2] / 6
    assert sizes[2, 1] > 10  # the other target of the same victim is as far as ever


def test_the_best_trigger_really_works_and_has_the_reported_size(together):
    subject, images = make_subject(PlantedNet()), planted_images()
    for row, (victim, target) in enumerate(PAIRS):
        trigger = together.trigger(row)
        x = images.x[images.y == victim]
        logits = subject.logits(x + trigger.mask * (trigger.pattern - x))
        assert (logits.argmax(1) == target).all()
        assert trigger.size == pytest.approx(float(together.size[row]), rel=1e-5)


def test_alone_or_together_in_any_order_gives_the_same_trigger(together):
    for row in (0, 3, 5):
        alone = run([PAIRS[row]])
        assert torch.allclose(alone.mask[0], together.mask[row], atol=1e-4)
    backwards = run(PAIRS[::-1])
    assert torch.allclose(backwards.mask.flip(0), together.mask, atol=1e-4)


@pytest.mark.parametrize("batch_images", [1, 7, 1000])
def test_the_batch_size_does_not_matter(together, batch_images):
    settings = InversionSettings(steps=400, success_bound=0.99, stall_steps=400, batch_images=batch_images)
    assert torch.allclose(run(settings=settings).mask, together.mask, atol=1e-4)


def test_another_seed_is_another_start_but_the_same_answer(together):
    other = run(seed=4)
    assert not torch.allclose(other.mask, together.mask, atol=1e-2)
    assert torch.allclose(other.size, together.size, rtol=0.1)


def test_an_unreachable_class_is_not_converged():
    net = PlantedNet()
    net.rows.data[2] = 0  # nothing lights class 2 any more
    images = planted_images()
    images.x[images.y == 2] = images.x[images.y == 1]
    result = run([(0, 2), (1, 0)], subject=make_subject(net), images=images)
    assert result.converged.tolist() == [False, True]
    assert result.success[0] == 0


def test_rows_of_different_length_are_means_over_their_own_images():
    images = planted_images()
    fewer = torch.cat([images.positions(0)[:2], images.positions(1), images.positions(2)])
    mixed = run(images=images.take(fewer))
    alone = run([(0, 1)], images=images.take(images.positions(0)[:2]))
    assert torch.allclose(mixed.mask[0], alone.mask[0], atol=1e-4)
    assert torch.allclose(mixed.task.weight.sum(1), torch.ones(6))


def test_stopped_rows_stay_as_they_were_and_cost_no_steps():
    settings = InversionSettings(steps=400, success_bound=0.99, stall_steps=30)
    result = run(settings=settings)
    assert result.converged.all()
    assert (result.steps < 400).all()


def test_the_model_and_the_start_are_left_alone():
    subject = make_subject(PlantedNet())
    before = subject.module.rows.detach().clone()
    subject.module.train()
    task = make_task(planted_images().y, PAIRS)
    start = random_start(task, (3, SIZE, SIZE), 0)
    copies = [part.clone() for part in start]
    invert(subject, planted_images().x, task, InversionSettings(steps=3), start)
    assert torch.equal(subject.module.rows, before)
    assert subject.module.rows.grad is None and subject.module.rows.requires_grad
    assert subject.module.training
    assert all(torch.equal(a, b) for a, b in zip(copies, start, strict=True))


def test_initial_cost_by_row_changes_that_row_only():
    images, subject = planted_images(), make_subject(PlantedNet())
    task, settings = make_task(images.y, PAIRS), InversionSettings(steps=15)
    start = random_start(task, (3, SIZE, SIZE), 0)
    plain = invert(subject, images.x, task, settings, start)
    cost = torch.full((6,), settings.initial_cost)
    cost[2] = 0.5
    changed = invert(subject, images.x, task, settings, start, initial_cost=cost)
    same = [torch.equal(a, b) for a, b in zip(plain.mask, changed.mask, strict=True)]
    assert same == [True, True, False, True, True, True]


def test_losses_per_image_start_high_and_end_low(together):
    used = together.task.weight > 0
    assert (together.first_loss[used] >= 0).all()
    assert together.best_loss[used].mean() < 0.8


def test_a_pair_without_images_is_an_error():
    with pytest.raises(ValueError, match=r"\(7, 0\)"):
        make_task(planted_images().y, [(7, 0)])


def test_a_rate_of_ten_images_is_not_above_one():
    """Ten tenths are more than one in float32, and a verdict with such a rate would be refused as no rate."""
    hit, tenths = torch.ones(1, 10, dtype=torch.bool), torch.full((1, 10), 0.1)
    assert (hit * tenths).sum() > 1
    assert success_rate(hit, tenths).tolist() == [1.0]
    assert success_rate(~hit, tenths).tolist() == [0.0]
