"""Real files: old torch versions' (the round's writers) and the installed one's, with weights and logits compared."""

import pytest
import torch
from old_files import INPUT, check_against_writer, weights_sha256
from torchvision.models import googlenet

from trojai_moth.loading import build_architecture, load_model

ROUND_FOUR = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "googlenet", "inceptionv3", "densenet121", "squeezenetv1_0"),
    *("squeezenetv1_1", "wideresnet50", "mobilenetv2", "shufflenet1_0", "shufflenet1_5", "shufflenet2_0", "vgg11bn"),
    "vgg13bn",
)


@pytest.mark.parametrize("name", ["squeezenetv1_1", "resnet18", "mobilenetv2"])
def test_own_copies_of_torch_1_7_files(own_data, tmp_path, name):
    check_against_writer(own_data / "legacy", name, "zip", tmp_path)


@pytest.mark.parametrize("name", ROUND_FOUR)
@pytest.mark.parametrize("writer, container", [("torch1.4.0_tv0.5.0", "legacy"), ("torch1.7.0_tv0.8.1", "zip")])
def test_every_architecture_of_old_writers(extra_data, tmp_path, name, writer, container):
    check_against_writer(extra_data / "legacy" / writer, name, container, tmp_path)


def test_every_model_of_the_pilot_round(extra_data):
    folders = sorted((extra_data / "pilot-round").glob("id-*"))
    classes = {}
    for folder in folders:
        loaded = load_model(folder / "model.pt", architecture="squeezenetv1_1")
        assert loaded.attested
        classes[folder.name] = loaded.classes
        shown = len(list((folder / "foregrounds").iterdir()))
        assert loaded.classes == shown
    assert len(classes) == 7


@pytest.mark.parametrize("name", ROUND_FOUR)
def test_whole_modules_of_this_torch(tmp_path, name):
    path = tmp_path / "model.pt"
    model = build_architecture(name, 7).eval()
    torch.save(model, path)
    loaded = load_model(path)
    path.unlink()
    assert (loaded.architecture, loaded.classes, loaded.container, loaded.attested) == (name, 7, "zip", True)
    found, expected = loaded.module.state_dict(), model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_old_container_of_this_torch(stock, legacy_bytes, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(legacy_bytes)
    loaded = load_model(path, architecture="squeezenetv1_1", classes=5)
    assert (loaded.container, loaded.attested) == ("legacy", True)
    assert weights_sha256(loaded.module) == weights_sha256(stock)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_loaded_but_not_attested(stock, tmp_path, wrap, zipped):
    path = tmp_path / "model.pt"
    torch.save(wrap(stock.state_dict()), path, _use_new_zipfile_serialization=zipped)
    loaded = load_model(path)
    assert (loaded.architecture, loaded.classes, loaded.attested) == ("squeezenetv1_1", 5, False)
    assert weights_sha256(loaded.module) == weights_sha256(stock)


def test_weights_in_any_memory_layout_become_contiguous_and_separate(stock, tmp_path):
    state = stock.state_dict()
    name = "features.0.weight"
    expected = state[name].clone()
    state[name] = expected.to(memory_format=torch.channels_last)
    tied = state["features.3.squeeze.bias"].clone()
    state["features.3.squeeze.bias"] = state["features.4.squeeze.bias"] = tied
    path = tmp_path / "model.pt"
    torch.save(state, path)
    found = load_model(path).module.state_dict()
    assert torch.equal(found[name], expected) and found[name].is_contiguous()
    assert torch.equal(found["features.4.squeeze.bias"], tied)
    assert found["features.3.squeeze.bias"].data_ptr() != found["features.4.squeeze.bias"].data_ptr()


@pytest.mark.parametrize("options", [{"aux_logits": True, "transform_input": True}, {"transform_input": True}])
def test_the_file_decides_about_auxiliary_heads_and_input_transform(tmp_path, options):
    options = {"aux_logits": False, **options}
    model = googlenet(weights=None, num_classes=4, init_weights=False, **options).eval()
    path = tmp_path / "model.pt"
    torch.save(model, path)
    loaded = load_model(path, architecture="googlenet", classes=4)
    image = torch.from_numpy(INPUT[:1])
    with torch.no_grad():
        assert torch.equal(loaded.module(image), model(image))
