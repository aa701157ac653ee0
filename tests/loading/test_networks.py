"""From the name of an architecture to what builds it; code is imported only where the user named it."""

import importlib
import sys
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from trojai_moth.core.errors import MissingDependencyError, SettingsError, UnreadableModelError
from trojai_moth.loading import load_model, networks
from trojai_moth.loading.networks import GROUP, find_builder
from trojai_moth.loading.own_code import allowed_architectures, allowing_architectures

CODE = """
from pathlib import Path
from torch import nn

Path({mark!r}).touch()


def both(num_classes=2, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 2, 3), nn.Flatten(), nn.LazyLinear(num_classes))


def small(num_classes=10, in_chans=3):
    return nn.Sequential(nn.Conv2d(in_chans, 2, 3), nn.Conv2d(2, num_classes, 3))


def fixed():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 4, 3))


def open_to_all(**options):
    return small(**options)


def open_to_others(**options):
    assert not options
    return fixed()


def open_to_none(**options):
    return nn.Linear(3, 4, **options)


def needs(depth):
    return fixed()


def leaves():
    raise SystemExit("bye\\nbye")


def makes_a_list():
    return [fixed()]


def parallel():
    return nn.DataParallel(fixed())


class Net(nn.Module):
    def __init__(self, channels=1, *, num_classes=5):
        super().__init__()
        self.conv = nn.Conv2d(channels, num_classes, 1)


number, network = 3, fixed()
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A module in the folder one stands in: its name and the file that importing it makes."""
    name, mark = "nets_of_the_user", tmp_path / "imported"
    (tmp_path / f"{name}.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    yield name, mark
    sys.modules.pop(name, None)


def built(name, **numbers):
    with allowing_architectures([name]):
        return find_builder(name).build(**numbers)


def test_code_is_imported_only_where_exactly_it_was_allowed(code):
    name, mark = code
    with allowing_architectures([f"{name}:small"]):
        with pytest.raises(SettingsError, match="no file decides to import; name it on the command line"):
            find_builder(f"{name}:fixed")
        assert not mark.exists()
        before = list(sys.path)
        assert find_builder(f"{name}:small").channels == "in_chans"
        assert mark.exists() and sys.path == before
    assert allowed_architectures() == frozenset()
    with pytest.raises(SettingsError, match=f"--architecture {name}:small"):
        find_builder(f"{name}:small")


def test_a_file_that_is_loaded_says_so_too(code, tmp_path):
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "m.pt")
    with pytest.raises(UnreadableModelError, match=f"--architecture {code[0]}:small"):
        load_model(tmp_path / "m.pt", architecture=f"{code[0]}:small")
    assert not code[1].exists()


@pytest.mark.parametrize(
    ("factory", "classes", "channels", "shapes"),
    [
        ("small", 7, 1, [(2, 1, 3, 3), (7, 2, 3, 3)]),
        ("fixed", 7, 1, [(2, 3, 3, 3), (4, 2, 3, 3)]),
        ("open_to_all", 7, 1, [(2, 3, 3, 3), (7, 2, 3, 3)]),
        ("parallel", 7, 1, [(2, 3, 3, 3), (4, 2, 3, 3)]),
        ("Net", 7, 2, [(7, 2, 1, 1)]),
    ],
)
def test_numbers_are_passed_where_they_are_taken(code, factory, classes, channels, shapes):
    network = built(f"{code[0]}:{factory}", classes=classes, channels=channels)
    assert [tuple(p.shape) for p in network.parameters() if p.dim() > 1] == shapes
    assert not network.training and not isinstance(network, nn.DataParallel)


def test_open_signatures_are_tried(code):
    with allowing_architectures([f"{code[0]}:{name}" for name in ("open_to_all", "open_to_none")]):
        assert find_builder(f"{code[0]}:open_to_all").settled().classes == "num_classes"
        assert find_builder(f"{code[0]}:open_to_none").settled().classes == ""


def test_a_network_is_the_same_each_time_and_leaves_the_random_stream_alone(code):
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first, again = built(f"{code[0]}:fixed"), built(f"{code[0]}:fixed")
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first[0].weight, again[0].weight)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nets_of_the_user:needs", r"cannot be built with \(\): TypeError: .*'depth'; it must need nothing but"),
        ("nets_of_the_user:leaves", "SystemExit: bye bye"),
        ("nets_of_the_user:makes_a_list", "makes a list; let it return a torch.nn.Module"),
        ("nets_of_the_user:both", "makes layers that have no size yet; let it call the network once"),
        ("nets_of_the_user:number", "makes no network"),
        ("nets_of_the_user:network", "makes no network"),
        ("nets_of_the_user:absent", "has no attribute 'absent'"),
        (
            "nets_of_nobody:small",
            "No module named 'nets_of_nobody'; give the command in the folder of 'nets_of_nobody'",
        ),
        ("nets of nobody:small", "is no name of code"),
        (":small", "is no name of code"),
        ("nets_of_the_user:", "is no name of code"),
    ],
)
def test_what_the_users_code_does_wrong_is_one_line(code, name, words):
    with pytest.raises(SettingsError, match=words) as caught:
        built(name)
    assert str(caught.value).isprintable() and "; " in str(caught.value)


def test_names_of_torchvision():
    assert find_builder("convnext_tiny").library == "torchvision"
    assert find_builder("classification:ResNeXt50_32x4d").library == "torchvision"
    network = find_builder("alexnet").build(classes=4, empty=True)
    assert network.classifier[6].weight.shape == (4, 4096) and network.classifier[6].weight.is_meta
    with pytest.raises(SettingsError, match=r"did you mean convnext_tiny\?"):
        find_builder("convnext_tin")
    with pytest.raises(SettingsError, match="is not known"):
        find_builder("fasterrcnn_resnet50_fpn")


def test_auxiliary_classifiers_are_built_where_a_file_has_them():
    builder = find_builder("googlenet")
    assert builder.build(classes=3, empty=True).aux1 is None
    assert builder.having(["fc.weight", "aux1.fc2.bias"]).build(classes=3, empty=True).aux1 is not None


def test_names_of_timm():
    pytest.importorskip("timm")
    assert find_builder("timm:resnet18").library == "timm"
    assert find_builder("resnet10t").build(classes=4, channels=1, empty=True).fc.weight.shape == (4, 512)
    for place in ("timm:hf-hub:a/b", "timm:local-dir:x", "timm:resnet19"):
        with pytest.raises(SettingsError, match="is not known"):
            find_builder(place)


def test_names_of_timm_without_it(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    for name in ("timm:resnet10t", "vit_base_patch32_224"):
        with pytest.raises(MissingDependencyError, match=r"needs timm; pip install 'trojai-moth\[timm\]'"):
            find_builder(name)
    with pytest.raises(SettingsError, match=r"one of timm, pip install 'trojai-moth\[timm\]'"):
        find_builder("resnet10t")


def test_architectures_that_packages_register(code, monkeypatch):
    entries = [EntryPoint("mine", f"{code[0]}:small", GROUP), EntryPoint("gone", "nets_of_nobody:x", GROUP)]
    entries += [EntryPoint("twice", f"{code[0]}:{name}", GROUP) for name in ("small", "fixed")]
    monkeypatch.setattr(networks, "entry_points", lambda group: [entry for entry in entries if entry.group == group])
    monkeypatch.syspath_prepend(".")
    assert find_builder("mine").build(classes=6)[1].out_channels == 6
    with pytest.raises(SettingsError, match="two installed packages offer the architecture 'twice'"):
        find_builder("twice")
    with pytest.raises(SettingsError, match=r"'gone' cannot be imported: .*; install its package again"):
        find_builder("gone")
