import pickle

import pytest
import torch
from safetensors.torch import save
from torch import nn

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.records import from_json, to_json
from trojai_moth.loading import Inspection, inspect_model, load_model


@pytest.fixture
def look(tmp_path):
    def look(content):
        path = tmp_path / "model.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        found = inspect_model(path)
        assert from_json(Inspection, to_json(found)) == found
        # What inspect says and what loading does are the same.
        try:
            loaded = load_model(path)
        except UnreadableModelError as error:
            assert found.verdict == "refused" and str(error) == f"{path}: {found.reason}"
        else:
            assert (found.architecture, found.classes, found.sha256) == (
                loaded.architecture, loaded.classes, loaded.sha256,
            )  # fmt: skip
            assert found.verdict == ("loadable" if loaded.attested else "loadable, structure not attested")
        return found

    return look


def test_whole_modules(look, stock_bytes):
    found = look(stock_bytes)
    assert found.container == "zip" and found.bytes == len(stock_bytes) and found.verdict == "loadable"
    assert found.names[0] == "torchvision.models.squeezenet.SqueezeNet" and "torch.FloatStorage" in found.names
    assert found.tensor_bytes == 4 * 725_061


def test_the_old_container(look, legacy_bytes):
    found = look(legacy_bytes)
    assert found.container == "legacy" and "torchvision.models.squeezenet.SqueezeNet" in found.names


def test_weights_only(look, stock):
    assert look(stock.state_dict()).verdict == "loadable, structure not attested"
    found = look(save(stock.state_dict()))
    assert (found.container, found.names, found.tensors) == ("safetensors", (), 52)


def test_entries_and_first_weights_of_what_is_no_stock_network(look):
    state = {"conv.weight": torch.ones(4, 1, 3, 3), "bn.weight": torch.ones(4), "bn.bias": torch.ones(4)}
    state |= {"fc.weight": torch.ones(7, 4), "fc.bias": torch.ones(7)}
    other = {name: value.clone() for name, value in state.items()}
    found = look({"model": {f"module.{name}": value for name, value in state.items()}, "ema": {"more": other}})
    assert found.entries == {"model": 5, "ema.more": 5}
    assert found.first_tensors[:2] == ("conv.weight (4, 1, 3, 3)", "bn.weight (4,)") and found.outputs == 7
    assert "--architecture with a name of torchvision or timm or with package.module:factory" in found.reason


def test_hostile_files_show_what_they_ask_for(look, evil, sentinel, stock):
    stock.features[3].squeeze.note = {"deep": [evil()]}
    found = look(stock)
    assert "posix.system" in found.names
    # The rest of the file can still be told.
    assert (found.architecture, found.classes, found.tensors) == ("squeezenetv1_1", 5, 52)
    assert not sentinel.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_names_of_bare_pickles_of_every_protocol(look, evil, sentinel, protocol):
    assert look(pickle.dumps(evil(), protocol)).names == ("posix.system",)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "body, name",
    [
        (b"(ios\nsystem\n.", "os.system"),
        (b"\x82\x07.", "number 7 of the extension registry"),
        (b"\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.", "os.system"),
        (b"\x8c\x02os\x94N\x94h\x00h\x01\x93.", "os.?"),
        (b"NN\x93.", "a name that it computes"),
        (b"cos\x1b[2J\nsystem\n.", r"'os\x1b[2J.system'"),
    ],
)
def test_names_by_other_instructions(look, container, body, name):
    assert look(container(b"\x80\x02" + body)).names == (name,)


def test_a_cut_pickle_shows_its_names_so_far(look, container):
    assert look(container(b"\x80\x02cos\nsystem\nX\xff\xff")).names == ("os.system",)


def test_very_many_names_end_somewhere(look, container):
    found = look(container(b"".join(b"ca\nb%d\n" % number for number in range(5000)) + b"."))
    assert len(found.names) == 1000


def test_unknown_networks_still_show_their_tensors(look):
    found = look(nn.Sequential(nn.Linear(4, 3)).eval())
    assert (found.architecture, found.tensors, found.dtypes) == (None, 2, {"float32": 2})


@pytest.mark.parametrize(
    "folder, name, expected",
    [
        ("torch1.2.0", "squeezenetv1_1", "torch 1.3 or older"),
        ("", "squeezenetv1_1", "torch 1.6 to 1.7"),
        ("torch1.8.1", "mobilenetv2", "torch 1.8"),
        ("torch1.10.2", "mobilenetv2", "torch 1.9 to 1.11"),
    ],
)
def test_the_writer_as_far_as_the_file_tells(own_data, tmp_path, unpack, folder, name, expected):
    assert inspect_model(unpack(own_data / "legacy" / folder / f"{name}.pt.xz")).written_by == expected


def test_the_writer_of_files_that_tell_less(look, stock, stock_bytes, legacy_bytes):
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    found = look(stock_bytes).written_by
    assert found.endswith(" or newer") and tuple(map(int, found.split()[1].split("."))) <= version
    assert look(legacy_bytes).written_by == "torch 2.1 or newer"
    assert look(b"not a model").written_by == "unknown"
    assert "does not say" in look(save(stock.state_dict())).written_by
