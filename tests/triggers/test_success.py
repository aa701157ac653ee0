"""How far a planted trigger reaches, on images whose answer is known."""

import pytest
import torch
from toys import BACKDOOR_ROW, SIZE, PlantedNet, make_subject, planted_images

from trojai_moth.core.images import ImagePool
from trojai_moth.triggers import success
from trojai_moth.triggers.success import draw_moves, moved
from trojai_moth.triggers.trigger import Trigger, stamp

VICTIM, TARGET, OTHER = 0, 2, 1


def corner(victim=VICTIM, target=TARGET):
    """The three pixels that the planted backdoor looks at, lit."""
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, BACKDOOR_ROW, :3] = 1.0
    return Trigger(victim, target, mask, torch.ones(3, SIZE, SIZE))


@pytest.fixture
def subject():
    return make_subject(PlantedNet((VICTIM, TARGET, 4.0)))


def test_a_backdoor_turns_its_victim(subject):
    images = planted_images()
    assert success.held_success(subject, images, corner()) == 1.0
    assert success.held_success(make_subject(PlantedNet()), images, corner()) == 0.0


def test_a_universal_trigger_has_every_class_but_its_target_as_victim(subject):
    images = planted_images()
    assert success.held_success(subject, images, corner(victim=None)) == 0.5


def test_many_images_are_the_same_as_few(subject, monkeypatch):
    images = planted_images(7)
    whole = success.held_success(subject, images, corner(victim=None))
    monkeypatch.setattr(success, "_BATCH", 3)
    assert success.held_success(subject, images, corner(victim=None)) == whole


def test_without_images_there_is_no_rate(subject):
    images = planted_images()
    none = ImagePool(images.x[:0], images.y[:0])
    only = images.take(images.positions(TARGET))
    assert success.held_success(subject, none, corner()) is None
    assert success.held_success(subject, only, corner()) is None
    assert success.jitter_success(subject, only, corner(), 0.1, torch.Generator()) is None


def test_jitter_moves_the_stamped_images_and_jitter_of_nothing_does_not(subject, monkeypatch):
    # Six lit pixels of the target's row outshine the victim's four, as long as they stay in that row.
    images, mask = planted_images(20), torch.zeros(1, SIZE, SIZE)
    mask[:, 2 * TARGET + 1, :6] = 1.0
    trigger = Trigger(VICTIM, TARGET, mask, torch.ones(3, SIZE, SIZE))
    own = images.x[images.positions(VICTIM)]
    stamped = stamp(own, trigger.mask, trigger.pattern)
    moves = draw_moves(len(own), 0.3, torch.Generator().manual_seed(4))
    by_hand = (subject.logits(moved(stamped, moves)).argmax(1) == TARGET).float().mean().item()
    monkeypatch.setattr(success, "_BATCH", 3)
    found = success.jitter_success(subject, images, trigger, 0.3, torch.Generator().manual_seed(4))
    assert found == pytest.approx(by_hand) and 0 < found < 1
    still = success.jitter_success(subject, images, trigger, 0.0, torch.Generator())
    assert still == success.held_success(subject, images, trigger)


def test_moves_are_drawn_within_their_bound_from_their_stream_alone():
    first, again = (draw_moves(50, 0.2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and first.abs().max() <= 0.2 and first.min() < 0 < first.max()


def test_a_shift_by_whole_pixels_is_a_shift():
    x = torch.rand(1, 3, SIZE, SIZE)
    right = moved(x, torch.tensor([[0.0, 2 / SIZE, 0.0, 0.0]]))
    assert torch.allclose(right[..., 2:], x[..., :-2], atol=1e-5)
    assert moved(x[:0], torch.zeros(0, 4)).shape == (0, 3, SIZE, SIZE)
