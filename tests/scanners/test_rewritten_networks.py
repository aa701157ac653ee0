"""A network written in another way that decides the same is judged the same, by every scanner and every measure."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from rewritings import ALIKE, backdoored_subject, plus, relu_scaled, rewritten, times
from torch import nn

from trojai_moth.core.errors import MothError
from trojai_moth.core.standard_logits import SPREAD, UnusableLogits, as_published, spread, standardised
from trojai_moth.hardeners.registry import make_hardener
from trojai_moth.scanners.registry import make_scanner
from trojai_moth.testing.planted import PlantedNet, make_samples, make_subject, planted_samples, square_images
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import DistanceSettings

SETTINGS = {
    "neural-cleanse": {"steps": 60, "screen_steps": 30, "screen_keep": 3, "precision": "fp32"},
    "k-arm": {"steps": 60},
    "filter": {"steps": 20, "screen_keep": 2},
    "stamps": {"clean_networks": 0},
}
THREE = ("times 1e-12", "batch norm folded", "units duplicated")


@pytest.fixture(scope="module")
def subject():
    return backdoored_subject()


@pytest.fixture(scope="module")
def samples():
    return make_samples(square_images(12, seed=1), square_images(12, seed=2))


@pytest.fixture(scope="module")
def verdicts(subject, samples):
    return {name: scan(name, subject, samples) for name in SETTINGS}


def scan(name, subject, samples):
    return make_scanner(name, SETTINGS[name])(subject, samples, seed=3)


@pytest.mark.parametrize("rewriting", ALIKE)
def test_rewritings_decide_the_same(subject, samples, rewriting):
    logits, others = (one.logits(samples.train.x) for one in (subject, rewritten(subject, ALIKE[rewriting])))
    assert torch.equal(logits.argmax(1), others.argmax(1))


@pytest.mark.parametrize("rewriting", [*THREE, "times 1e12"])
@pytest.mark.parametrize("scanner", SETTINGS)
def test_every_scanner_says_the_same(subject, samples, verdicts, scanner, rewriting):
    expected, found = verdicts[scanner], scan(scanner, rewritten(subject, ALIKE[rewriting]), samples)
    assert found.outcome == expected.outcome != "not judged"
    assert found.score == pytest.approx(expected.score, abs=0.1)
    first, second = found.evidence[0], expected.evidence[0]
    assert (first.victim, first.target) == (second.victim, second.target)
    if second.size is not None:
        assert first.size == pytest.approx(second.size, rel=0.05)


@pytest.mark.parametrize("rewriting", ALIKE)
def test_distances_are_the_same(subject, samples, rewriting):
    settings = DistanceSettings(steps=40, seeds=(0,), images_per_class=10, precision="fp32")

    def measured(network):
        found = measure_distances(network, samples.held, settings, "toys", pairs=[(0, 1), (2, 0)])
        return [pair.distance for pair in found.pairs]

    assert measured(rewritten(subject, ALIKE[rewriting])) == pytest.approx(measured(subject), rel=0.03)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_moth_makes_the_same_network_at_the_same_scale(subject, samples, factor):
    moth = make_hardener("moth", {"rounds": 1, "turns": 2, "precision": "fp32"})
    plain, scaled = (moth(one, samples, seed=1).subject for one in (subject, rewritten(subject, times(factor))))
    x = samples.held.x
    assert not torch.allclose(plain.logits(x), subject.logits(x), atol=1e-3)
    assert torch.allclose(scaled.logits(x) / factor, plain.logits(x), atol=0.05)


def test_moth_works_on_layers_that_are_scaled_against_each_other(subject, samples):
    moth = make_hardener("moth", {"rounds": 1, "turns": 2, "precision": "fp32"})
    plain, scaled = (moth(one, samples, seed=1) for one in (subject, rewritten(subject, relu_scaled)))
    settings = DistanceSettings(steps=40, seeds=(0,), images_per_class=10, precision="fp32")
    first, second, third = (
        measure_distances(one, samples.held, settings, "toys", pairs=[(0, 1)]).pairs[0].distance
        for one in (subject, plain.subject, scaled.subject)
    )
    assert second > 1.2 * first
    assert third > 1.2 * first
    assert not any(done.taken_back for done in scaled.trace.rounds)


def test_a_hardening_that_changes_nothing_leaves_every_bit(subject, samples):
    work = standardised(subject, samples.train).clone()
    left = as_published(work, subject).module.state_dict()
    assert all(torch.equal(left[name], tensor) for name, tensor in subject.module.state_dict().items())


def test_the_spread_is_the_standard_one_whatever_the_network_is_made_of(subject, samples):
    assert spread(standardised(subject, samples.train).logits(samples.train.x)) == pytest.approx(SPREAD, rel=0.05)
    planted = planted_samples()
    without_layers = standardised(make_subject(PlantedNet()), planted.train)
    assert without_layers.logit_scale.head is None
    assert spread(without_layers.logits(planted.train.x)) == pytest.approx(SPREAD, rel=0.05)


def test_classes_with_scales_of_their_own_are_brought_to_one(subject, samples):
    """Every logit above 0 for its own class alone: then any factor on each class decides the same."""
    module = copy.deepcopy(subject.module).requires_grad_(False)
    images = samples.train
    highest = module.body(images.x).topk(2, 1).values
    between = float((highest[:, 0].min() + highest[:, 1].max()) / 2)
    if not highest[:, 1].max() < highest[:, 0].min():
        pytest.skip("the toy's winners and losers overlap")
    factors = torch.tensor([1e-5, 1.0, 1e5])
    with torch.no_grad():
        module.body[8].weight.mul_(factors[:, None])
        module.body[8].bias.sub_(between).mul_(factors)
    scaled = replace(subject, module=module)
    assert torch.equal(scaled.logits(images.x).argmax(1), subject.logits(images.x).argmax(1))
    expected, found = (scan("neural-cleanse", one, samples) for one in (subject, scaled))
    assert found.outcome == expected.outcome == "flagged"
    first, second = found.evidence[0], expected.evidence[0]
    assert first.target == second.target == 1  # any class is turned there
    assert math.log(first.size / second.size) == pytest.approx(0, abs=math.log(2))


class _Stepped(nn.Module):
    """A network whose outputs are rounded, so that they have no gradient."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return (self.inner(x) * 4).round() / 4


@pytest.mark.parametrize("scanner", ["neural-cleanse", "k-arm"])
def test_a_network_without_gradients_is_not_judged(subject, samples, scanner):
    hidden = replace(subject, module=_Stepped(copy.deepcopy(subject.module)))
    verdict = scan(scanner, hidden, samples)
    assert verdict.outcome == "not judged" and "no gradient to follow" in verdict.reason


@pytest.mark.parametrize("factor", [0.0, 1e-42, 1e38])
def test_logits_that_float32_cannot_hold_are_not_judged(subject, samples, factor):
    lost = rewritten(subject, times(factor))
    with pytest.raises(UnusableLogits):
        standardised(lost, samples.train)
    for name in SETTINGS:
        verdict = scan(name, lost, samples)
        assert verdict.outcome == "not judged" and verdict.skip == "invalid"
    with pytest.raises(MothError, match="the network gives logits that"):
        measure_distances(lost, samples.held, DistanceSettings(steps=2), "toys")


class _Changed(nn.Module):
    """A network whose logits (N, classes) are changed by a function of them and the images."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x):
        return self.change(self.inner(x), x)


def _small_for(chosen):
    """Logits a millionth as large on images for which ``chosen`` of logits and images holds."""
    return lambda logits, x: logits * torch.where(chosen(logits, x), 1e-6, 1.0)[:, None]


def _noisy(logits, x):
    return (x[:, :, 1:] - x[:, :, :-1]).abs().mean(dim=(1, 2, 3)) > 0.16  # 0.153 at most of clean and patched images


@pytest.mark.parametrize(
    "change",
    [_small_for(lambda logits, x: logits.argmax(1) != 1), _small_for(_noisy)],
    ids=["of some classes", "under noise"],
)
def test_images_with_scales_of_their_own_are_brought_to_one(subject, samples, verdicts, change):
    hidden = replace(subject, module=_Changed(copy.deepcopy(subject.module), change))
    x = samples.train.x
    even = standardised(hidden, samples.train).logits(x)
    assert torch.equal(even.argmax(1), subject.logits(x).argmax(1))
    assert torch.allclose(even.std(1, correction=0), torch.tensor(SPREAD), rtol=1e-3)
    expected, found = verdicts["neural-cleanse"], scan("neural-cleanse", hidden, samples)
    assert found.outcome == expected.outcome == "flagged"
    assert (found.evidence[0].victim, found.evidence[0].target) == (2, 1)
    assert math.log(found.evidence[0].size / expected.evidence[0].size) == pytest.approx(0, abs=math.log(2))


def test_an_image_with_equal_logits_stays_finite(subject, samples):
    """Such as stock squeezenets give, whose last layer is a ReLU."""

    def change(logits, x):
        return torch.where((logits.argmax(1) == 0)[:, None], logits * 1e-6, logits) * (x.mean((1, 2, 3)) > 0)[:, None]

    even = standardised(replace(subject, module=_Changed(copy.deepcopy(subject.module), change)), samples.train)
    assert even.logit_scale.head is None
    assert torch.equal(even.logits(torch.zeros(1, 3, 16, 16)), torch.zeros(1, 3))


def test_an_ordinary_network_keeps_its_scales(subject, samples):
    assert standardised(subject, samples.train).logit_scale.head is not None


@pytest.mark.parametrize("scanner", ["neural-cleanse", "k-arm"])
def test_a_gradient_that_the_masks_cost_drowns_is_none(subject, samples, scanner):
    """Rounded outputs that let a millionth of the slope through: only the cost would move the mask."""

    def stepped(logits, x):
        return (logits * 4).round().detach() / 4 + 1e-6 * (logits - logits.detach())

    verdict = scan(scanner, replace(subject, module=_Changed(copy.deepcopy(subject.module), stepped)), samples)
    assert verdict.outcome == "not judged" and "no gradient to follow" in verdict.reason


def test_a_constant_that_takes_all_digits_is_taken_off(subject, samples, verdicts):
    constant = rewritten(subject, plus(1e6))
    work = standardised(constant, samples.train)
    assert work.logit_scale.centred and work.logits(samples.train.x).abs().max() < 100
    expected, found = verdicts["k-arm"], scan("k-arm", constant, samples)
    assert found.outcome == expected.outcome and found.evidence[0].size == pytest.approx(
        expected.evidence[0].size, 0.05
    )
    left = as_published(work.clone(), constant).module.state_dict()
    assert all(torch.equal(left[name], tensor) for name, tensor in constant.module.state_dict().items())
