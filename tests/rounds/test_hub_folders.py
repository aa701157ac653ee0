"""Folders as the Hugging Face Hub publishes and caches them."""

import json
import shutil

import pytest
import torch
from fake_round import write_model, write_round
from safetensors.torch import save_file

from trojai_moth.core.channels import Normalisation
from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import build_architecture, inspect_model, load_model
from trojai_moth.rounds.model_folder import ModelFolder, why_no_model
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_case, read_round

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "model")


@pytest.fixture
def snapshot(written, tmp_path):
    """As huggingface_hub keeps a repository: all files are links into blobs."""
    repository = tmp_path / "models--me--net"
    (repository / "blobs").mkdir(parents=True)
    place = repository / "snapshots" / "0123abcd"
    place.mkdir(parents=True)
    for path in written.iterdir():
        if path.is_file():
            shutil.copy(path, repository / "blobs" / f"b{path.stat().st_size}{path.suffix[1:]}")
            (place / path.name).symlink_to(f"../../blobs/b{path.stat().st_size}{path.suffix[1:]}")
    shutil.copytree(written / "clean_example_data", place / "clean_example_data")
    return place


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_hubs_names_of_model_files(folder, name):
    module = load_model(folder / "model.pt").module
    (folder / "model.pt").unlink()
    if name.endswith("safetensors"):
        save_file(module.state_dict(), folder / name, {"format": "pt"})
    else:
        torch.save(module.state_dict(), folder / name)
    for case in (read_case(folder), *read_round(folder)):
        assert case.model_file == folder / name
    assert "not attested" in open_folder(read_case(folder), CPU).note


def test_they_are_found_in_rounds(tmp_path):
    root = write_round(tmp_path / "round", models=2, per_class=1)
    (root / "id-00000001" / "model.pt").rename(root / "id-00000001" / "pytorch_model.bin")
    assert [case.model_file.name for case in read_round(root)] == ["model.pt", "pytorch_model.bin"]


@pytest.mark.parametrize(
    "there, reason",
    [
        (["model.pt", "model.safetensors"], ""),
        (["model.safetensors", "config.json"], ""),
        (["model.safetensors", "pytorch_model.bin"], "has model.safetensors and pytorch_model.bin; leave one"),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], "in several files"),
        (["pytorch_model-00002-of-00002.bin"], "in several files"),
        (["best.pth", "config.json"], "no model.pt in it, but 'best.pth'; if that is the model, call it model.pt"),
        (["a.pth", "b.ckpt"], "but 'a.pth' and others; call the model's model.pt"),
        (["checkpoint.pth.tar"], "no model.pt in it, but 'checkpoint.pth.tar'; if that is the model, call it model.pt"),
        (["NET.PTH"], "no model.pt in it, but 'NET.PTH'; if that is the model, call it model.pt"),
        (["config.json"], "no model.pt in it; unpack or download"),
    ],
)
def test_one_clear_line(there, reason):
    said = why_no_model(there)
    assert (reason in said and "\n" not in said) if reason else said == ""


@pytest.mark.parametrize("said, used", [({}, True), ({"do_normalize": True}, True), ({"do_normalize": False}, False)])
def test_the_preprocessors_mean_and_std_are_used(folder, said, used):
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 1], **said}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    expected = Normalisation(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 1)) if used else None
    assert read_case(folder).config.normalisation == expected


def test_the_networks_own_configuration_goes_before_the_preprocessors(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mean": [0.5] * 3, "std": [0.5] * 3}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0] * 3, "image_std": [1] * 3}))
    assert read_case(folder).config.normalisation == Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3)


def test_links_into_the_cache_are_followed_where_the_user_named_the_folder(snapshot):
    case = read_case(snapshot, named=True)
    assert not case.model_file.is_symlink() and case.model_file.parent.name == "blobs"
    assert open_folder(case, CPU).subject.classes == 3
    assert isinstance(read_round(snapshot)[0], ModelFolder)
    with pytest.raises(UnreadableModelError, match="leads out of its folder; put the file there, as cp -L does"):
        read_case(snapshot)


@pytest.mark.parametrize("kind", ["out of the cache", "another layout"])
def test_other_links_are_not_followed(snapshot, tmp_path, kind):
    if kind == "out of the cache":
        shutil.copy(snapshot / "model.pt", tmp_path / "other.pt")
        (snapshot / "model.pt").unlink()
        (snapshot / "model.pt").symlink_to(tmp_path / "other.pt")
    else:
        (snapshot.parent.parent / "blobs").rename(tmp_path / "blobs")
        (snapshot.parent.parent / "blobs").symlink_to(tmp_path / "blobs")
    with pytest.raises(UnreadableModelError, match="leads out of its folder"):
        read_case(snapshot, named=True)


def test_a_file_that_the_user_names_may_be_a_link(tmp_path):
    torch.save(build_architecture("squeezenetv1_1", 3).eval(), tmp_path / "model.pt")
    (tmp_path / "link.pt").symlink_to("model.pt")
    found = inspect_model(tmp_path / "link.pt")
    assert found.verdict == "loadable" and found.file == str(tmp_path / "link.pt")
