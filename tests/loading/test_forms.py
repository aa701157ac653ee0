"""The forms that one network comes in: wrapped, saved on a GPU, bare weights, safetensors, and those of round 11."""

import importlib
import json

import pytest
import torch
from old_files import check_against_writer, weights_sha256
from safetensors.torch import save, save_file
from torch import nn

from trojai_moth.core.errors import MissingDependencyError, UnreadableModelError
from trojai_moth.loading import build_architecture, load_model

NEW_TYPES = [
    ("torch1.2.0", "squeezenetv1_1", "legacy"),
    ("torch1.2.0", "shufflenet1_0", "legacy"),
    ("torch1.2.0", "mnasnet1_0", "legacy"),
    ("torch1.8.1", "mobilenetv2", "zip"),
    ("torch1.10.2", "mobilenetv2", "zip"),
]


@pytest.fixture
def load(tmp_path):
    """Save what is given as torch does (bytes as they are) and load it."""

    def load(content, **options):
        path = tmp_path / "model.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path, **options)
        return load_model(path)

    return load


@pytest.mark.parametrize("writer, name, container", NEW_TYPES)
def test_files_of_other_old_writers(own_data, tmp_path, writer, name, container):
    check_against_writer(own_data / "legacy" / writer, name, container, tmp_path)


def test_vision_transformer_of_round_11(own_data, tmp_path):
    pytest.importorskip("timm")
    check_against_writer(own_data / "legacy" / "torch1.12.1", "vit_base_patch32_224", "zip", tmp_path)


def test_vision_transformer_without_timm(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    weights = {name: torch.zeros(1) for name in ("cls_token", "pos_embed", "patch_embed.proj.weight")}
    save_file(weights, tmp_path / "vit.safetensors")
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UnreadableModelError, match=r"needs timm; pip install 'trojai-moth\[timm\]'"):
        load_model(tmp_path / "vit.safetensors")
    with pytest.raises(MissingDependencyError, match=r"trojai-moth\[timm\]"):
        build_architecture("vit_base_patch32_224", 3)


def parallel(model, **state):
    """A DataParallel as it is on a machine with a GPU, which constructs more than it does here."""
    wrapper = nn.DataParallel(model)
    wrapper.__dict__.update({"dim": 0, "device_ids": [0, 1], "output_device": 0, **state})
    wrapper.__dict__["src_device_obj"] = torch.device("cpu", 0)
    return wrapper.eval()


@pytest.mark.parametrize("zipped", [True, False])
def test_data_parallel_modules(load, stock, zipped):
    loaded = load(parallel(stock), _use_new_zipfile_serialization=zipped)
    assert (loaded.architecture, loaded.classes, loaded.attested) == ("squeezenetv1_1", 5, True)
    assert weights_sha256(loaded.module) == weights_sha256(stock)


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 1},
        {"forward": nn.Identity()},
        {"_forward_hooks": {0: nn.ReLU()}},
        {"_buffers": {"more": torch.zeros(1)}},
        {"_modules": {}},
        {"_modules": {"module": nn.Identity(), "other": nn.Identity()}},
        {"_modules": {"module": None}},
    ],
)
def test_data_parallel_modules_that_do_more(refuse, stock, change):
    assert "DataParallel" in refuse(parallel(stock, **change))


def test_a_wrapper_around_a_changed_model(refuse, stock):
    stock.features[0].stride = (1, 1)
    assert "stride = " in refuse(parallel(stock))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", None])
def test_state_dicts_of_data_parallel_modules(load, stock, key):
    state = nn.DataParallel(stock).state_dict()
    assert all(name.startswith("module.") for name in state)
    loaded = load({key: state, "epoch": 9} if key else state)
    assert (loaded.architecture, loaded.attested) == ("squeezenetv1_1", False)
    assert weights_sha256(loaded.module) == weights_sha256(stock)


def test_a_prefix_of_some_names_stays(refuse, stock):
    state = stock.state_dict()
    state["module.more"] = torch.zeros(1)
    assert "not an architecture" in refuse(state)


@pytest.mark.parametrize("place", ["stock_bytes", "legacy_bytes"])
def test_files_saved_on_a_gpu(load, stock, request, repickle, place):
    """The places of all storages say cuda:0; the old container has no checksums, so its bytes are changed as well."""
    on_cpu, on_gpu = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    content = request.getfixturevalue(place)
    assert on_cpu in content
    if place == "stock_bytes":
        changed = repickle(content, lambda old: old.replace(on_cpu, on_gpu))
    else:
        changed = content.replace(on_cpu, on_gpu)
    loaded = load(changed)
    assert {value.device.type for value in loaded.module.state_dict().values()} == {"cpu"}
    assert weights_sha256(loaded.module) == weights_sha256(stock)


@pytest.mark.parametrize("name", ["mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"])
def test_mnasnets(load, name):
    model = build_architecture(name, 4).eval()
    loaded = load(model)
    assert (loaded.architecture, loaded.classes, loaded.attested) == (name, 4, True)
    assert weights_sha256(loaded.module) == weights_sha256(model)


def test_safetensors(load, stock):
    loaded = load(save(stock.state_dict(), {"any": "text"}))
    assert (loaded.container, loaded.architecture, loaded.attested) == ("safetensors", "squeezenetv1_1", False)
    assert weights_sha256(loaded.module) == weights_sha256(stock)


def header(entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def tensor(first, last, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last]}


@pytest.mark.parametrize(
    "entries, reason",
    [
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, "overlap"),
        ({"a": tensor(0, 8), "b": tensor(12, 20)}, "gap"),
        ({"a": tensor(0, 8, shape=(1 << 39, 1 << 39))}, "wrong length"),
        ({"a": tensor(0, 8, shape=(-2,))}, "impossible"),
        ({"a": tensor(0, 8, dtype="F8_E5M2")}, "unknown number type"),
        ({"a": tensor(0, 8, dtype=[])}, "unknown number type"),
        ({"a": tensor(0, 8) | {"more": 1}}, "header"),
        ({"a": [1]}, "header"),
        ({"a": tensor(0, 16, shape=(4,))}, "weights end at"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, "header"),
        ({}, "weights end at"),
        ({"a\x1b[2J": tensor(0, 9)}, "wrong length"),
    ],
)
def test_hostile_safetensors(refuse, entries, reason):
    assert reason in refuse(header(entries) + bytes(8))


def test_safetensors_with_hostile_headers(refuse):
    for text in (b'{"a":' * 100_000, b'{"a":1,"a":2}', b'{"a"', b"{\xff}"):
        refuse(len(text).to_bytes(8, "little") + text)
    assert "not a file that torch.save wrote" in refuse((1 << 40).to_bytes(8, "little") + b"{}")


def test_the_configuration_of_round_11_names_the_network(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(build_architecture("mobilenetv2", 3).eval(), path)
    loaded = load_model(path, architecture="classification:mobilenet_v2", classes=3)
    assert (loaded.architecture, loaded.attested) == ("mobilenetv2", True)
