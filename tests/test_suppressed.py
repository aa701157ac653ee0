import json
import math

import pytest
import torch
from colour_net import GREEN, RED, SIZE, TARGET, VICTIM, ColourNet, plain
from toys import PlantedNet, make_subject, planted_images

from trojai_moth.blind.suppressed import Suppression, SuppressionSettings, suppressed_growth
from trojai_moth.errors import MothError, SettingsError
from trojai_moth.images import ImagePool
from trojai_moth.inversion import InversionSettings
from trojai_moth.records import from_dict, to_dict
from trojai_moth.trigger import Trigger

SETTINGS, INVERSION = SuppressionSettings(), InversionSettings(steps=150)
PAIR = Trigger(VICTIM, TARGET, torch.zeros(1, SIZE, SIZE), torch.zeros(3, SIZE, SIZE))
INJECTED, NATURAL = 30.0, 0.0


def subject_with(backdoor):
    return make_subject(ColourNet(backdoor), size=SIZE)


def images(victims=4, targets=4):
    y = torch.tensor([VICTIM] * victims + [TARGET] * targets)
    return ImagePool(torch.cat([plain(RED, victims), plain(GREEN, targets)]), y)


def growth(backdoor, settings=SETTINGS, pool=None, seed=0):
    pool = images() if pool is None else pool
    return suppressed_growth(subject_with(backdoor), pool, PAIR, settings, INVERSION, seed=seed)


def test_an_injected_trigger_does_without_the_targets_features():
    found = growth(INJECTED)
    assert found.found
    # Blue and green on a fifth of the image: 40 a > 10 (1 - a).
    assert found.size == pytest.approx(0.2 * SIZE**2, rel=0.15)
    assert found.growth == pytest.approx(math.log(found.suppressed_size / found.size))
    assert abs(found.growth) < 0.2


def test_a_natural_trigger_can_not_do_without_them():
    found = growth(NATURAL)
    # Green on half of the image, which is more than half-way to the target's likeness.
    assert found.size == pytest.approx(0.5 * SIZE**2, rel=0.15)
    assert not found.found and found.suppressed_size == SIZE**2
    assert found.growth > 0.5 > growth(INJECTED).growth


def test_the_likeness_is_that_of_the_clean_images():
    found = growth(NATURAL)
    assert found.victim_likeness == pytest.approx(0, abs=1e-5) and found.target_likeness == pytest.approx(1, abs=1e-5)


def test_where_everything_is_allowed_nothing_grows():
    assert growth(NATURAL, SuppressionSettings(weight=0)).growth == 0
    assert growth(NATURAL, SuppressionSettings(allowed=1, weight=1e-6)).growth == pytest.approx(0, abs=0.05)


def test_the_result_depends_on_the_seed_alone_and_nothing_is_changed():
    subject, pool = subject_with(INJECTED), images()
    before, weights = pool.x.clone(), subject.module.weighted.weight.clone()
    torch.manual_seed(0)
    first = suppressed_growth(subject, pool, PAIR, SETTINGS, INVERSION, seed=3)
    torch.manual_seed(1)
    assert suppressed_growth(subject, pool, PAIR, SETTINGS, INVERSION, seed=3) == first
    assert torch.equal(before, pool.x) and torch.equal(weights, subject.module.weighted.weight)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in subject.module.parameters())


def test_the_result_survives_json():
    found = growth(NATURAL)
    assert from_dict(Suppression, json.loads(json.dumps(to_dict(found)))) == found


@pytest.mark.parametrize(("victims", "targets"), [(0, 4), (4, 0)])
def test_a_class_without_images_is_said_in_one_line(victims, targets):
    with pytest.raises(MothError, match=r"suppressed inversion 0 -> 1: a class has no images") as caught:
        growth(INJECTED, pool=images(victims, targets))
    assert "\n" not in str(caught.value)


def test_a_target_that_is_no_more_like_itself_than_the_victim_is_said():
    same = ImagePool(torch.cat([plain(GREEN), plain(GREEN)]), images().y)
    with pytest.raises(MothError, match="no more like their class"):
        growth(INJECTED, pool=same)


def test_logits_that_are_no_numbers_are_said():
    subject = subject_with(INJECTED)
    with torch.no_grad():
        subject.module.colours.weight[0, 0] = float("nan")
    with pytest.raises(MothError, match="no more like their class"):
        suppressed_growth(subject, images(), PAIR, SETTINGS, INVERSION, seed=0)


def test_a_pair_without_any_trigger_and_a_network_without_a_place_are_said():
    subject = subject_with(NATURAL)
    with torch.no_grad():
        subject.module.weighted.weight[TARGET] = 0
    with pytest.raises(MothError, match="no trigger was found at all"):
        suppressed_growth(subject, images(), PAIR, SETTINGS, INVERSION, seed=0)
    with pytest.raises(MothError, match="no place in this network"):
        suppressed_growth(make_subject(PlantedNet()), planted_images(), PAIR, SETTINGS, INVERSION, seed=0)


def test_impossible_settings_are_refused():
    with pytest.raises(SettingsError, match="allowed"):
        from_dict(SuppressionSettings, {"allowed": 1.5})
