import hashlib
import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
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
