"""Networks as they are: what their output is, found by asking, and all of it as logits (N, K)."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from trojai_moth.core.channels import Normalisation, normalisation, usual
from trojai_moth.core.classifier import (
    Classifier,
    UnusableNetworkError,
    as_classifier,
    classes_of,
    find_output,
    measure_batch_norms,
)
from trojai_moth.core.errors import SettingsError, UnreadableModelError
from trojai_moth.core.outputs import OutputReading
from trojai_moth.core.records import from_json, to_json

Pair = namedtuple("Pair", "features logits")


class Giving(nn.Module):
    """Logits (N, 4) of images of any channels and size, given in the way that ``form`` says."""

    def __init__(self, form, channels=3, classes=4):
        super().__init__()
        stream = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, channels, generator=stream))
        self.form = form

    def forward(self, x):
        return self.form(((x - 0.5).mean((2, 3)) * 20 @ self.weight.T), x)


def pictures(count=20, channels=3, size=6, seed=1):
    """Images whose channels have means of their own."""
    stream = torch.Generator().manual_seed(seed)
    level = torch.rand(count, channels, 1, 1, generator=stream)
    return (level + 0.1 * torch.rand(count, channels, size, size, generator=stream)).clamp(0, 1)


def logits_of(x, channels=3, classes=4):
    return Giving(lambda z, x: z, channels, classes)(x).detach()


FORMS = {
    "plain": (lambda z, x: z, OutputReading()),
    "first of a tuple": (lambda z, x: (z, x), OutputReading(place="first")),
    "first, with a side output": (lambda z, x: (z, z + 1), OutputReading(place="first")),
    "the only one": (lambda z, x: [z], OutputReading(place="first")),
    "last of a list": (lambda z, x: [x, x.mean((2, 3)), z], OutputReading(place="last")),
    "last of a named tuple": (lambda z, x: Pair(x.flatten(1), z), OutputReading(place="last")),
    "named logits": (lambda z, x: {"loss": None, "logits": z}, OutputReading(place="logits")),
    "named out": (lambda z, x: {"aux": z, "out": z}, OutputReading(place="out")),
    "a map of one pixel": (lambda z, x: z[..., None, None], OutputReading(row=4)),
    "squeezed": (lambda z, x: z.squeeze(), OutputReading(row=4)),
    "logarithms": (lambda z, x: z.log_softmax(1), OutputReading(kind="log-probabilities")),
    "probabilities": (lambda z, x: z.softmax(1), OutputReading(kind="probabilities")),
    "probabilities, last": (lambda z, x: (x, z.softmax(1)), OutputReading(place="last", kind="probabilities")),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_each_kind_of_output_becomes_the_same_logits(name, channels):
    form, expected = FORMS[name]
    network, x = Giving(form, channels).train(), pictures(channels=channels)
    found = find_output(network, x, 4)
    assert found == expected and from_json(OutputReading, to_json(found)) == found
    assert bool(found.words) == (name not in ("plain", "a map of one pixel", "squeezed"))
    module = as_classifier(network, None, found)
    assert (module is network) == (name in ("plain", "logarithms")) and not network.training
    wanted = logits_of(x, channels)
    if "probabilities" in found.kind:
        wanted = wanted.log_softmax(1)
    for count in (1, 20):
        torch.testing.assert_close(module(x[:count]), wanted[:count], rtol=1e-4, atol=1e-4)
    assert classes_of(network, x, found) == 4
    assert find_output(module, x, 4) == found  # its own reading does not count


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (lambda z, x: z, OutputReading(single=True)),
        (lambda z, x: z[:, 0], OutputReading(single=True, row=1)),
        (lambda z, x: z.squeeze(), OutputReading(single=True, row=1)),
        (lambda z, x: (z / 8).sigmoid(), OutputReading(single=True, kind="probabilities")),
        (lambda z, x: {"pred": (z / 8).sigmoid()}, OutputReading(single=True, kind="probabilities", place="pred")),
    ],
)
def test_one_number_is_two_classes(form, expected):
    network, x = Giving(form, classes=1), pictures()
    found = find_output(network, x, 2)
    assert found == expected == find_output(network, x) and "two classes" in found.words
    z = logits_of(x, classes=1) / (8 if found.kind == "probabilities" else 1)
    module = as_classifier(network, None, found)
    for count in (1, 20):
        torch.testing.assert_close(module(x[:count]), torch.cat((-z, z), 1)[:count] / 2, rtol=1e-3, atol=1e-4)
    assert classes_of(network, x, found) == 2


def test_certain_probabilities_keep_finite_gradients():
    for classes, form in ((4, lambda z, x: (99 * z).softmax(1)), (1, lambda z, x: (99 * z).sigmoid())):
        network, x = Giving(form, classes=classes), pictures()
        module = as_classifier(network, None, find_output(network, x, max(classes, 2)))
        assert bool((network(x) == 0).any())
        x.requires_grad_()
        loss = nn.functional.cross_entropy(module(x), torch.zeros(20, dtype=torch.long))
        loss.backward()
        assert bool(torch.isfinite(x.grad).all()) and bool(torch.isfinite(loss))


def test_a_sum_of_one_on_the_images_alone_is_no_probability():
    clean = pictures(16)
    network = Giving(lambda z, x: torch.where((x.std((2, 3)) < 0.1).all(1, keepdim=True), z.softmax(1), z))
    assert find_output(network, clean, 4).kind == "logits"
    assert find_output(Giving(lambda z, x: z * torch.inf), clean, 4).kind == "logits"


@pytest.mark.parametrize(
    ("form", "classes", "reason"),
    [
        (lambda z, x: z, 7, "gives 16 x 4 numbers for 16 images, not 16 x 7; correct the number of classes"),
        (lambda z, x: z[..., None, None].expand(-1, -1, 3, 3), 4, "16 x 4 x height x width numbers"),
        (lambda z, x: z.argmax(1), 4, "gives 16 whole numbers for 16 images"),
        (lambda z, x: {"boxes": z, "scores": z}, 4, "gives a dict of boxes, scores for 16 images"),
        (lambda z, x: [{"boxes": z}], 4, "gives a list of dict for 16 images"),
        (lambda z, x: (x, z, x), 4, "gives a tuple of 16 x 3 x height x width, 16 x 4, 16 x 3 x height x width for"),
        (lambda z, x: (), 4, "gives a tuple of nothing"),
        (lambda z, x: None, 4, "gives a NoneType for 16 images"),
        (lambda z, x: (z.repeat(1, 2), z), None, "gives a tuple of 16 x 8, 16 x 4; say how many classes it has"),
        (lambda z, x: z - z.mean(0), 4, "gives an image other logits by what else is in its batch"),
        (lambda z, x: z.flatten(), None, "gives 64 numbers for 16 images, not one row of logits for each image"),
        (lambda z, x: z @ x, 4, "cannot take images of 6 x 6 pixels ("),
        (lambda z, x: nn.functional.dropout(z, 0.5, True), 4, "gives other logits for the same images each time"),
    ],
)
def test_what_is_no_classifier_is_refused_in_one_line(form, classes, reason):
    with pytest.raises(UnusableNetworkError) as caught:
        find_output(Giving(form), pictures(), classes, "model.pt")
    assert isinstance(caught.value, UnreadableModelError) and "\n" not in str(caught.value)
    assert str(caught.value) == f"model.pt: {caught.value.problem}" and reason in caught.value.problem


def test_layers_without_a_size_are_refused():
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(UnusableNetworkError, match=r"has layers without a size yet \(LazyLinear\)"):
        find_output(network, pictures(), 4)
    network(pictures())
    assert find_output(network, pictures(), 4) == OutputReading()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mean_and_std_are_taken_off_each_channel(channels):
    x = pictures(channels=channels)
    for expected in (*usual(channels).values(), Normalisation(mean=(0.2,), std=(0.1,) * channels)):
        module = as_classifier(nn.Flatten(), expected, OutputReading())
        mean, std = (torch.tensor(part).view(1, -1, 1, 1) for part in (expected.mean, expected.std))
        torch.testing.assert_close(module(x), ((x - mean) / std).flatten(1))
        assert isinstance(module, Classifier) and not module.state_dict() and expected.channels in (1, channels)
        assert from_json(Normalisation, to_json(expected)) == expected and expected.fits(channels)


def test_means_of_other_lengths_are_named_or_refused():
    assert list(usual(1)) == ["MNIST's", "0.5"] and list(usual(4)) == ["0.5"]
    assert usual(1)["MNIST's"].words == "MNIST's mean and std"
    assert normalisation((0.5,), (0.5,), "here").words == "0.5 mean and std"
    assert not usual(3)["0.5"].fits(1) and Normalisation(mean=(0.1,), std=(1,)).fits(3)
    with pytest.raises(SettingsError, match="here: 2 numbers for the mean and 3 for the std"):
        normalisation((0.1, 0.2), (1, 1, 1), "here")
    with pytest.raises(SettingsError):
        normalisation((), (), "here")


class Normed(nn.Module):
    """A network with batch norms that keep no statistics, of maps and of vectors."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.linear = nn.Conv2d(3, 5, 3, bias=False), nn.Linear(5, 4)
        self.norm = nn.BatchNorm2d(5, track_running_stats=False, momentum=0.3)
        self.own = nn.InstanceNorm2d(5)
        self.last = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x):
        return self.last(self.linear((self.norm(self.conv(x)) + 0.1 * self.own(self.conv(x))).relu().mean((2, 3))))


def test_batch_norms_without_statistics_get_those_of_the_images():
    network, x = Normed().eval(), pictures(40)
    names = list(network.state_dict())
    with pytest.raises(UnusableNetworkError):
        find_output(network, x, 4)
    wanted = network(x).detach()
    assert measure_batch_norms(network, [x]) == 2
    assert find_output(network, x, 4) == OutputReading()
    torch.testing.assert_close(network(x), wanted, rtol=0.02, atol=0.02)  # but for n - 1 in the variance
    assert list(network.state_dict()) == names and network.norm.momentum == 0.3
    Normed().load_state_dict(network.state_dict())

    before = network.norm.running_mean.clone()
    network.train()(x * 0.5)
    assert torch.equal(network.norm.running_mean, before)  # training does not change them
    assert measure_batch_norms(network, iter([x[:20] * 0.5, x[20:] * 0.5])) == 2 and not network.training
    torch.testing.assert_close(network.norm.running_mean, before * 0.5)


def test_batch_norms_with_statistics_stay_as_they_are():
    network, x = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), pictures()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert measure_batch_norms(network, [x]) == 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_side_outputs_in_training_are_left_out():
    class Aside(Giving):
        def forward(self, x):
            z = super().forward(x)
            return (z, z + 1) if self.training else z

    network, x = Aside(lambda z, x: z), pictures()
    assert find_output(network, x, 4) == OutputReading()
    module = as_classifier(network, usual(3)["0.5"])
    assert module.train()(x).shape == (20, 4)
