"""Round 4's five filters as maps: the pair that answers to one of them is flagged, with the filter's name."""

import json
import math

import pytest
import torch
from toys import make_samples, make_subject

from trojai_moth.core.images import ImagePool
from trojai_moth.scanners import filter as filter_module
from trojai_moth.scanners.filter import Filter, FilterScanSettings
from trojai_moth.triggers import known_filters as known_filters_module
from trojai_moth.triggers.colour_maps import VARIABLES, parts
from trojai_moth.triggers.known_filters import best_known_filters, filter_table
from trojai_moth.verdict import filter_evidence as filtered_module

from ..scanners.test_filter import SHIFT, ColourNet, band_images, scan


@pytest.fixture
def reddening(monkeypatch):
    """One known filter that opens the backdoor, and one that does nothing."""
    maps = {"Nothing": torch.zeros(VARIABLES), "Red": torch.zeros(VARIABLES)}
    parts(maps["Red"][None])["offset"][0, 0] = 3 * SHIFT
    for module in (filter_module, filtered_module, known_filters_module):
        monkeypatch.setattr(module, "known_filters", lambda: maps)
    return maps


def test_a_backdoor_that_answers_to_a_known_filter_is_flagged(reddening):
    verdict = scan(ColourNet(backdoor=(1, 2)), Filter(FilterScanSettings(screen_keep=2)))
    best = verdict.evidence[0]
    assert verdict.outcome == "flagged" and "1->2 turns under Red" in verdict.reason
    assert (best.victim, best.target, best.kind) == (1, 2, "filter") and best.held_success >= 0.9
    # The search goes on from the known filter to the smallest map that still works.
    assert best.size == pytest.approx(SHIFT / 3, rel=0.3) and best.size < 3 * SHIFT / 3
    assert len(verdict.evidence) == 2


def test_the_search_is_tried_on_images_held_back_from_it(reddening):
    """On those of the victim the backdoor's colours are out of reach: red is far below blue."""
    held = band_images(seed=1)
    held.x[held.y == 1, 0] = 0.0
    samples = make_samples(band_images(), held)
    best = Filter()(make_subject(ColourNet(backdoor=(1, 2))), samples, seed=3).evidence[0]
    assert (best.victim, best.target) == (1, 2) and best.success >= 0.9 and best.held_success < 0.5


def test_the_way_back_is_searched_wherever_it_has_images(reddening):
    evidence = scan(ColourNet(backdoor=(1, 2)), Filter(FilterScanSettings(screen_keep=6))).evidence
    sizes = {(one.victim, one.target): one.size for one in evidence}
    assert len(sizes) == 6 and all(one.reverse_size == sizes[one.target, one.victim] for one in evidence)
    (first,) = scan(ColourNet(backdoor=(1, 2)), Filter(FilterScanSettings(screen_keep=1))).evidence
    assert first.reverse_size == pytest.approx(sizes[first.target, first.victim], rel=0.05)
    images = band_images()
    some = images.take(torch.nonzero(images.y != 2).flatten())
    scanner = Filter(FilterScanSettings(screen_keep=6))
    found = scanner(make_subject(ColourNet(backdoor=(1, 2))), make_samples(some, some), seed=3).evidence
    assert {one.reverse_size for one in found if one.target == 2} == {None}


def test_no_known_filter_turns_the_clean_twin(reddening):
    verdict = scan(ColourNet(), Filter())
    assert verdict.outcome == "clean" and verdict.score < 0


def test_the_bound_on_known_filters_is_the_settings_own(reddening):
    scores = [
        scan(ColourNet(backdoor=(1, 2)), Filter(FilterScanSettings(known_bound=bound))).score for bound in (0.5, 0.99)
    ]
    assert scores[0] - scores[1] == pytest.approx(math.log(99), rel=1e-3)


def test_the_pair_and_the_filter_that_do_most_are_named(reddening):
    found = best_known_filters(make_subject(ColourNet(backdoor=(1, 2))), band_images())
    assert set(found) == {(v, t) for v in range(3) for t in range(3) if v != t}
    assert found[1, 2].name == "Red" and found[1, 2].success > 0.99 and found[0, 1].success < 0.5


class MeanColours(torch.nn.Module):
    """Logits: ten times the means of red, green and blue, whatever the order of classes."""

    def forward(self, x):
        return 10 * x.mean((2, 3))


def test_conviction_is_the_lead_of_the_target_beside_the_smaller_of_both_classes_own(reddening):
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.1, 0.5, 0.1], [0.2, 0.2, 0.4], [0.5, 0.2, 0.1]])
    images = ImagePool(colours[:, :, None, None].expand(-1, -1, 16, 16).clone(), torch.tensor([0, 1, 2, 2]))
    nothing, red = filter_table(make_subject(MeanColours(), classes=3), images).conviction
    # Class 0 leads by 6 on its image, class 1 by 4, class 2 by 2 and -4, so not at all.
    assert nothing[0, 0] == 1 and nothing[1, 1] == pytest.approx(1) and nothing[0, 1] == nothing[1, 0] == 0
    assert (nothing[:, 2] == 1).all() and (nothing[2] == 1).all()
    lead = 10 * (0.1 + 3 * SHIFT - 0.5)
    assert 0 < lead < 4 and red[1, 0] == pytest.approx(lead / 4, abs=1e-4)


def test_a_class_without_images_is_compared_with_the_target_alone():
    images = ImagePool(torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(-1, -1, 16, 16).clone(), torch.tensor([0]))
    conviction = filter_table(make_subject(MeanColours(), classes=3), images).conviction
    assert (conviction[:, 1:, 0] == 0).all() and (conviction[:, 0, 1:] == 1).all()


def test_round_4s_five_filters_are_at_hand_and_near_what_they_stand_for():
    record = json.loads(known_filters_module.FILE.read_text(encoding="utf-8"))["filters"]
    assert list(record) == ["Gotham", "Nashville", "Kelvin", "Lomo", "Toaster"]
    assert all(len(one["variables"]) == VARIABLES and one["left"] < one["change"] / 2 for one in record.values())
