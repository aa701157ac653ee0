import pytest
import torch
from torch import nn
from toys import PlantedNet, make_subject

from trojai_moth.core.errors import MothError
from trojai_moth.eval.distance_bounds.feature_layer import last_feature_layer
from trojai_moth.loading import build_architecture

CLASSES = 5
# One of each family, and the last place that everything passes before the last convolution that is not the classifier.
PLACES = {
    "squeezenetv1_1": "features.12.squeeze_activation",
    "resnet18": "layer4.0",
    "mobilenetv2": "features.17",
    "shufflenet1_0": "stage4",
    "vgg11bn": "features.24",
    "densenet121": "features.transition3",
    "googlenet": "inception5a",
    "inceptionv3": "Mixed_7b",
}


def noise(count, size, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def seasoned(name):
    """A subject whose logits depend on the image: with random weights and no batch statistics some do not."""
    size = 96 if name == "inceptionv3" else 40
    module = build_architecture(name, CLASSES, seed=0).train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        module(noise(4, size, seed=1))
    return make_subject(module, CLASSES, size)


@pytest.mark.parametrize("name", PLACES)
def test_the_rest_makes_of_the_features_what_the_whole_network_makes_of_the_images(name):
    subject = seasoned(name)
    x = noise(3, subject.size)
    with last_feature_layer(subject) as cut, torch.no_grad():
        assert cut.name == PLACES[name]
        features = cut.features(x)
        whole, rest = subject.module(x), cut.rest(features)
    assert features.shape[0] == 3 and features.dim() == 4
    spread = (whole - whole[:1]).abs().max()
    # The rest starts from a blank image: had anything gone past the cut, it would be the blank image's.
    assert spread > 1e-4 and (whole - rest).abs().max() < 1e-3 * spread


class Skipping(nn.Module):
    """Two convolutions, the second with a way past it, and a third one."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x):
        x = self.one(x)
        return self.three(self.two(x) + x).mean((2, 3))


def test_a_place_that_something_goes_past_is_no_cut():
    with last_feature_layer(make_subject(Skipping(), classes=2)) as cut:
        assert cut.name == "one"


def test_a_module_that_runs_twice_and_a_convolution_that_classifies_are_no_cut():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x):
            return self.last(self.again(self.again(self.first(x)))).mean((2, 3))

    with last_feature_layer(make_subject(Twice(), classes=3)) as cut:
        assert cut.name == "first"
    with last_feature_layer(make_subject(Twice(), classes=2)) as cut:
        assert cut.name == "first"


def test_gradients_reach_images_and_features_but_no_weight():
    subject = seasoned("resnet18")
    x = noise(2, subject.size).requires_grad_()
    with last_feature_layer(subject) as cut:
        features = cut.features(x)
        cut.rest(features)[:, 0].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in subject.module.parameters())


def test_the_network_comes_back_as_it_was():
    subject = seasoned("squeezenetv1_1")
    subject.module.train()
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    with last_feature_layer(subject) as cut, torch.no_grad():
        cut.rest(cut.features(noise(2, subject.size)))
        assert not subject.module.training
    assert subject.module.training and all(parameter.requires_grad for parameter in subject.module.parameters())
    assert all(torch.equal(before[name], value) for name, value in subject.module.state_dict().items())
    assert not any(part._forward_hooks for part in subject.module.modules())


def test_a_place_farther_from_the_end_can_be_asked_for():
    subject = seasoned("squeezenetv1_1")
    x = noise(3, subject.size)
    names = []
    for behind in (1, 3, 4, 7):
        with last_feature_layer(subject, behind) as cut, torch.no_grad():
            names.append(cut.name)
            torch.testing.assert_close(cut.rest(cut.features(x)), subject.module(x))
    # A Fire is a squeezing convolution and two beside each other that expand.
    assert names[0] == "features.12.squeeze_activation" and names[1:3] == [
        "features.11",
        "features.11.squeeze_activation",
    ]
    assert names[3] == "features.10.squeeze_activation"


def test_more_convolutions_than_there_are_can_not_follow():
    with (
        pytest.raises(MothError, match="9 convolutions follow"),
        last_feature_layer(make_subject(Skipping(), classes=2), 9),
    ):
        pass


def test_a_network_without_such_a_place_is_said_in_one_line():
    subject = make_subject(PlantedNet())
    with pytest.raises(MothError, match="no place in this network") as caught, last_feature_layer(subject):
        pass
    assert "\n" not in str(caught.value)
