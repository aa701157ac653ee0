"""Checkpoints of stock networks as common tools save them; what is beside the weights stays inert."""

import argparse
import datetime
import enum
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from old_files import weights_sha256
from torch import nn

from trojai_moth.loading import build_architecture, inspect_model, load_model


class Settings(dict):
    pass


class Options:
    def __init__(self):
        self.rate = 0.1


class Mode(enum.Enum):
    FAST = 1


@pytest.fixture(scope="module")
def net():
    return build_architecture("squeezenetv1_1", 5, seed=3).eval()


@pytest.fixture(scope="module")
def normed():
    """A network with batch norm."""
    return build_architecture("shufflenet1_0", 3, seed=1).eval()


def renamed(net, prefix):
    return OrderedDict((prefix + name, value) for name, value in net.state_dict().items())


def averaged(net, begin=""):
    return {f"{begin}n_averaged": torch.tensor(3), **renamed(net, f"{begin}module.")}


def beside():
    """What programs keep with their weights."""
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "optimizer_itself": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2).state_dict(),
        "criterion": nn.CrossEntropyLoss(),
        "best": np.float64(93.1),
        "curve": np.arange(3.0),
        "args": argparse.Namespace(lr=0.1, out=Path("x")),
        "hyper_parameters": Settings(depth=3),
        "options": Options(),
        "when": datetime.datetime(2020, 1, 1),
        "counts": Counter("aab"),
        "groups": defaultdict(list, a=[1]),
        "odd keys": {(1, 2): 3, None: 4, 0.5: 5, True: 6},
        "values": (torch.float32, torch.Size([1]), b"bytes", {1, 2}, frozenset({3}), 1j, torch.device("cpu")),
        "random": (np.random.default_rng(0), torch.get_rng_state()),
        "loss_state": {"weight": torch.ones(3)},
    }


FORMS = {
    "torch.compile": lambda net: renamed(net, "_orig_mod."),
    "DDP of a compiled one": lambda net: renamed(net, "module._orig_mod."),
    "Lightning": lambda net: {"state_dict": renamed(net, "model."), "epoch": 3, "callbacks": {}},
    "Lightning, own name": lambda net: {"state_dict": renamed(net, "backbone.")},
    "two wrappers": lambda net: renamed(net, "net.backbone."),
    "SWA": averaged,
    "SWA of DDP": lambda net: {"n_averaged": torch.tensor(3), **renamed(net, "module.module.")},
    "compiled SWA": lambda net: averaged(net, "_orig_mod."),
    "torchvision reference": lambda net: {"model": net.state_dict(), "epoch": 3},
    "pytorch-cifar": lambda net: {"net": renamed(net, "module."), "acc": 93.1},
    "model_state_dict": lambda net: {"model_state_dict": net.state_dict(), "loss": torch.tensor(0.1)},
    "ema": lambda net: {"ema": renamed(net, "module."), "decay": 0.99},
    "model_ema": lambda net: {"model_ema": averaged(net)},
    "the same twice": lambda net: {"state_dict": net.state_dict(), "state_dict_ema": renamed(net, "module.")},
    "nested": lambda net: {"checkpoint": {"model": {"state_dict": net.state_dict()}}},
    "BackdoorBench": lambda net: {
        **{"model_name": "squeezenet1_1", "num_classes": 5, "model": net.state_dict(), "data_path": "x"},
        "bd_train": {"poison_indicator": np.zeros(4), "save_folder_path": "y"},
    },
    "much beside": lambda net: {"weights": net.state_dict(), **beside()},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_stock_networks_weights(tmp_path, net, form, zipped):
    path = tmp_path / "model.pt"
    torch.save(FORMS[form](net), path, _use_new_zipfile_serialization=zipped)
    loaded = load_model(path)
    assert (loaded.architecture, loaded.classes, loaded.attested) == ("squeezenetv1_1", 5, False)
    assert weights_sha256(loaded.module) == weights_sha256(net)
    assert "structure not attested" in loaded.note
    assert inspect_model(path).verdict == "loadable, structure not attested"


def test_a_whole_module_in_a_dictionary_is_attested(tmp_path, net):
    torch.save({"model": net, "epoch": 3}, tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt").attested


def test_the_one_stock_network_of_several_is_read_and_named(tmp_path, net):
    torch.save({"student": net.state_dict(), "head": {f"{n}.w": torch.ones(1) for n in "abcd"}}, tmp_path / "m.pt")
    assert "its entry student" in load_model(tmp_path / "m.pt").note


@pytest.mark.parametrize("other", ["model_ema", "module"])
def test_two_networks_are_refused_and_both_named(refuse, net, normed, other):
    content = {"model": net.state_dict(), other: normed if other == "module" else normed.state_dict()}
    reason = refuse(content)
    assert "more than one network" in reason and "'model'" in reason and f"'{other}'" in reason


def test_short_numbers_become_float32_and_results_say_so(tmp_path, normed):
    state = {name: value.half() if value.is_floating_point() else value for name, value in normed.state_dict().items()}
    torch.save(state, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert "stored as float16" in loaded.note
    for name, value in loaded.module.state_dict().items():
        assert value.dtype == normed.state_dict()[name].dtype and torch.equal(value, state[name].to(value.dtype))


def test_weights_that_lack_the_counters_of_batches(tmp_path, normed):
    state = {name: value for name, value in normed.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "model.pt")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model.pt").module(x), normed(x))


def test_true_causes(refuse, net, normed):
    assert "every name begins with 'net.enc.'" in refuse({"net.enc.a.w": torch.ones(1), "net.enc.b.w": torch.ones(1)})
    parts = refuse({"0.mean": torch.zeros(3), "0.std": torch.ones(3), **renamed(net, "1.")})
    assert "under '1.' the weights of a squeezenetv1_1" in parts and "'0.mean'" in parts
    assert "by itself, and give these as --mean and --std" in parts and "changes nothing" not in parts
    assert "where that changes nothing" in refuse({"loss.weight": torch.zeros(3), **renamed(net, "1.")})
    small = {**normed.state_dict(), "conv1.0.weight": torch.zeros(24, 3, 1, 1)}
    for state in (small, {f"model.{name}": value for name, value in small.items()}):
        assert "unlike shufflenet1_0: 'conv1.0.weight' is (24, 3, 1, 1)" in refuse(state)
    for mixed in ({**net.state_dict(), "epoch": 3}, {"epoch": 3}):
        reason = refuse(mixed)
        assert "'epoch' is not a tensor" in reason and "save the network's state_dict()" in reason
    assert "save the network's state_dict()" in refuse([net.state_dict()])


def test_wrappers_saved_whole_are_told_to_save_the_network(refuse, net):
    reason = refuse(torch.optim.swa_utils.AveragedModel(net))
    assert "AveragedModel'" in reason and "state_dict()" in reason and "--trust-pickle" in reason


def test_what_might_run_is_refused_beside_weights_too(refuse, net):
    reason = refuse({"state_dict": net.state_dict(), "mode": Mode.FAST})
    assert "asks to call" in reason and "test_checkpoints.Mode'" in reason and "state_dict()" in reason
    for function in (torch.load, np.load, getattr, datetime.datetime.strptime):
        assert "asks" in refuse({"state_dict": net.state_dict(), "f": function})


def test_a_stock_network_with_something_beside_is_no_stock_network(refuse, net):
    reason = refuse({"model": net, "args": argparse.Namespace(a=1)})
    assert "asks for 'argparse.Namespace'" in reason and "state_dict()" in reason


def test_many_mentions_of_large_dictionaries_take_no_time(refuse, asm, container):
    large = asm.empty_dict + asm.mark + b"".join(asm.text(f"a.{n}") + asm.get(0) for n in range(20_000)) + b"u"
    tensor = asm.tensor(asm.storage("0", 1), (1,), (1,)) + asm.put(0)
    mentions = b"".join(asm.text(f"e{n}") + asm.get(1) for n in range(20_000))
    root = asm.mark + tensor + large + asm.put(1) + asm.empty_dict + asm.mark + mentions + b"u" + asm.tuple
    assert "neither" in refuse(container(asm.start + root + asm.stop, {"0": bytes(4)}))
    root = asm.empty_dict + asm.text("t") + tensor + asm.setitem
    root += asm.text("m") + large + asm.put(1) + asm.setitem + asm.mark + mentions + b"u"
    assert "not an architecture" in refuse(container(asm.start + root + asm.stop, {"0": bytes(4)}))


def test_tensors_as_torch_before_0_4_wrote_them(tmp_path, asm, container):
    def old(key, count):
        shape = [asm.storage(key, count), asm.number(0), asm.numbers((count,)), asm.numbers((1,))]
        return asm.text(f"layer.{key}") + asm.call("torch._utils", "_rebuild_tensor", *shape) + asm.setitem

    data = {key: bytes(4 * count) for key, count in (("0", 2), ("1", 3))}
    (tmp_path / "m.pt").write_bytes(container(asm.start + asm.empty_dict + old("0", 2) + old("1", 3) + asm.stop, data))
    assert inspect_model(tmp_path / "m.pt").first_tensors == ("0 (2,)", "1 (3,)")
    wrong = asm.call("torch._utils", "_rebuild_tensor", asm.number(1))
    (tmp_path / "m.pt").write_bytes(
        container(asm.start + asm.empty_dict + asm.text("a") + wrong + asm.setitem + asm.stop)
    )
    assert "impossible" in inspect_model(tmp_path / "m.pt").reason
