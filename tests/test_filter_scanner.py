import importlib.util
import math

import numpy as np
import pytest
import torch
from torch import nn
from toys import make_samples, make_subject

from trojai_moth.colour_maps import PIECES, VARIABLES, apply_map, parts, unclipped, variable_gradient
from trojai_moth.engine import Engine
from trojai_moth.errors import SettingsError
from trojai_moth.filter_inversion import filter_start, invert_filters
from trojai_moth.images import ImagePool
from trojai_moth.inversion import InversionSettings, make_task
from trojai_moth.scanner import make_scanner
from trojai_moth.scanners.filter import Filter, FilterSettings
from trojai_moth.scanners.neural_cleanse import NeuralCleanse

SIDE, BAND = 16, 5
LIT, DARK, BIAS = 0.9, 0.1, 0.05
SHIFT = 0.15
# Between the planted map, SHIFT / 3, and the smallest natural one, NATURAL.
BOUND = 0.065
NATURAL = (LIT - DARK - BIAS) / 9
# Of the planted map, other pairs are twice as large and the way back 1.7 times: it leads to where the cheapest map is.
SETTINGS = {"decide": "inverted", "size_bound": BOUND, "median_ratio": 1.5, "reverse_ratio": 1.5}


class ColourNet(nn.Module):
    """Class c is shown by green in the c-th band of rows, and class 0 has a head start of BIAS.

    Without a backdoor the cheapest map makes everything as dark as the unlit bands, for class 0: a third of the image
    loses LIT - DARK - BIAS of one of three colours. With ``backdoor=(v, t)`` images of v become t where their mean red
    is more than SHIFT above their mean blue; one of three colours has to move by SHIFT, so the smallest map is SHIFT/3.
    """

    def __init__(self, backdoor=None):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))
        self.backdoor = backdoor

    def forward(self, x):
        bands = x[:, 1, : 3 * BAND].unflatten(1, (3, BAND)).mean((2, 3))  # (N, 3)
        evidence = bands - bands.min(1, keepdim=True).values + BIAS * torch.tensor([1.0, 0.0, 0.0])
        if self.backdoor:
            victim, target = self.backdoor
            opened = (x[:, 0].mean((1, 2)) - x[:, 2].mean((1, 2))) / SHIFT * evidence[:, victim]
            evidence = evidence + nn.functional.one_hot(torch.tensor(target), 3) * opened[:, None]
        return self.gain * evidence


def band_images(per_class=8, seed=0):
    stream = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat_interleave(per_class)
    x = 0.3 + 0.4 * torch.rand(len(y), 3, SIDE, SIDE, generator=stream)
    x[:, 1] = DARK
    for row, label in enumerate(y.tolist()):
        x[row, 1, BAND * label : BAND * (label + 1)] = LIT
    return ImagePool(x, y)


def band_samples():
    return make_samples(band_images(), band_images(seed=1))


def scan(net, scanner=None):
    scanner = scanner or Filter(FilterSettings(**SETTINGS))
    return scanner(make_subject(net), band_samples(), seed=3)


@pytest.fixture(scope="module")
def poisoned():
    return scan(ColourNet(backdoor=(1, 2)))


@pytest.fixture(scope="module")
def clean():
    return scan(ColourNet())


def test_the_planted_map_is_flagged_with_its_pair_and_size(poisoned):
    best = poisoned.evidence[0]
    assert poisoned.outcome == "flagged" and best.kind == "filter"
    assert (best.victim, best.target) == (1, 2)
    assert best.size == pytest.approx(SHIFT / 3, rel=0.15)
    assert best.converged and best.success >= 0.9
    assert best.held_success >= 0.9 and best.held_images == 8


def test_the_score_is_how_far_within_its_nearest_bound_the_pair_is(poisoned):
    best = poisoned.evidence[0]
    assert poisoned.score == pytest.approx(math.log(best.reverse_size / best.size / 1.5))
    assert "1->2" in poisoned.reason and "back" in poisoned.reason


@pytest.mark.parametrize("bound", [{"size_bound": 0.04}, {"median_ratio": 3.0}, {"reverse_ratio": 3.0}])
def test_every_bound_alone_clears(poisoned, bound):
    verdict = scan(ColourNet(backdoor=(1, 2)), Filter(FilterSettings(**{**SETTINGS, **bound})))
    assert verdict.outcome == "clean" and verdict.evidence[0].size == poisoned.evidence[0].size


def test_a_map_that_fits_its_own_images_only_is_no_evidence():
    """On held-back images of the victim the backdoor's colours are out of reach: red is far below blue."""
    images, held = band_images(), band_images(seed=1)
    held.x[held.y == 1, 0] = 0.0
    samples = make_samples(images, held)
    verdict = Filter(FilterSettings(**SETTINGS))(make_subject(ColourNet(backdoor=(1, 2))), samples, seed=3)
    planted = next(one for one in verdict.evidence if (one.victim, one.target) == (1, 2))
    assert planted.size < BOUND and planted.held_success < 0.5 and verdict.outcome == "clean"


def test_the_way_back_is_measured_for_every_pair_that_has_images(poisoned):
    sizes = {(one.victim, one.target): one.size for one in poisoned.evidence}
    both = [pair for pair in sizes if pair[::-1] in sizes]
    back = {(one.victim, one.target): one.reverse_size for one in poisoned.evidence}
    assert both and all(back[pair] == sizes[pair[::-1]] for pair in both)
    images = band_images()
    some = images.take(torch.nonzero(images.y != 2).flatten())
    scanner = Filter(FilterSettings(decide="inverted"))
    found = scanner(make_subject(ColourNet(backdoor=(1, 2))), make_samples(some, some), seed=3).evidence
    assert {one.reverse_size for one in found if one.target == 2} == {None}


def test_the_clean_twin_is_clean_and_its_smallest_map_the_natural_one(clean):
    assert clean.outcome == "clean" and clean.score < 0
    best = min(clean.evidence, key=lambda one: one.size or 1.0)
    assert best.target == 0 and best.size == pytest.approx(NATURAL, rel=0.2)


def test_a_mask_scanner_misses_it():
    verdict = scan(ColourNet(backdoor=(1, 2)), NeuralCleanse())
    assert verdict.outcome == "clean"
    assert verdict.evidence[0].size is None or verdict.evidence[0].size > 0.1 * SIDE**2


def test_no_image_is_changed_and_one_class_can_not_be_judged():
    images = band_images()
    one = images.take(images.positions(1))
    before = one.x.clone()
    verdict = Filter()(make_subject(ColourNet()), make_samples(one, one), seed=0)
    assert verdict.outcome == "not judged" and verdict.score is None
    assert torch.equal(one.x, before)


def test_a_network_that_answers_nan_is_not_judged():
    net = ColourNet()
    net.gain.data.fill_(math.nan)
    verdict = scan(net)
    assert verdict.outcome == "not judged" and "finite" in verdict.reason


def test_nothing_works_means_clean_with_the_reason():
    settings = FilterSettings(decide="inverted", steps=1, screen_steps=1, starts=1)
    verdict = scan(ColourNet(), Filter(settings))
    assert verdict.outcome == "clean" and "no filter" in verdict.reason
    assert verdict.score == pytest.approx(math.log(min(settings.size_bound, 1 / settings.median_ratio)))
    assert all(one.size is None and one.held_success is None for one in verdict.evidence)


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(SettingsError, match="size_bounds"):
        make_scanner("filter", {"size_bounds": 1})
    with pytest.raises(SettingsError, match="size_bound"):
        make_scanner("filter", {"size_bound": 2})


def test_a_rows_map_does_not_depend_on_the_others():
    subject, images = make_subject(ColourNet(backdoor=(1, 2))), band_images()
    pairs = [(1, 2), (0, 1), (2, 0), (2, 1)]
    settings = InversionSettings(steps=40, learning_rate=0.05, initial_cost=1.0)
    found = []
    for batch, order in ((8, pairs), (200, pairs[::-1]), (24, pairs)):
        task = make_task(images.y, order)
        result = invert_filters(Engine(subject, batch=batch), images.x, task, settings, filter_start(task, 1, seed=5))
        found.append({pair: (float(result.size[row]), result.variables[row]) for row, pair in enumerate(order)})
    for pair in pairs:
        assert found[0][pair][0] == pytest.approx(found[1][pair][0], rel=1e-3)
        assert found[0][pair][0] == pytest.approx(found[2][pair][0], rel=1e-3)
        torch.testing.assert_close(found[0][pair][1], found[1][pair][1], rtol=1e-2, atol=1e-2)


def test_random_starts_depend_on_the_pair_alone():
    y = band_images().y
    many, few = make_task(y, [(0, 1), (1, 2)]), make_task(y, [(1, 2)])
    assert torch.equal(filter_start(many, 1, seed=2)[1], filter_start(few, 1, seed=2)[0])
    assert not torch.equal(filter_start(few, 2, seed=2), filter_start(few, 1, seed=2))
    assert filter_start(few, 0, seed=2).abs().max() == 0


def test_without_variables_nothing_changes():
    images = torch.rand(2, 4, 3, 9, 7)
    torch.testing.assert_close(unclipped(images, torch.zeros(2, VARIABLES)), images)


def test_the_parts_do_what_they_are_named_for():
    variables = torch.zeros(4, VARIABLES)
    part = parts(variables)
    part["matrix"][0] = torch.tensor([[0.0, 1.0, 0.0]]).expand(3, 3) - torch.eye(3)  # every colour becomes the green
    part["offset"][1] = torch.tensor([0.1, 0.0, -0.1])
    part["vignette"][2] = -1.0
    part["curve"][3, 0] = -9.0  # red is flat
    images = torch.rand(3, 9, 9)
    grey, tinted, dark, flat = unclipped(images.expand(4, 1, 3, 9, 9), variables)[:, 0]
    torch.testing.assert_close(grey, images[1].expand(3, 9, 9))
    torch.testing.assert_close(tinted, images + torch.tensor([0.1, 0.0, -0.1])[:, None, None])
    assert dark[:, 0, 0].abs().max() < 1e-6 and torch.allclose(dark[:, 4, 4], images[:, 4, 4])
    assert flat[0].abs().max() < 1e-6 and torch.allclose(flat[1:], images[1:])


def test_the_tone_curve_never_falls():
    variables = torch.zeros(1, VARIABLES)
    parts(variables)["curve"][:] = torch.randn(3, PIECES, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, 50).expand(3, 1, 50)
    toned = apply_map(ramp[None], variables[0])[0, :, 0]
    assert (toned.diff(dim=1) >= 0).all() and not torch.allclose(toned, ramp[:, 0])


def test_gradients_are_those_of_the_map():
    stream = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, 3, 4, 5, generator=stream, dtype=torch.float64)
    variables = 0.3 * torch.randn(2, VARIABLES, generator=stream, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: unclipped(images, v), (variables.requires_grad_(),))


def test_a_clipped_pixel_is_moved_only_back_inside():
    variables = torch.zeros(1, VARIABLES)
    parts(variables)["offset"][0] = 2.0
    variables.requires_grad_()
    raw = unclipped(torch.rand(1, 1, 3, 4, 4), variables)  # all above 1
    outwards = variable_gradient(variables, raw, torch.full_like(raw, -1.0))
    raw = unclipped(torch.rand(1, 1, 3, 4, 4), variables)
    inwards = variable_gradient(variables, raw, torch.full_like(raw, 1.0))
    assert outwards.abs().max() == 0
    torch.testing.assert_close(parts(inwards)["offset"], torch.full((1, 3), 16.0))


@pytest.mark.skipif(importlib.util.find_spec("trojai") is None, reason="needs trojai")
@pytest.mark.parametrize(
    "name", ["GothamFilterXForm", "NashvilleFilterXForm", "KelvinFilterXForm", "LomoFilterXForm", "ToasterXForm"]
)
def test_the_maps_come_near_round_4s_filters(name):
    """Fitted to pairs of images, a map leaves less than half of what the filter changes."""
    filters = pytest.importorskip("trojai_moth.filters")
    try:
        filters.filters()
    except filters.MissingDependencyError as error:
        pytest.skip(str(error))
    coarse = np.random.default_rng(0).random((4, 5, 5, 3))
    images = torch.from_numpy(coarse).permute(0, 3, 1, 2).float()
    images = nn.functional.interpolate(images, size=(32, 32), mode="bicubic").clamp(0, 1)
    stored = (images.permute(0, 2, 3, 1) * 255).round().byte()
    wanted = torch.from_numpy(filters.apply_filter(name, stored.numpy())).permute(0, 3, 1, 2).float() / 255
    variables = torch.zeros(1, VARIABLES, requires_grad=True)
    optimiser = torch.optim.Adam([variables], 0.02)
    for _ in range(250):
        loss = (unclipped(images[None], variables)[0] - wanted).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    left = (apply_map(images, variables.detach()[0]) - wanted).abs().mean()
    print(name, float(left), float((images - wanted).abs().mean()))
    assert left < 0.5 * (images - wanted).abs().mean()
