import hashlib
import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from toys import square_samples, trained_subject

from trojai_moth.core.channels import Normalisation
from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.subject import Preprocessing, Subject
from trojai_moth.hardeners.registry import make_hardener
from trojai_moth.hardeners.trace import Hardened, HardeningTrace
from trojai_moth.hardeners.weights import load_weights, read_trace, save_trojai_model, save_weights
from trojai_moth.loading import build_architecture, load_model
from trojai_moth.loading.architectures import Variant, build_skeleton

SHAPE = Preprocessing(stored_size=36, size=32)


def make_subject(architecture="resnet18", seed=0, module=None, sha="a" * 64):
    module = module or build_architecture(architecture, 3, seed=seed).eval()
    return Subject("id-0", module, architecture, 3, SHAPE, torch.device("cpu"), sha)


def hardened(subject):
    trace = HardeningTrace(
        hardener="moth", settings={"rounds": 2}, seed=9, data="examples", accuracy_before=1.0, accuracy_after=0.5,
        held_images=4, rounds=(), stopped="all rounds done", seconds=1.0,
    )  # fmt: skip
    return Hardened(subject, trace)


def differ(first, second):
    one, other = first.module.state_dict(), second.module.state_dict()
    assert one.keys() == other.keys()
    return [name for name in one if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])]


@pytest.fixture
def saved(tmp_path):
    """Weights of seed 1 for the model file whose own weights are of seed 0; batch-norm counters are not zero."""
    other = make_subject(seed=1)
    with torch.no_grad():
        other.module.bn1.running_mean.fill_(1e-41)
        other.module.bn1.num_batches_tracked.fill_(12345)
    path = tmp_path / "weights" / "id-0.safetensors"
    save_weights(hardened(other), path)
    return path, other


def test_every_bit_comes_back(saved):
    path, other = saved
    original = make_subject(seed=0)
    back = load_weights(path, original)
    assert differ(back, other) == [] and back.module.training is False
    assert differ(original, make_subject(seed=0)) == [], "the subject that is given stays as it is"
    assert differ(back, original), "the two networks must not be the same to begin with"
    assert os.listdir(path.parent) == [path.name]


def test_the_file_says_what_it_is(saved):
    path, _ = saved
    head = path.read_bytes()
    metadata = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])["__metadata__"]
    assert metadata["architecture"] == "resnet18" and metadata["classes"] == "3" and metadata["seed"] == "9"
    assert metadata["source_sha256"] == "a" * 64 and json.loads(metadata["settings"])["rounds"] == 2


def test_the_trace_comes_back_and_weights_of_another_program_have_none(saved, tmp_path):
    path, other = saved
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_trace(path) == replace(hardened(other).trace, weights_sha256=sha256)
    save_file(dict(other.module.state_dict()), tmp_path / "foreign.safetensors")
    with pytest.raises(UnreadableModelError, match=r"foreign\.safetensors: does not say how it was hardened"):
        read_trace(tmp_path / "foreign.safetensors")


def test_weights_of_another_model_file_are_refused(saved):
    with pytest.raises(UnreadableModelError, match="made from another model file than that of id-0"):
        load_weights(saved[0], make_subject(sha="b" * 64))


def test_weights_of_another_network_are_refused(saved):
    with pytest.raises(UnreadableModelError, match="do not fit squeezenetv1_1") as caught:
        load_weights(saved[0], make_subject("squeezenetv1_1"))
    assert "\n" not in str(caught.value)


def small_network(seed):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers).eval()


@pytest.fixture
def small():
    return make_subject(module=small_network(0))


@pytest.fixture
def saved_small(tmp_path):
    path = tmp_path / "id-0.safetensors"
    save_weights(hardened(make_subject(module=small_network(1))), path)
    return path


SPOILED = {
    "nan": (lambda state: state["0.weight"][3, 2].fill_(float("nan")), "infinite or undefined numbers in 0.weight"),
    "infinite": (lambda state: state["0.weight"][3].fill_(float("inf")), "infinite or undefined numbers in 0.weight"),
    "all zero": (lambda state: [value.zero_() for value in state.values()], "are 0; harden the model again"),
    "last layer zero": (lambda state: state["5.weight"].zero_(), "all numbers in '5.weight' are 0"),
    "overflowing": (
        lambda state: [state[f"{layer}.weight"].fill_(3e38) for layer in (1, 5)],
        "answers with infinite or undefined numbers",
    ),
    "whole numbers": (lambda state: state.update({"5.weight": state["5.weight"].int()}), "'5.weight': int32"),
    "half": (lambda state: state.update({"5.weight": state["5.weight"].half()}), "'5.weight': float16"),
    "missing": (lambda state: state.pop("5.bias"), "'5.bias': in one of the two only"),
    "more": (lambda state: state.update({"5.more": torch.ones(1)}), "'5.more': in one of the two only"),
    "another shape": (
        lambda state: state.update({"5.weight": state["5.weight"][:, :2].contiguous()}),
        "'5.weight': float32 (3, 2) instead of float32 (3, 4)",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_weights_that_cannot_be_judged_are_refused(saved_small, small, kind):
    path, (change, reason) = saved_small, SPOILED[kind]
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    change(state)
    save_file(state, path, metadata)
    with pytest.raises(UnreadableModelError) as caught:
        load_weights(path, small)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and reason in message and "; " in message and "\n" not in message


def test_weights_that_are_not_those_of_the_journal_are_refused(saved_small, small):
    path = saved_small
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert differ(load_weights(path, small, sha256=sha256), make_subject(module=small_network(1))) == []
    with pytest.raises(UnreadableModelError, match=r"not the weights that the journal names .*; harden"):
        load_weights(path, small, sha256="0" * 64)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_weights_that_are_no_regular_file_are_refused_at_once(saved_small, small, kind):
    path = saved_small
    path.rename(path.with_suffix(".other"))
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(path.with_suffix(".other"))
    with pytest.raises(UnreadableModelError, match="; put"):
        load_weights(path, small)


def test_damaged_files_are_refused(saved):
    path, _ = saved
    good = path.read_bytes()
    for broken in (b"", good[:5], good[:100], good[: len(good) // 2], good[:-1], b"\xff" * 8 + good[8:], good + b"x"):
        path.write_bytes(broken)
        with pytest.raises(UnreadableModelError) as caught:
            load_weights(path, make_subject())
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(UnreadableModelError, match="no such file"):
        load_weights(path, make_subject())


def test_what_weights_do_not_show_is_kept(tmp_path):
    """Two inception networks of the same weights differ in the input transform, which a fresh one would lack."""
    module = build_skeleton(Variant("googlenet", 3, transform_input=True)).to_empty(device="cpu")
    module.load_state_dict(build_architecture("googlenet", 3, seed=2).state_dict())
    subject = make_subject("googlenet", module=module.eval())
    save_weights(hardened(subject), tmp_path / "w.safetensors")
    back = load_weights(tmp_path / "w.safetensors", subject)
    assert back.module.transform_input is True and back.module is not subject.module


@pytest.mark.parametrize("architecture", ["squeezenetv1_1", "resnet18", "shufflenet1_0"])
def test_a_written_model_file_loads_as_any_other(tmp_path, architecture):
    subject = make_subject(architecture, seed=4)
    with subject.frozen():  # as it is at hand after a scan
        save_trojai_model(subject, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt", architecture=architecture, classes=3)
    assert loaded.attested and loaded.architecture == architecture
    back = make_subject(architecture, module=loaded.module)
    assert differ(back, subject) == []
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(back.logits(x), subject.logits(x))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_mnasnets_whose_layers_insist_on_a_version_number(tmp_path):
    subject = make_subject("mnasnet0_5")
    save_weights(hardened(subject), tmp_path / "w.safetensors")
    other = make_subject("mnasnet0_5", seed=3)
    assert differ(subject, other)
    assert differ(subject, load_weights(tmp_path / "w.safetensors", other)) == []


def test_weights_of_a_network_that_expects_a_mean_and_std_have_the_names_of_its_file(tmp_path):
    plain = trained_subject()
    expected = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    subject = plain.reading(replace(plain.preprocessing, normalisation=expected))
    hardened = make_hardener("moth", {"rounds": 1, "precision": "fp32"})(subject, square_samples(), seed=1)
    save_weights(hardened, tmp_path / "w.safetensors")
    read = load_weights(tmp_path / "w.safetensors", subject)
    assert read.network.state_dict().keys() == plain.module.state_dict().keys()
    x = square_samples().held.x
    assert torch.equal(read.logits(x), hardened.subject.logits(x))
    assert not torch.allclose(read.logits(x), subject.logits(x), atol=1e-3)
