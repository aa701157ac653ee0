import importlib.util
import math

import numpy as np
import pytest
import torch
from torch import nn
from toys import make_samples, make_subject

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.images import ImagePool
from trojai_moth.scanners.filter import Filter, FilterScanSettings
from trojai_moth.scanners.neural_cleanse import NeuralCleanse
from trojai_moth.scanners.registry import make_scanner
from trojai_moth.triggers.colour_maps import PIECES, VARIABLES, apply_map, parts, unclipped, variable_gradient
from trojai_moth.triggers.engine import Engine
from trojai_moth.triggers.filter_inversion import invert_filters
from trojai_moth.triggers.task import InversionSettings, make_task

SIDE, BAND = 16, 5
LIT, DARK, BIAS = 0.9, 0.1, 0.05
SHIFT = 0.15
# The smallest map of a network without a backdoor, beside the planted one of SHIFT / 3.
NATURAL = (LIT - DARK - BIAS) / 9
PAIRS = [(victim, target) for victim in range(3) for target in range(3) if victim != target]


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
    return (scanner or Filter())(make_subject(net), band_samples(), seed=3)


def search(net, pairs, images=None):
    """As the scanner searches, but from maps that do nothing."""
    images = images or band_images()
    settings = InversionSettings(steps=100, success_bound=0.9, learning_rate=0.05, initial_cost=10.0)
    task = make_task(images.y, pairs)
    return invert_filters(Engine(make_subject(net)), images.x, task, settings, torch.zeros(len(pairs), VARIABLES))


def test_the_search_finds_the_planted_map_with_its_size():
    found = search(ColourNet(backdoor=(1, 2)), PAIRS)
    sizes = dict(zip(PAIRS, found.size.tolist(), strict=True))
    assert min(sizes, key=sizes.get) == (1, 2) and sizes[1, 2] == pytest.approx(SHIFT / 3, rel=0.15)
    assert bool(found.converged[PAIRS.index((1, 2))]) and found.success[PAIRS.index((1, 2))] >= 0.9


def test_the_smallest_map_of_the_clean_twin_is_the_natural_one():
    found = search(ColourNet(), PAIRS)
    size, (_, target) = min(zip(found.size.tolist(), PAIRS, strict=True))
    assert target == 0 and size == pytest.approx(NATURAL, rel=0.2)


def test_where_no_map_works_there_is_no_size():
    verdict = scan(ColourNet(), Filter(FilterScanSettings(steps=1)))
    assert verdict.outcome == "clean" and verdict.evidence
    assert all(one.size is None and one.held_success is None and not one.converged for one in verdict.evidence)


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


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(SettingsError, match="known_bounds"):
        make_scanner("filter", {"known_bounds": 0.5})
    with pytest.raises(SettingsError, match="known_bound"):
        make_scanner("filter", {"known_bound": 2})


def test_a_rows_map_does_not_depend_on_the_others():
    subject, images = make_subject(ColourNet(backdoor=(1, 2))), band_images()
    pairs = [(1, 2), (0, 1), (2, 0), (2, 1)]
    settings = InversionSettings(steps=40, learning_rate=0.05, initial_cost=1.0)
    starts = dict(zip(pairs, 0.1 * torch.randn(4, VARIABLES, generator=torch.Generator().manual_seed(5)), strict=True))
    found = []
    for batch, order in ((8, pairs), (200, pairs[::-1]), (24, pairs)):
        task = make_task(images.y, order)
        start = torch.stack([starts[pair] for pair in order])
        result = invert_filters(Engine(subject, batch=batch), images.x, task, settings, start)
        found.append({pair: (float(result.size[row]), result.variables[row]) for row, pair in enumerate(order)})
    for pair in pairs:
        assert found[0][pair][0] == pytest.approx(found[1][pair][0], rel=1e-3)
        assert found[0][pair][0] == pytest.approx(found[2][pair][0], rel=1e-3)
        torch.testing.assert_close(found[0][pair][1], found[1][pair][1], rtol=1e-2, atol=1e-2)


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
    filters = pytest.importorskip("trojai_moth.synthesis.photo_filters")
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
