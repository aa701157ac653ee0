"""The smallest piece of a target image that turns the victim, on networks where it is known."""

import json
import math

import pytest
import torch
from toys import BRIGHT, SIZE, PlantedNet, make_subject, planted_images

from trojai_moth.core.errors import MothError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.eval.distance_bounds.pasted_bound import PastedBound, PastedSettings, pasted_bounds
from trojai_moth.triggers.inversion import invert, random_start
from trojai_moth.triggers.task import InversionSettings, make_task

VICTIM, TARGET, WEIGHT = 1, 2, 4.0
SETTINGS, INVERSION = PastedSettings(patterns=2), InversionSettings(steps=250)


def bounds(module, pairs=((VICTIM, TARGET),), images=None, settings=SETTINGS, inversion=INVERSION, seed=0):
    images = planted_images() if images is None else images
    return pasted_bounds(make_subject(module), images, list(pairs), settings, inversion, seed=seed)


def free_size(module):
    task = make_task(planted_images().y, [(VICTIM, TARGET)])
    result = invert(make_subject(module), planted_images().x, task, INVERSION, random_start(task, (3, SIZE, SIZE), 0))
    return float(result.size[0])


def test_without_a_backdoor_a_piece_of_the_target_does_what_the_free_trigger_does():
    found = bounds(PlantedNet())[VICTIM, TARGET]
    # The target's row is longer than the victim's, which it leaves dark: BRIGHT[victim] pixels, however they are set.
    assert found.found and found.size == pytest.approx(BRIGHT[VICTIM], rel=0.2)
    assert math.log(found.size / free_size(PlantedNet())) == pytest.approx(0, abs=0.25)


def test_a_backdoor_does_not_shrink_the_piece_but_the_free_trigger():
    net = PlantedNet((VICTIM, TARGET, WEIGHT))
    found = bounds(net)[VICTIM, TARGET]
    # The backdoor's row is dark in every target image, so no piece of one can light it.
    assert found.size == pytest.approx(BRIGHT[VICTIM], rel=0.2)
    assert math.log(found.size / free_size(net)) == pytest.approx(math.log(WEIGHT), abs=0.4)


def test_a_target_that_shows_nothing_has_no_piece():
    images = planted_images()
    dark = ImagePool(torch.where((images.y == TARGET)[:, None, None, None], torch.zeros(()), images.x), images.y)
    found = bounds(PlantedNet(), images=dark, inversion=InversionSettings(steps=30))[VICTIM, TARGET]
    # All logits are then equal, and the target's is not the first of them.
    assert not found.found and found.size == SIZE**2


def test_a_pair_is_the_same_alone_and_among_others():
    few = InversionSettings(steps=20)
    alone = bounds(PlantedNet(), [(VICTIM, TARGET)], inversion=few)
    among = bounds(PlantedNet(), [(0, 1), (VICTIM, TARGET), (2, 0)], inversion=few)
    assert list(among) == [(0, 1), (VICTIM, TARGET), (2, 0)]
    assert among[VICTIM, TARGET].size == pytest.approx(alone[VICTIM, TARGET].size, rel=1e-3)


def test_no_more_patterns_than_images():
    images = planted_images(per_class=3)
    found = bounds(
        PlantedNet(), images=images, settings=PastedSettings(patterns=9), inversion=InversionSettings(steps=2)
    )
    assert found[VICTIM, TARGET].patterns == 3
    assert bounds(PlantedNet(), []) == {}


def test_more_images_of_the_target_never_make_the_bound_larger():
    few = InversionSettings(steps=60)
    one, all_of_them = (
        bounds(PlantedNet(), settings=PastedSettings(patterns=count), inversion=few)[VICTIM, TARGET] for count in (1, 6)
    )
    assert all_of_them.size <= one.size * (1 + 1e-3)


def test_the_pattern_stays_what_it_was():
    task, settings = make_task(planted_images().y, [(VICTIM, TARGET)]), InversionSettings(steps=10)
    mask, _ = random_start(task, (3, SIZE, SIZE), 0)
    pattern = torch.full((1, 3, SIZE, SIZE), 0.5)
    arguments = (make_subject(PlantedNet()), planted_images().x, task, settings, (mask, pattern))
    kept, learned = (invert(*arguments, learn_pattern=learn) for learn in (False, True))
    assert torch.allclose(kept.pattern, pattern, atol=1e-6)
    assert (learned.pattern - pattern).abs().max() > 0.1
    assert not torch.equal(kept.mask, mask)


@pytest.mark.parametrize("missing", [VICTIM, TARGET])
def test_a_class_without_images_is_an_error(missing):
    images = planted_images()
    rest = images.take(torch.nonzero(images.y != missing).flatten())
    with pytest.raises(MothError, match="1 -> 2: a class has no images"):
        bounds(PlantedNet(), images=rest)


def test_the_record_survives_json():
    found = PastedBound(size=12.5, found=True, patterns=4)
    assert from_dict(PastedBound, json.loads(json.dumps(to_dict(found)))) == found
