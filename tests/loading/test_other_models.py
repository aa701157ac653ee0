"""Models that are no image classifiers are refused by name."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn


@pytest.fixture
def classes():
    """Make an object of a class that is called like one of another package."""
    made = []

    def of(place, base=nn.Module):
        home, _, name = place.rpartition(".")
        kind = type(name, (base,), {"__module__": home})
        for end in range(1, len(home.split(".")) + 1):
            part = ".".join(home.split(".")[:end])
            if part not in sys.modules:
                sys.modules[part] = ModuleType(part)
                made.append(part)
        setattr(sys.modules[home], name, kind)
        return kind()

    yield of
    for part in made:
        del sys.modules[part]


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("archs.Net6", "is a classifier of PDF malware of TrojAI"),
        ("trojai_rl.models.FCModel", "is a reinforcement-learning agent"),
        ("transformers.models.bert.modeling_bert.BertModel", "is a language model"),
        ("torchvision.models.detection.ssd.SSD", "is an object detector (it asks for"),
    ],
)
def test_whole_modules(refuse, classes, place, what):
    net = classes(place)
    net.fc = nn.Linear(3, 2)
    message = refuse(net)
    assert what in message and f"it asks for {place}" in message and "not an image classifier; give a model" in message


def test_spaces_of_an_agent_beside_its_weights(refuse, classes):
    state = {f"layer.{n}.weight": torch.ones(2, 2) for n in range(4)}
    message = refuse({"state_dict": state, "action_space": classes("gymnasium.spaces.discrete.Discrete", object)})
    assert "is a reinforcement-learning agent (it asks for gymnasium.spaces.discrete.Discrete)" in message


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["state_emb.0", "actor.0", "actor.2", "critic.0"], "a reinforcement-learning agent of TrojAI"),
        (["body.0", "net.actor.0", "net.critic.0", "x.y"], "a reinforcement-learning agent (it has weights called"),
        (["backbone.0", "rpn.head.conv", "roi_heads.box", "a.b"], "an object detector"),
        (["bert.embeddings.word_embeddings", "a.b", "a.c", "a.d"], "a language model"),
    ],
)
@pytest.mark.parametrize("architecture", [None, "resnet18"])
def test_weights_by_their_names(refuse, names, what, architecture):
    state = {f"{name}.weight": torch.ones(2, 2) for name in names}
    assert f"is {what}" in refuse({"model_state": state, "update": 3}, architecture=architecture)


def test_what_is_hostile_is_called_that(refuse, classes, evil):
    net = classes("archs.Net6")
    net.more = evil()
    assert "posix.system" in refuse(net)
