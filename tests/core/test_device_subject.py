import pytest
import torch

from trojai_moth.core.device import describe_device, prepare_process, resolve_device, seeded
from trojai_moth.core.errors import SettingsError
from trojai_moth.core.subject import Preprocessing, Subject
from trojai_moth.loading import build_architecture


@pytest.fixture
def subject():
    """With modes and flags as no constructor leaves them."""
    module = build_architecture("resnet18", 3, seed=1).train()
    module.layer1.eval()
    module.layer2[0].bn1.eval()
    module.conv1.weight.requires_grad_(False)
    shape = Preprocessing(stored_size=36, size=32)
    return Subject("id-0", module, "resnet18", 3, shape, torch.device("cpu"), "0" * 64)


def state(module):
    modes = [part.training for part in module.modules()]
    flags = [parameter.requires_grad for parameter in module.parameters()]
    return modes, flags


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("context", "options", "training", "gradients"),
    [
        ("frozen", {}, False, False),
        ("trainable", {}, False, True),
        ("trainable", {"train_batch_norm": True}, True, True),
    ],
)
def test_modes_and_flags_come_back(subject, context, options, training, gradients, fails):
    before = state(subject.module)
    assert len(set(before[0])) == len(set(before[1])) == 2
    try:
        with getattr(subject, context)(**options) as module:
            modes, flags = state(module)
            assert set(modes) == {training} and set(flags) == {gradients}
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert state(subject.module) == before


def test_asking_for_logits_changes_nothing(subject):
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    modes = state(subject.module)
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole, parts = subject.logits(x), subject.logits(x, batch=2)
    assert whole.shape == (5, 3) and not whole.requires_grad
    torch.testing.assert_close(whole, parts)
    assert state(subject.module) == modes
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())


def test_accuracy_counts(subject):
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    said = subject.logits(x).argmax(1)
    wrong = (said + torch.tensor([0, 1, 0, 2])) % 3
    assert subject.accuracy(x, said) == 1.0 and subject.accuracy(x, wrong) == 0.5
    nothing = subject.accuracy(x[:0], said[:0])
    assert nothing != nothing and subject.logits(x[:0]).shape == (0, 3)


def test_a_clone_is_independent(subject):
    clone = subject.clone()
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    with torch.no_grad():
        for value in clone.module.state_dict().values():
            value.add_(1)
    clone.module.eval()
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())
    assert subject.module.training and state(subject.clone().module) == state(subject.module)
    assert clone.source_sha256 == subject.source_sha256 and clone.preprocessing == subject.preprocessing


def test_device_names_that_work():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected and resolve_device("cpu") == torch.device("cpu")
    assert describe_device(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["nonsense", "", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:99999999999999999999"])
def test_device_names_that_are_none(name):
    with pytest.raises(SettingsError, match="use auto, cpu or cuda:N") as caught:
        resolve_device(name)
    assert f"--device {name}:" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mps", "meta", "xpu"])
def test_devices_that_are_not_supported(name):
    with pytest.raises(SettingsError, match=f"--device {name}: not supported"):
        resolve_device(name)


@pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_devices_that_are_not_there(monkeypatch, count, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(SettingsError, match=f"this machine has {count} CUDA devices"):
        resolve_device(name)


def test_an_accelerator_is_described_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Accelerator {device.index}")
    assert describe_device(resolve_device("cuda:1")) == "cuda:1 (Accelerator 1)"


def test_denormal_numbers_are_flushed():
    tiny = torch.full((4,), 1e-30)
    try:
        prepare_process(torch.device("cpu"))
        assert float((tiny * 1e-10).sum()) == 0.0
    finally:
        torch.set_flush_denormal(False)
    assert float((tiny * 1e-10).sum()) > 0.0


def test_global_streams_begin_at_a_seed_and_are_put_back_even_after_a_failure():
    before, drawn = torch.get_rng_state(), []
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), seeded(torch.device("cpu"), 5):
            drawn.append(torch.rand(3))
            raise ValueError("inside")
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(torch.get_rng_state(), before)
