import math

import pytest
from toys import BRIGHT, SIZE, PlantedNet, make_samples, make_subject, planted_images, planted_samples

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.statistics import outlier_bound
from trojai_moth.scanners.neural_cleanse import NeuralCleanse, NeuralCleanseSettings
from trojai_moth.scanners.registry import make_scanner
from trojai_moth.triggers.trigger import pixels_at

# With 16 x 16 images this puts the bound at 3.5 pixels: below every natural pair (4), above the planted one (2).
BOUND = 3.5 * (224 / SIZE) ** 2
FAST = {"steps": 300, "pair_bound": BOUND, "success_bound": 0.99}


def scan(net, **settings):
    scanner = NeuralCleanse(NeuralCleanseSettings(**{**FAST, **settings}))
    return scanner(make_subject(net), planted_samples(), seed=5)


@pytest.fixture(scope="module")
def poisoned():
    return scan(PlantedNet(backdoor=(2, 0, 6.0)))


def test_the_planted_backdoor_is_flagged_with_its_pair(poisoned):
    best = poisoned.evidence[0]
    assert poisoned.outcome == "flagged" and poisoned.flagged
    assert (best.victim, best.target) == (2, 0)
    assert best.size == pytest.approx(2.0, rel=0.2)
    assert best.converged and best.success == 1.0
    assert best.held_success == 1.0 and best.held_images == 6


def test_the_clean_twin_is_clean_and_its_evidence_the_closed_form():
    verdict = scan(PlantedNet())
    assert verdict.outcome == "clean"
    assert verdict.evidence[0].size == pytest.approx(BRIGHT[0], rel=0.1)
    assert len(verdict.evidence) == 6
    sizes = [candidate.size for candidate in verdict.evidence]
    assert sizes == sorted(sizes)


def test_score_is_the_log_ratio_to_the_bound_and_its_sign_the_verdict(poisoned):
    assert poisoned.score == pytest.approx(math.log(pixels_at(SIZE**2, BOUND) / poisoned.evidence[0].size))
    assert poisoned.score > 0 > scan(PlantedNet()).score
    assert 0.02 <= poisoned.probability <= 0.98


def test_the_bound_scales_with_the_image_area():
    assert pixels_at(224 * 224, 1000) == 1000
    assert pixels_at(112 * 112, 1000) == 250


def test_a_trigger_that_fits_only_its_own_images_shows_in_held_success():
    held = planted_images(seed=1)
    victims = held.y == 2
    held.x[victims, :, 5] = 0.0  # held-back victims lack the row that opens the backdoor
    held.x[victims, :, 3, : BRIGHT[1]] = 1.0
    scanner = NeuralCleanse(NeuralCleanseSettings(**FAST))
    verdict = scanner(make_subject(PlantedNet(backdoor=(2, 0, 6.0))), make_samples(planted_images(), held), seed=5)
    assert verdict.evidence[0].success == 1.0
    assert verdict.evidence[0].held_success == 0.0


@pytest.mark.parametrize("mode", ["pairwise", "universal", "both"])
def test_where_no_trigger_works_at_all_nothing_is_judged(mode):
    verdict = scan(PlantedNet(), steps=1, screen_steps=1, mode=mode)
    assert verdict.outcome == "not judged"
    assert "so that none can be called too small" in verdict.reason


def test_universal_mode_inverts_one_trigger_per_target():
    verdict = scan(PlantedNet(), mode="universal")
    assert [candidate.victim for candidate in verdict.evidence] == [None] * 2  # of three targets the smallest
    assert "anomaly index" in verdict.reason


@pytest.mark.parametrize(("backdoor", "outcome"), [((2, 0, 24.0), "flagged"), (None, "clean")])
def test_by_the_outlier_rule_the_planted_pair_stands_out_among_all_pairs(backdoor, outcome):
    """Its half a pixel among five pairs of 4 to 12 is one whatever the bound on sizes; these hold no outlier."""
    verdict = scan(PlantedNet(backdoor=backdoor), rule="outlier", screen_steps=300, pair_bound=1e-9, outlier_chance=0.3)
    assert verdict.outcome == outcome
    index = float(verdict.reason.partition("anomaly index ")[2].split()[0])
    assert verdict.score == pytest.approx(math.log(index / outlier_bound(6, 0.3)), abs=0.1)
    if backdoor:
        assert (verdict.evidence[0].victim, verdict.evidence[0].target) == (2, 0)


def test_an_outlier_that_does_not_work_on_images_held_back_is_none():
    held = planted_images(seed=1)
    victims = held.y == 2
    held.x[victims, :, 5] = 0.0  # held-back victims lack the row that opens the backdoor
    held.x[victims, :, 3, : BRIGHT[1]] = 1.0
    settings = NeuralCleanseSettings(**{**FAST, "rule": "outlier", "screen_steps": 300})
    net = make_subject(PlantedNet(backdoor=(2, 0, 24.0)))
    verdict = NeuralCleanse(settings)(net, make_samples(planted_images(), held), seed=5)
    assert verdict.outcome == "clean" and "works on 0% of the images held back" in verdict.reason


def test_networks_of_unknown_kind_are_searched_for_both_kinds_of_triggers():
    assert make_scanner("neural-cleanse", {}).settings.mode == "pairwise"
    chosen = make_scanner("neural-cleanse", {"steps": 7}, described=True).settings
    assert (chosen.mode, chosen.rule, chosen.steps) == ("both", "outlier", 7)
    combined = make_scanner("neural-cleanse,filter", {"neural-cleanse": {"mode": "universal"}}, described=True)
    assert combined.settings["neural-cleanse"]["mode"] == "universal"
    assert combined.settings["neural-cleanse"]["rule"] == "outlier"


def test_the_outlier_rule_needs_pairs_to_compare_with():
    verdict = scan(PlantedNet(), rule="outlier", steps=1, screen_steps=1)
    assert verdict.outcome == "not judged" and "none of the pair triggers works" in verdict.reason


def test_both_modes_list_both_kinds_of_evidence():
    verdict = scan(PlantedNet(backdoor=(2, 0, 6.0)), mode="both")
    assert verdict.outcome == "flagged"
    assert {candidate.victim is None for candidate in verdict.evidence} == {True, False}


def test_one_class_only_can_not_be_judged():
    images = planted_images()
    one = images.take(images.positions(1))
    verdict = NeuralCleanse()(make_subject(PlantedNet()), make_samples(one, one), seed=0)
    assert verdict.outcome == "not judged" and verdict.flagged is None and verdict.score is None


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(SettingsError, match="stepz"):
        make_scanner("neural-cleanse", {"stepz": 3})
    with pytest.raises(SettingsError, match="mode"):
        make_scanner("neural-cleanse", {"mode": "sideways"})
