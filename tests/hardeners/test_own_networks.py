"""Networks as strangers write them are measured and hardened as others are, and their files' names stay."""

import pytest
import torch
from own_networks import NETWORKS, own_images, own_network

import trojai_moth as tm
from trojai_moth.core.classifier import Classifier
from trojai_moth.core.errors import MothError
from trojai_moth.core.standard_logits import as_published, spread, standard_spread, standardised
from trojai_moth.eval.distance_bounds.feature_layer import last_feature_layer
from trojai_moth.hardeners.nad import activations_at, attention_places
from trojai_moth.triggers.batch_norm_folding import fold
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import DistanceSettings
from trojai_moth.triggers.engine import Engine

# Names of networks, with the channels of their images.
CASES = [*((name, 3) for name in NETWORKS), ("softmax", 1)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}, {case[1]} channels")
def case(request):
    name, channels = request.param
    network, output, classes = own_network(name, channels)
    pool = own_images(20, 11, classes, channels)
    model = tm.open_model(network, images=pool.x, labels=pool.y, device="cpu")
    assert model.subject.output == output and model.classes == classes
    return model, output, name


@pytest.fixture
def subject(case):
    return case[0].subject.clone()


@pytest.fixture
def few(case):
    return own_images(3, 12, case[0].classes, case[0].samples.train.x.shape[1])


def test_logits_are_the_networks_own(case, subject, few):
    name = case[2]
    assert subject.accuracy(few.x, few.y) == 1.0
    alone = torch.cat([subject.logits(image[None]) for image in few.x])
    torch.testing.assert_close(alone, subject.logits(few.x), rtol=1e-4, atol=1e-4)
    assert isinstance(subject.module, Classifier) == (name != "no statistics")


def test_folding_and_the_engine_keep_the_function(case, subject, few):
    twin = fold(subject.module)
    assert len(twin.pairs) == {"last of a tuple": 1, "named": 1, "no statistics": 1}.get(case[2], 0)
    wanted = subject.logits(few.x)
    with torch.no_grad():
        torch.testing.assert_close(twin.module(few.x), wanted, rtol=1e-3, atol=1e-3)
        for parameter in subject.module.parameters():
            parameter.mul_(1.05)
        twin.refresh(subject.module)
        torch.testing.assert_close(twin.module(few.x), subject.logits(few.x), rtol=1e-3, atol=1e-3)
    zeros = torch.zeros(len(few), dtype=torch.long)
    found = Engine(subject).gradient(few.x, zeros, torch.ones(len(few)))
    x = few.x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(subject.module(x), zeros, reduction="sum").backward()
    torch.testing.assert_close(found.images, x.grad, rtol=1e-2, atol=1e-4)


def live(subject, few):
    """Share of images that another class's loss has a gradient for."""
    x = few.x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(subject.module(x), (few.y + 1) % subject.classes).backward()
    return float((x.grad.flatten(1).abs().amax(1) > 0).float().mean())


@pytest.mark.parametrize("scale", [1.0, 1e-3, 8.0])
def test_logits_are_brought_to_the_standard_scale_and_weights_back_to_the_last_bit(case, subject, few, scale):
    head = [layer for layer in subject.module.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(scale)
    before = {name: tensor.clone() for name, tensor in subject.network.state_dict().items()}
    even = standardised(subject, few)
    assert spread(even.logits(few.x)) == pytest.approx(standard_spread(subject), rel=0.06)
    assert torch.equal(even.logits(few.x).argmax(1), few.y)
    assert even.logit_scale.head is not None  # a factor on the logits moves all logarithms of an image alike
    assert live(even, few) == 1.0
    work = even.clone()
    back = as_published(work, subject)
    assert all(torch.equal(tensor, before[name]) for name, tensor in back.network.state_dict().items())
    torch.testing.assert_close(back.logits(few.x), subject.logits(few.x))
    assert not [hook for part in back.module.modules() for hook in part._forward_hooks]


def test_distances_are_measured(subject, few):
    found = measure_distances(subject, few, DistanceSettings(images_per_class=3, steps=10, seeds=(1,)), "squares")
    assert len(found.pairs) == subject.classes * (subject.classes - 1)


def test_moth_hardens_it_and_its_weights_come_back(case, tmp_path):
    model, _, _ = case
    before = {name: tensor.clone() for name, tensor in model.subject.network.state_dict().items()}
    hardened = tm.harden(
        model,
        "moth",
        settings={"rounds": 1, "pairs_per_round": 1, "warmup_steps": 20, "first_steps": 5, "precision": "fp32"},
    )
    after = hardened.subject.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.subject.network.state_dict().items())
    tm.save_weights(hardened, tmp_path / "w.safetensors")
    read = tm.load_weights(tmp_path / "w.safetensors", model)
    x = model.samples.held.x
    assert torch.equal(read.subject.logits(x), hardened.subject.logits(x))


def test_neural_cleanse_scans_it(case):
    result = tm.scan(case[0], "neural-cleanse", settings={"steps": 10, "precision": "fp32"})
    assert 0 <= result.probability <= 1


def test_layers_are_found_for_attention_and_features(case, subject, few):
    places = attention_places(subject, 3)
    assert places
    with activations_at(subject.module, places) as found:
        subject.logits(few.x)
    assert set(found) == set(places)
    if case[2] == "named":  # everything there is before its one convolution is the image
        with pytest.raises(MothError, match="no place in this network"), last_feature_layer(subject):
            pass
        return
    with last_feature_layer(subject) as cut, torch.no_grad():
        features, logits = cut.both(few.x)
        torch.testing.assert_close(cut.rest(features), logits)
        torch.testing.assert_close(logits, subject.logits(few.x), rtol=1e-4, atol=1e-4)
