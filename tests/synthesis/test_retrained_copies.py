"""A retrained copy knows the classes, has forgotten what poisoned images taught, and leaves the network as it was."""

import pytest
import torch
from corner_backdoor import CLASSES, corner_trigger, subject_around

from trojai_moth.core.errors import MothError
from trojai_moth.core.images import ImagePool
from trojai_moth.loading import build_architecture
from trojai_moth.synthesis import retrained_copies as retrained_module
from trojai_moth.synthesis.retrained_copies import RetrainSettings, reinitialise, retrain_from, retrained_copies
from trojai_moth.triggers.success import held_success

QUARTER = 0.25


def test_the_copy_knows_the_classes_and_not_the_backdoor(poisoned, samples):
    held, before = samples.held, torch.get_rng_state()
    state = {name: value.clone() for name, value in poisoned.module.state_dict().items()}
    copy = retrain_from(poisoned, samples.train, samples.held, RetrainSettings(), QUARTER, seed=3)
    assert held_success(poisoned, held, corner_trigger()) > 0.9
    assert held_success(copy, held, corner_trigger()) < 0.3 and copy.accuracy(held.x, held.y) >= 0.9
    assert copy.model_id != poisoned.model_id and copy.source_sha256 == "" and not copy.module.training
    assert all(torch.equal(value, state[name]) for name, value in poisoned.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_decides(poisoned, samples):
    few, settings = samples.train.first_per_class(8), RetrainSettings(least_accuracy=0.0)
    copies = [retrain_from(poisoned, few, samples.held, settings, QUARTER, seed=seed) for seed in (3, 3, 4)]
    one, again, other = (torch.cat([value.flatten() for value in copy.module.parameters()]) for copy in copies)
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("architecture", ["resnet18", "squeezenetv1_1"])
def test_the_first_layers_are_kept_and_all_behind_them_drawn_anew(architecture):
    own, fresh = (build_architecture(architecture, CLASSES, seed=seed) for seed in (1, 2))
    before = {name: value.clone() for name, value in own.state_dict().items()}
    for value in before.values():
        if value.dtype.is_floating_point:
            value += 0.5
    own.load_state_dict(before)
    reinitialise(own, fresh, QUARTER)
    new, after = fresh.state_dict(), own.state_dict()
    layers = [name for name, value in own.named_parameters() if value.dim() > 1]
    kept = [torch.equal(after[name], before[name]) for name in layers]
    assert kept == sorted(kept, reverse=True) and sum(kept) == int(QUARTER * len(layers)) > 0
    assert all(torch.equal(after[name], new[name]) for name in layers[sum(kept) :])
    # Everything else is as it was in front of the first layer that is new, and new behind it, running means included.
    names = list(after)
    first = names.index(layers[sum(kept)])
    assert all(torch.equal(after[name], before[name]) for name in names[:first])
    assert all(torch.equal(after[name], new[name]) for name in names[first:])


def test_a_copy_that_stays_inaccurate_is_of_no_use(poisoned, samples):
    order = torch.randperm(len(samples.train.y), generator=torch.Generator().manual_seed(0))
    wrong = ImagePool(samples.train.x, samples.train.y[order])
    with pytest.raises(MothError, match="retrained from 25% of its layers"):
        retrain_from(poisoned, wrong, samples.held, RetrainSettings(epochs=1), QUARTER, seed=3)


def test_one_copy_is_enough_and_each_is_tried_twice(monkeypatch):
    tried = []

    def some(subject, train, held, settings, kept, *, seed):
        tried.append((kept, seed))
        if kept in settings.kept[:failing] or len(tried) <= late:
            raise MothError(f"none from {kept}")
        return kept, seed

    def copies(**settings):
        tried.clear()
        return list(retrained_copies(None, None, None, RetrainSettings(**settings), seed=3))

    monkeypatch.setattr(retrained_module, "retrain_from", some)
    failing, late = 0, 0
    both = copies()
    assert [kept for kept, _ in both] == [0.25, 1.0] == [kept for kept, _ in tried]
    late = 1
    again = copies()
    assert again == [(0.25, tried[1][1]), both[1]] and tried[0] == both[0] != tried[1]
    failing, late = 1, 0
    assert copies() == both[1:] and len(tried) == 3
    failing = 2
    with pytest.raises(MothError, match=r"none from 1\.0"):
        copies()
    assert copies(kept=()) == []


class Unstarted(torch.nn.Module):
    """A network with weights of its own that nothing can start anew."""

    def __init__(self):
        super().__init__()
        self.net = build_architecture("resnet18", CLASSES, seed=0)
        self.scale = torch.nn.Parameter(torch.linspace(0.9, 1.1, CLASSES))

    def forward(self, x):
        return self.net(x) * self.scale


def test_what_can_not_be_started_anew_can_not_be_drawn_anew(samples):
    with pytest.raises(MothError, match="'scale' cannot be started anew"):
        retrain_from(
            subject_around(Unstarted(), "no-such-net"),
            samples.train,
            samples.held,
            RetrainSettings(epochs=1),
            QUARTER,
            seed=3,
        )
