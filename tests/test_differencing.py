import json

import pytest
import torch
from colour_net import BLUE, GREEN, RED, SIZE, TARGET, VICTIM, ColourNet, plain
from toys import make_subject

from trojai_moth.blind.differencing import Differencing, DifferencingSettings, difference_features
from trojai_moth.errors import MothError, SettingsError
from trojai_moth.records import from_dict, to_dict

SETTINGS = DifferencingSettings()


@pytest.fixture
def subject():
    return make_subject(ColourNet(), size=SIZE)


def differences(subject, stamped, victims=None, targets=None, settings=SETTINGS):
    victims = plain(RED) if victims is None else victims
    targets = plain(GREEN) if targets is None else targets
    return difference_features(subject, victims, targets, stamped, settings, victim=VICTIM, target=TARGET)


def test_an_injected_trigger_shares_no_channel_with_the_difference_of_the_classes(subject):
    found = differences(subject, plain(RED + BLUE))
    assert found.place == "colours" and found.channels == 3
    assert found.class_channels == pytest.approx(1, abs=0.05)
    assert found.trigger_channels == pytest.approx(2 / 3, abs=0.05)
    assert found.shared_channels < 0.02 and found.shared_channels_trigger < 0.02
    assert found.cross_accuracy == 0


def test_the_published_memory_of_large_gradients_stops_the_masks_short_of_their_minimum(subject):
    published = differences(subject, plain(RED + BLUE), settings=DifferencingSettings(beta2=0.999))
    assert published.class_channels > 1.2 and published.shared_channels > 0.1


def test_a_natural_trigger_uses_the_channels_that_tell_the_classes_apart(subject):
    found = differences(subject, plain(GREEN))
    assert found.trigger_channels == pytest.approx(found.class_channels)
    assert found.shared_channels > 0.98 and found.shared_channels_trigger > 0.98
    assert found.cross_accuracy == 1


def test_a_trigger_that_does_both_lies_between(subject):
    injected, mixed = (differences(subject, plain(colour)) for colour in (RED + BLUE, 0.4 * RED + 0.6 * GREEN + BLUE))
    assert injected.shared_channels_trigger <= mixed.shared_channels_trigger < 0.98
    accuracies = (mixed.class_mask_to_target, mixed.class_mask_to_victim)
    accuracies += (mixed.trigger_mask_to_target, mixed.trigger_mask_to_victim)
    assert mixed.cross_accuracy == pytest.approx(sum(accuracies) / 4)


def test_each_accuracy_is_of_its_own_mask_and_direction(subject):
    # The trigger's mask takes blue alone, which these targets have too: it turns victims into them, but not back, for
    # half of their green is enough against no red.
    found = differences(subject, plain(RED + BLUE), targets=plain(GREEN + BLUE))
    assert found.trigger_mask_to_target == 1 and found.trigger_mask_to_victim == 0


def test_the_smaller_set_is_used_over_again_and_images_beyond_the_bound_are_not_looked_at(subject):
    equal = differences(subject, plain(RED + BLUE, 6), plain(RED, 6), plain(GREEN, 6))
    fewer = differences(subject, plain(RED + BLUE, 2), plain(RED, 2), plain(GREEN, 6))
    assert fewer.class_channels == pytest.approx(equal.class_channels, abs=1e-3)
    assert fewer.trigger_channels == pytest.approx(equal.trigger_channels, abs=1e-3)
    odd = torch.cat([plain(RED + BLUE, 2), torch.full((2, 3, SIZE, SIZE), 0.1)])
    bounded = differences(subject, odd, settings=DifferencingSettings(pairs=2))
    assert bounded.trigger_channels == pytest.approx(equal.trigger_channels, abs=1e-3)


def test_too_few_steps_leave_channels_that_are_not_needed(subject):
    hasty = differences(subject, plain(RED + BLUE), settings=DifferencingSettings(epochs=10))
    assert hasty.trigger_channels > differences(subject, plain(RED + BLUE)).trigger_channels + 1


def test_inputs_and_network_come_back_untouched_and_nothing_is_left_to_chance(subject):
    sets = plain(RED), plain(GREEN), plain(RED + BLUE)
    before = [images.clone() for images in sets]
    weights = subject.module.weighted.weight.clone()
    torch.manual_seed(0)
    with torch.no_grad():
        first = difference_features(subject, *sets, SETTINGS, victim=VICTIM, target=TARGET)
    torch.manual_seed(1)
    assert difference_features(subject, *sets, SETTINGS, victim=VICTIM, target=TARGET) == first
    assert all(torch.equal(one, other) for one, other in zip(before, sets, strict=True))
    assert torch.equal(weights, subject.module.weighted.weight) and subject.module.weighted.weight.grad is None


def test_the_result_survives_json(subject):
    found = differences(subject, plain(RED + BLUE))
    assert from_dict(Differencing, json.loads(json.dumps(to_dict(found)))) == found


@pytest.mark.parametrize("missing", ["victims", "targets"])
def test_a_class_without_images_is_said_in_one_line(subject, missing):
    stamped = plain(RED + BLUE, 0 if missing == "victims" else 4)
    with pytest.raises(MothError, match="a class has no images"):
        differences(subject, stamped, **{missing: plain(RED, 0)})


def test_a_trigger_that_turns_nothing_and_classes_that_are_not_recognised_are_said(subject):
    with pytest.raises(MothError, match="a trigger that works on some"):
        differences(subject, plain(RED))
    with pytest.raises(MothError, match="images that the network recognises"):
        differences(subject, plain(RED + BLUE), victims=plain(0 * RED))


def test_logits_that_are_no_numbers_are_said(subject):
    with torch.no_grad():
        subject.module.weighted.weight[0, 0] = float("nan")
    with pytest.raises(MothError, match="not finite"):
        differences(subject, plain(RED + BLUE))


def test_sets_that_do_not_fit_are_a_mistake_of_the_caller(subject):
    with pytest.raises(ValueError, match="3 stamped images for 4"):
        differences(subject, plain(RED + BLUE, 3))
    with pytest.raises(ValueError, match="same class"):
        difference_features(subject, plain(RED), plain(RED), plain(RED), SETTINGS, victim=1, target=1)


def test_impossible_settings_are_refused():
    with pytest.raises(SettingsError, match="epochs"):
        from_dict(DifferencingSettings, {"epochs": 0})
