"""K-Arm on planted networks, and its screen and scheduler on answers that are known beforehand."""

import math

import pytest
import torch
from toys import BRIGHT, SIZE, PlantedNet, make_samples, make_subject, planted_images, planted_samples

from trojai_moth.core.images import ImagePool
from trojai_moth.scanners.k_arm import KArm
from trojai_moth.scanners.k_arm.arms import Arm, Variable
from trojai_moth.scanners.k_arm.bandit import Bandit
from trojai_moth.scanners.k_arm.screening import screen
from trojai_moth.scanners.k_arm.settings import KArmSettings

# One pixel of the planted images, in pixels of 224 x 224.
PIXEL = (224 / SIZE) ** 2
# All pairs: the classes that a planted image does not show are equally likely, and the screen would drop some.
# Masks start anywhere, since what these networks look at is not in the centre; their sizes go beyond what the scheduler
# reckons with, and their probabilities are extreme.
SETTINGS = KArmSettings(
    ratio_bound=4.0, universal_share=1.0, few_top=3, centre_side=0.0, least_probability=0.0, prune_hopeless=200,
    prune_early=200, steps=3000, speed_from=6e4, size_weight=0.0,
)  # fmt: skip


def scan(module, samples=None, seed=3, **changes):
    settings = KArmSettings(**{**vars(SETTINGS), **changes})
    return KArm(settings)(make_subject(module), samples or planted_samples(), seed=seed)


@pytest.mark.parametrize("arms_at_once", [0, 1])
def test_a_planted_trigger_is_found_and_flagged(arms_at_once):
    verdict = scan(PlantedNet(backdoor=(2, 0, 24.0)), arms_at_once=arms_at_once)
    best = verdict.evidence[0]
    assert verdict.outcome == "flagged" and (best.victim, best.target) == (2, 0)
    assert BRIGHT[2] / 24.0 <= best.size < 1.5
    assert best.success == best.held_success == best.left_out_success == 1.0 and best.held_images == 6
    assert best.reverse_size >= BRIGHT[0] - 0.1
    assert verdict.score == pytest.approx(math.log(best.reverse_size / best.size / 4.0), abs=1e-3)


def test_small_both_ways_is_natural_unless_the_check_is_switched_off():
    """The way back takes BRIGHT[0] pixels, about 20 times as many as the planted trigger."""
    net = PlantedNet(backdoor=(2, 0, 24.0))
    verdict = scan(net, ratio_bound=30.0)
    assert verdict.outcome == "clean" and "back" in verdict.reason
    unchecked = scan(net, ratio_bound=30.0, symmetric_check=False)
    assert unchecked.outcome == "flagged" and unchecked.evidence[0].reverse_size is None


def test_over_the_size_bound_is_clean():
    verdict = scan(PlantedNet(), pair_bound=3 * PIXEL, symmetric_check=False)
    assert verdict.outcome == "clean" and verdict.score == pytest.approx(
        math.log(3 / verdict.evidence[0].size), abs=1e-3
    )


def test_where_the_screen_leaves_no_pair_nothing_is_judged():
    verdict = scan(PlantedNet(backdoor=(2, 0, 24.0)), least_probability=1e6)
    assert verdict.outcome == "not judged" and "screen" in verdict.reason


def test_where_no_arm_ever_succeeds_nothing_is_judged():
    verdict = scan(PlantedNet(), steps=3)
    assert verdict.outcome == "not judged" and "has a trigger" in verdict.reason


def test_a_class_without_images_is_no_victim_and_is_no_way_back():
    images = planted_images()
    some = images.take(torch.nonzero(images.y != 0).flatten())
    verdict = scan(PlantedNet(backdoor=(2, 0, 24.0)), make_samples(some, some))
    assert verdict.outcome == "flagged" and "no images" in verdict.reason
    assert all(candidate.victim != 0 for candidate in verdict.evidence)


def test_one_class_only_can_not_be_judged():
    images = planted_images()
    one = images.take(images.positions(1))
    assert scan(PlantedNet(), make_samples(one, one)).outcome == "not judged"


class Broken(PlantedNet):
    def forward(self, x):
        return super().forward(x) + (x.mean(dim=(1, 2, 3), keepdim=True)[:, :, 0, 0] - 5).sqrt()


def test_a_network_that_answers_nan_is_not_judged():
    assert scan(Broken()).outcome == "not judged"


def test_success_on_images_left_out_and_held_back_shows_what_fits_its_own_images_only():
    """The backdoor opens on one image of the victim in two; triggers are found on all, by darkening the others."""
    held = planted_images(seed=1)
    held.x[held.y == 2, :, 5] = 0.0
    held.x[held.y == 2, :, 3, : BRIGHT[1]] = 1.0
    verdict = scan(PlantedNet(backdoor=(2, 0, 24.0)), make_samples(planted_images(), held))
    best = verdict.evidence[0]
    assert best.success == 1.0 and best.held_success == 0.0 and best.jitter_success == 0.0


def test_sizes_scale_with_the_area_of_the_image():
    verdict = scan(PlantedNet(backdoor=(2, 0, 24.0)))
    assert f"bound {1000 / PIXEL:.1f}" in verdict.reason


def probabilities(rows):
    return torch.tensor(rows, dtype=torch.float32).log().softmax(1)


def test_the_screen_keeps_targets_that_are_likely_on_nearly_all_images_of_a_victim():
    often = [[0.7, 0.2, 0.05, 0.05]] * 9
    pairs = KArmSettings(universal_share=1.0)
    assert screen(probabilities([*often, [0.7, 0.05, 0.2, 0.05]]), pairs) == [(0, 1)]
    assert screen(probabilities([*often[:8], *[[0.7, 0.05, 0.2, 0.05]] * 2]), pairs) == []


def test_a_class_among_the_top_of_all_images_is_the_only_arm():
    rows = [[0.7, 0.3, 0.0, 0.0], [0.0, 0.3, 0.7, 0.0], [0.0, 0.3, 0.0, 0.7]]
    assert screen(probabilities(rows), KArmSettings()) == [(None, 1)]
    assert screen(probabilities(rows), KArmSettings(universal_share=1.0)) == [(0, 1), (2, 1), (3, 1)]


def test_the_screen_keeps_the_likeliest_victims_of_a_target():
    rows = torch.full((5, 9), 1e-6)
    for victim in range(5):
        rows[victim, victim], rows[victim, 8] = 0.8, 0.01 * (victim + 1)
    rows = rows / rows.sum(1, keepdim=True)
    settings = KArmSettings(universal_share=1.0, few_classes=9, victims_per_target=3)
    assert screen(rows, settings) == [(2, 8), (3, 8), (4, 8)]


def make_arm(target, **values):
    variable = Variable(torch.zeros(1))
    arm = Arm(0, target, torch.arange(2), variable, variable)
    for name, value in values.items():
        setattr(arm, name, value)
    return arm


class Script:
    """Plays arms by name: what each step makes of an arm, and who was played when."""

    def __init__(self, shrink):
        self.shrink, self.played = shrink, []

    def __call__(self, arms):
        self.played.append([arm.target for arm in arms])
        for arm in arms:
            arm.steps += 1
            arm.improved = self.shrink(arm)
            if arm.improved:
                arm.best_success, arm.successes = 1.0, arm.successes + 1
                arm.size = arm.best_size = 100.0 * (arm.target + 1) - arm.successes
                arm.best = object()


def play(arms, shrink, at_once=1, **changes):
    script = Script(shrink)
    settings = KArmSettings(**{"random_share": 0.0, **changes})
    Bandit(arms, settings, torch.Generator().manual_seed(0)).run(script, at_once)
    return [target for turn in script.played for target in turn], script.played


def test_arms_go_one_after_the_other_until_each_has_succeeded_twice_and_then_by_promise():
    arms = [make_arm(0), make_arm(1), make_arm(2)]
    order, _ = play(arms, lambda arm: arm.steps % 2 == 0, steps=40, size_weight=1e7)
    assert order[:12] == [0] * 4 + [1] * 4 + [2] * 4
    assert set(order[12:]) == {0}


def test_a_dropped_arm_is_never_played_again():
    arms = [make_arm(0), make_arm(1)]
    order, _ = play(arms, lambda arm: arm.target == 1, steps=300, random_share=0.9)
    assert order[:11] == [0] * 11 and set(order[11:]) == {1} and arms[0].out
    order, _ = play([make_arm(0), make_arm(1)], lambda arm: arm.target == 1, steps=50, prune=False)
    assert order == [0] * 50


def test_the_search_ends_when_the_smallest_arm_is_done_and_goes_on_when_another_is():
    arms = [make_arm(0), make_arm(1)]
    order, _ = play(arms, lambda arm: True, steps=1000, enough_successes=10)
    assert arms[0].successes == 11 and len(order) < 30
    arms = [make_arm(0), make_arm(1, best_size=1.0, size=1.0, successes=5, best=object())]
    play(arms, lambda arm: arm.target == 0, steps=100, enough_successes=10, size_weight=0.0, speed_from=1e6)
    assert arms[0].out and arms[0].successes == 11 and arms[1].steps > 10


def test_several_at_once_are_different_arms_and_stay_within_the_steps():
    arms = [make_arm(target) for target in range(5)]
    order, turns = play(arms, lambda arm: True, at_once=3, steps=50)
    assert len(order) == 50 and all(len(set(turn)) == len(turn) <= 3 for turn in turns)
    assert turns[0] == [0, 1, 2]


def test_no_arms_play_no_step():
    assert play([], lambda arm: True) == ([], [])


def test_a_victim_s_images_are_all_looked_at():
    """Success is over all images: with one of six that cannot be turned, a bound of 0.99 is never reached."""
    images = planted_images()
    odd = images.positions(2)[0]
    x = images.x.clone()
    x[odd, :, 5] = 0.0
    x[odd, :, 3, : BRIGHT[1]] = 1.0
    verdict = scan(PlantedNet(backdoor=(2, 0, 24.0)), make_samples(ImagePool(x, images.y), planted_images(seed=1)))
    found = {(c.victim, c.target): c for c in verdict.evidence}
    assert (2, 0) not in found or found[2, 0].size is None or found[2, 0].size > 1.5
