import pytest
import torch
from torch import nn
from torchvision import models
from toys import make_subject, square_images, trained_subject

from trojai_moth.hardeners.nad import activations_at, attention_distance, attention_map, attention_places


class Stages(nn.Module):
    """Sizes 16, 8, 16, 4 and a shared rectifier in place that is used at all of them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 4, 2, stride=2)
        self.up = nn.Upsample(scale_factor=2)
        self.last = nn.Conv2d(4, 5, 4, stride=4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.relu(self.first(x))
        x = self.up(self.relu(self.down(x)))
        return self.pool(self.relu(self.last(x))).flatten(1)


def test_places_are_the_last_of_each_size_in_order_of_last_use():
    subject = make_subject(Stages(), classes=5)
    assert attention_places(subject, 9) == (("relu", 8, 8), ("up", 16, 16), ("relu", 4, 4))
    assert attention_places(subject, 2) == (("up", 16, 16), ("relu", 4, 4))


def test_a_shared_module_is_seen_at_its_place_only():
    subject = make_subject(Stages(), classes=5)
    places = attention_places(subject, 9)
    with activations_at(subject.module, places) as found:
        subject.logits(torch.rand(2, 3, 16, 16))
    assert {place: tuple(value.shape[2:]) for place, value in found.items()} == {p: p[1:] for p in places}
    assert (found["relu", 8, 8] >= 0).all()


def test_a_network_without_maps_has_no_places():
    subject = make_subject(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)))
    assert attention_places(subject, 3) == ()


def test_maps_are_sums_of_squares_of_norm_one():
    activations = torch.tensor([[[[1.0, 0.0]], [[2.0, -3.0]]]])  # (1, 2, 1, 2)
    expected = torch.tensor([[5.0, 9.0]]) / (25.0 + 81.0) ** 0.5
    assert torch.allclose(attention_map(activations), expected)
    assert torch.allclose(attention_map(7 * activations), expected)
    assert (attention_map(torch.zeros(1, 2, 2, 2)) == 0).all()


def test_distance_is_a_sum_over_places_of_mean_squares():
    one, other = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    one[..., 0], other[..., 1] = 3.0, 1.0
    ours, theirs = {("a", 1, 2): one, ("b", 1, 2): one}, {("a", 1, 2): other, ("b", 1, 2): other}
    assert float(attention_distance(ours, theirs)) == pytest.approx(2.0)
    assert float(attention_distance(ours, ours)) == 0


def test_hooks_and_the_model_are_left_as_they_were():
    subject = trained_subject()
    subject.module.train()
    with activations_at(subject.module, attention_places(subject, 3)):
        assert any(part._forward_hooks for part in subject.module.modules())
    assert not any(part._forward_hooks for part in subject.module.modules())
    assert subject.module.training and all(p.requires_grad for p in subject.module.parameters())


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "squeezenet1_1", "mobilenet_v2"])
def test_gradients_reach_the_weights_in_real_architectures(name):
    """Some rectify a hooked output in place, which must not break the way back."""
    extra = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subject = make_subject(models.get_model(name, num_classes=4, **extra), classes=4, size=64)
    places = attention_places(subject, 3)
    assert len(places) == 3 and len({place[1:] for place in places}) == 3
    x = square_images(1, seed=0).x.repeat(1, 1, 4, 4)
    with activations_at(subject.module, places) as ours:
        subject.module(x)
    blank = {place: torch.zeros_like(value) for place, value in ours.items()}
    attention_distance(ours, blank).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in subject.module.parameters())
