"""Weights of networks that the user names: read as data, matched by name and shape, and refused where they differ."""

import argparse
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import allowing_architectures, load_model
from trojai_moth.loading.networks import find_builder

CODE = """
import torch
from torch import nn
from torchvision.models import SqueezeNet


class Squeeze(SqueezeNet):
    pass


class Net(nn.Module):
    def __init__(self, num_classes=10, in_channels=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, num_classes)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        return self.fc(self.body(x * self.scale).mean((2, 3)))


class Fixed(Net):
    def __init__(self):
        super().__init__(4, 3)


class Inside(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.net = Net(num_classes)


class Extra(Net):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass


class Untracked(Fixed):
    def __init__(self):
        super().__init__()
        self.body[1] = nn.BatchNorm2d(4, track_running_stats=False)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.third = self.first


class Foreign(Net):
    def __init__(self):
        super().__init__(4)
        self.settings = {"names": ["a"], "f": len(self.__class__.__name__)}


def one(num_classes=2):
    return Net(1)
"""
NAME = "nets_with_weights"


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__(NAME)
    sys.modules.pop(NAME, None)


@pytest.fixture
def net(nets):
    torch.manual_seed(2)
    return randomised(nets.Net(4, 3))


def randomised(net):
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    return net.eval()


@pytest.fixture
def load(tmp_path):
    """Save what is given and load it as what a factory makes."""

    def load(content, factory="Net", **options):
        path = tmp_path / "model.pt"
        zipped = options.pop("zipped", True)
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        name = f"{NAME}:{factory}"
        with allowing_architectures([name]):
            return load_model(path, architecture=name, **options)

    return load


@pytest.fixture
def misfit(load, tmp_path):
    """The one line that content is refused with."""

    def misfit(content, factory="Net", **options):
        with pytest.raises(UnreadableModelError) as caught:
            load(content, factory, **options)
        message = str(caught.value).removeprefix(f"{tmp_path / 'model.pt'}: ")
        assert caught.value.__cause__ is None and message.isprintable() and "; " in message and len(message) < 600
        return message

    return misfit


def same(loaded, net):
    ours, theirs = ({k: v for k, v in it.state_dict().items() if k != "_extra_state"} for it in (loaded.module, net))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def renamed(net, prefix):
    return OrderedDict((prefix + name, value) for name, value in net.state_dict().items())


FORMS = {
    "bare": lambda net: net.state_dict(),
    "state_dict": lambda net: {"state_dict": net.state_dict(), "best": np.float64(0.9), "args": argparse.Namespace()},
    "net, DataParallel": lambda net: {"net": renamed(net, "module."), "acc": 93.1, "epoch": 3},
    "torch.compile": lambda net: {"model": renamed(net, "_orig_mod.")},
    "Lightning": lambda net: {"state_dict": renamed(net, "model."), "callbacks": {}},
    "SWA": lambda net: {"model_ema": {"n_averaged": torch.tensor(3), **renamed(net, "module.")}},
    "the same twice": lambda net: {"model": net.state_dict(), "state_dict_ema": renamed(net, "module.")},
    "optimizer beside": lambda net: {
        "model_state_dict": net.state_dict(),
        "optimizer": torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).state_dict(),
    },
    "whole module": lambda net: net,
    "whole module in a dictionary": lambda net: {"model": net, "epoch": 3, "args": argparse.Namespace(a=1)},
    "DataParallel itself": nn.DataParallel,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_weights(load, net, form, zipped):
    loaded = load(FORMS[form](net), zipped=zipped)
    assert same(loaded, net) and not loaded.module.training
    assert (loaded.architecture, loaded.classes, loaded.attested) == (f"{NAME}:Net", 4, False)
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), net(x))


def test_nothing_of_a_whole_modules_class_is_run(load, nets, tmp_path):
    """What the file describes is not what is built: the user's factory makes another class."""
    foreign = randomised(nets.Foreign())
    loaded = load(foreign)
    assert same(loaded, foreign) and type(loaded.module).__name__ == "Net"
    assert "structure not attested: what the file says of it was not looked at" in loaded.note
    with pytest.raises(UnreadableModelError, match="name the code that builds it, --architecture package"):
        load_model(tmp_path / "model.pt")


def test_code_in_a_whole_module_is_still_refused(misfit, nets, evil, sentinel):
    foreign = nets.Foreign()
    foreign.settings = evil()
    assert "posix.system" in misfit(foreign) and not sentinel.exists()


def test_classes_and_channels_are_what_the_file_shows(load, misfit, nets):
    grey = randomised(nets.Net(7, 1))
    for options in ({}, {"classes": 7}, {"channels": 1}):
        loaded = load(grey.state_dict(), **options)
        assert same(loaded, grey) and loaded.classes == 7
    assert "has 7 classes, but 4 are asked for" in misfit(grey.state_dict(), classes=4)
    assert "has 1 input channels, but 3 are asked for" in misfit(grey.state_dict(), channels=3)
    assert "'body.0.weight' is (4, 1, 3, 3) instead of (4, 3, 3, 3)" in misfit(grey.state_dict(), "Fixed")


def test_one_output_stands_for_two_classes(load, nets):
    net = randomised(nets.Net(1))
    assert load(net.state_dict()).classes == load(net.state_dict(), classes=2).classes == 2
    assert load(net.state_dict(), "one", classes=2).classes == 2


def test_networks_without_a_choice_of_classes(load, misfit, net):
    loaded = load(net.state_dict(), "Fixed")
    assert same(loaded, net) and loaded.classes == 4
    assert load(net.state_dict(), "Fixed", classes=5).classes == 5  # the user's word


@pytest.mark.parametrize("factory", ["Net", "Inside"])
@pytest.mark.parametrize("prefix", ["", "net.", "module.net."])
def test_names_inside_and_outside_of_a_wrapper(load, net, factory, prefix):
    loaded = load(renamed(net, prefix), factory)
    assert same(loaded if factory == "Net" else argparse.Namespace(module=loaded.module.net), net)


def test_misfits_name_the_first_tensor_and_both_shapes(misfit, net):
    state = net.state_dict()
    lacking = {name: value for name, value in state.items() if name != "fc.bias"}
    assert "it lacks 'fc.bias', which has shape (4,) in the network" in misfit(lacking)
    assert "it has 'more.weight' of shape (2, 3), which the network lacks" in misfit(
        {**state, "more.weight": torch.ones(2, 3)}
    )
    assert "'body.0.bias' is (5,) instead of (4,)" in misfit({**state, "body.0.bias": torch.ones(5)})
    assert "'fc.bias' is (3,) instead of (4,)" in misfit({**state, "fc.bias": torch.ones(3)})
    assert "does not fit the architecture 'nets_with_weights:Net'" in misfit({"a": torch.ones(2), "b": torch.ones(2)})


def test_buffers_that_are_not_saved_and_counters(load, misfit, net):
    state = net.state_dict()
    assert "scale" not in state
    less = {name: value for name, value in state.items() if "num_batches" not in name}
    assert load(less).module.body[1].num_batches_tracked == 0
    assert load({**state, "fc.num_batches_tracked": torch.tensor(1)}).module.scale == 2
    assert load({**state, "scale": torch.tensor(3.0)}).module.scale == 3
    assert "'scale' is (2,) instead of ()" in misfit({**state, "scale": torch.ones(2)})


def test_batch_norm_without_running_statistics(load, misfit, net):
    state = net.state_dict()
    less = {name: value for name, value in state.items() if "running" not in name}
    loaded = load(less)
    assert "1 of its normalising layers have no running statistics and use each batch's own" in loaded.note
    x = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(loaded.module.body(x).mean(), torch.relu(net.body[1].train()(net.body[0](x))).mean())
    more = load(net.state_dict(), "Untracked")
    assert "running statistics of 1 normalising layers were left out" in more.note
    half = {name: value for name, value in state.items() if "running_var" not in name}
    assert "it lacks 'body.1.running_var'" in misfit(half)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_types_become_float32(load, net, dtype):
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in net.state_dict().items()}
    loaded = load(state)
    assert f"stored as {str(dtype).removeprefix('torch.')} and were made float32" in loaded.note
    assert torch.equal(loaded.module.fc.weight, state["fc.weight"].float())


def test_numbers_that_do_not_fit(misfit, net):
    state = net.state_dict()
    assert "infinite or undefined numbers in fc.bias" in misfit({**state, "fc.bias": torch.tensor([1, 2, 3, np.inf])})
    assert "too large for float32" in misfit({**state, "fc.bias": torch.full((4,), 1e300, dtype=torch.float64)})
    assert "stores 'fc.bias' as torch.int8" in misfit({**state, "fc.bias": torch.zeros(4, dtype=torch.int8)})


def test_weights_that_a_network_uses_twice(load, misfit, nets, tmp_path):
    tied = randomised(nets.Tied())
    assert same(load(tied.state_dict(), "Tied"), tied) and same(load(tied, "Tied"), tied)
    save_file({k: v for k, v in tied.state_dict().items() if k in ("first.weight", "first.bias", "second.bias")},
              tmp_path / "tied.safetensors")  # fmt: skip
    with allowing_architectures([f"{NAME}:Tied"]):
        assert same(load_model(tmp_path / "tied.safetensors", architecture=f"{NAME}:Tied"), tied)
    other = {**tied.state_dict(), "second.weight": torch.ones(3, 3)}
    assert "two different tensors where the network has one" in misfit(other, "Tied")


def test_entries(load, misfit, net, nets):
    content = {"model": net.state_dict(), "model_ema": randomised(nets.Net(4)).state_dict(), "epoch": 3}
    refusal = misfit(content)
    assert "holds more than one network, as 'model', 'model_ema'; say which one is used with --entry NAME" in refusal
    loaded = load(content, entry="model")
    assert same(loaded, net) and loaded.note.endswith("read was its entry model")
    assert "has no entry 'ema'; give --entry with one of those it has: 'model', 'model_ema'" in misfit(
        content, entry="ema"
    )
    assert (
        "read was its entry b" in load({"a": {f"x.{n}": torch.ones(1) for n in range(9)}, "b": net.state_dict()}).note
    )
    modules = {"model": net, "ema": randomised(nets.Net(4))}
    assert "'model', 'ema'" in misfit(modules) and same(load(modules, entry="model"), net)
    small = nn.Linear(3, 4).state_dict()  # too small to be taken for a network unasked
    with pytest.raises(UnreadableModelError, match="does not fit"):
        load({"head": small, "model": net.state_dict()}, entry="head")


def test_parts_of_one_state_dict(load, misfit, net, nets):
    state = {**renamed(net, "model."), "criterion.weight": torch.ones(4)}
    refusal = misfit({"state_dict": state})
    assert (
        "under 'model.', but also 'criterion.weight'; where that changes nothing, give --entry state_dict.model"
        in refusal
    )
    assert same(load({"state_dict": state}, entry="state_dict.model"), net)
    assert same(load(state, entry="model"), net)
    both = {**renamed(net, "model."), **renamed(randomised(nets.Net(4)), "ema.")}
    assert "more than one network, as 'model', 'ema'" in misfit(both)


def test_a_layer_that_normalises_images(misfit, net):
    state = {**renamed(net, "1."), "0.mean": torch.zeros(3), "0.std": torch.ones(3)}
    assert "but also '0.mean'; give --entry 1, and these as --mean and --std" in misfit(state)


def test_what_is_no_tensor_in_a_network_or_beside_it(load, misfit, net, nets):
    assert same(load(net.state_dict(), "Extra"), net)
    odd = nets.Foreign()
    del odd._parameters
    assert same(load({"model": net.state_dict(), "odd": odd}), net)
    assert "without a proper _parameters" in misfit({"model": net.state_dict(), "odd": odd}, entry="odd")
    assert "its head has 0 outputs" in misfit(
        {**net.state_dict(), "fc.weight": torch.ones(0, 4), "fc.bias": torch.ones(0)}
    )


def test_of_very_many_parts_few_are_tried(misfit, net):
    few = {f"{number}.{name}": value for number in range(200) for name, value in net.state_dict().items()}
    assert "more than one network, as '0', '1', '2', '3', '4', '5', '6', '7'; say" in misfit(few)


def torchvision(name, classes=3):
    return find_builder(name).build(classes=classes)


def stored(tmp_path, state, **options):
    torch.save(state, tmp_path / "model.pt")
    return load_model(tmp_path / "model.pt", **options)


def test_names_of_torchvision_that_are_no_stock_networks(tmp_path):
    net = randomised(torchvision("shufflenet_v2_x0_5"))
    loaded = stored(tmp_path, net.state_dict(), architecture="shufflenet_v2_x0_5")
    assert same(loaded, net) and (loaded.classes, loaded.attested) == (3, False)
    assert same(stored(tmp_path, net, architecture="shufflenet_v2_x0_5"), net)


@pytest.mark.parametrize("name", ["shufflenet_v2_x1_0", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("head", ["behind dropout", "no bias", "named", "grey"])
def test_changed_heads_and_channels(tmp_path, name, head):
    net = torchvision(name)
    features = net.fc.in_features
    if head == "behind dropout":
        net.fc, note = nn.Sequential(nn.Dropout(0.2), nn.Linear(features, 3)), "its head is fc.1 instead of fc, behind"
    elif head == "no bias":
        net.fc, note = nn.Linear(features, 3, bias=False), "its head fc has no bias"
    elif head == "named":
        net.fc, note = (
            nn.Sequential(OrderedDict(out=nn.Linear(features, 3))),
            "its head is fc.out instead of fc, by itself",
        )
    else:
        net.conv1[0], note = nn.Conv2d(1, 24, 3, 2, 1, bias=False), "takes 1 channels instead of 3"
    randomised(net)
    with torch.no_grad():
        for value in net.parameters():
            value *= 0.05
    loaded = stored(tmp_path, net.state_dict(), architecture=name)
    assert same(loaded, net) and note in loaded.note and loaded.classes == 3 and not loaded.attested
    x = torch.rand(1, 1 if head == "grey" else 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), net(x))


def test_heads_that_need_a_factory(tmp_path):
    net = torchvision("shufflenet_v2_x1_0")
    net.fc = nn.Sequential(nn.Linear(1024, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(UnreadableModelError, match=r"and weights do not show what is between them; name a function"):
        stored(tmp_path, net.state_dict(), architecture="shufflenet_v2_x1_0")
    net.fc = nn.Linear(100, 3)
    with pytest.raises(UnreadableModelError, match=r"'fc.weight' is \(3, 100\) instead of \(3, 1024\)"):
        stored(tmp_path, net.state_dict(), architecture="shufflenet_v2_x1_0")


def test_channels_that_are_asked_for(tmp_path):
    net = torchvision("shufflenet_v2_x0_5")
    with pytest.raises(UnreadableModelError, match="takes 3 input channels, but 1 are asked for"):
        stored(tmp_path, net.state_dict(), architecture="shufflenet_v2_x0_5", channels=1)
    stock = torchvision("squeezenet1_1").state_dict()
    with pytest.raises(UnreadableModelError, match="takes 3 input channels, but 1 are asked for"):
        stored(tmp_path, stock, channels=1)
    assert stored(tmp_path, stock, channels=3).architecture == "squeezenetv1_1"


def test_whole_modules_of_stock_names_stay_attested_or_refused(tmp_path):
    net = torchvision("squeezenet1_1")
    assert stored(tmp_path, net, architecture="squeezenet1_1").attested
    net.features[0].stride = (1, 1)
    with pytest.raises(UnreadableModelError, match=r"is not the stock network: its layer 'features\.0' has stride"):
        stored(tmp_path, net, architecture="squeezenet1_1")


def test_a_module_of_another_class_for_a_stock_name_that_the_user_gave(tmp_path, nets):
    net = randomised(nets.Squeeze("1_1", 3))
    with pytest.raises(UnreadableModelError, match="which no stock network needs"):
        stored(tmp_path, net, architecture="squeezenet1_1")
    with allowing_architectures(["squeezenet1_1"]):
        loaded = stored(tmp_path, net, architecture="squeezenet1_1")
    assert same(loaded, net) and not loaded.attested and "what the file says of it was not looked at" in loaded.note


def test_names_of_timm(tmp_path):
    timm = pytest.importorskip("timm")
    net = randomised(timm.create_model("resnet10t", num_classes=5, in_chans=1))
    loaded = stored(tmp_path, net.state_dict(), architecture="timm:resnet10t")
    assert same(loaded, net) and loaded.classes == 5
