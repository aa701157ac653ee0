import json
import os
import pickle

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from trojai_moth.cli import inspect as command
from trojai_moth.cli.main import main
from trojai_moth.loading import build_architecture


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "model.pt"
    torch.save(build_architecture("squeezenetv1_1", 3).eval(), path)
    return path


@pytest.fixture
def hostile(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'it_ran'}",)

    path = tmp_path / "[bold red]a\x1b[2Jb\n.pt"
    path.write_bytes(pickle.dumps(Evil()))
    yield path
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name]


def inspect(*arguments):
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_a_loadable_file(model):
    result = inspect(model)
    assert result.exit_code == 0
    for text in ("squeezenetv1_1, 3 classes", "torchvision.models.squeezenet.SqueezeNet", "verdict       loadable: "):
        assert text in result.output


def test_weights_alone_are_not_attested(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(build_architecture("squeezenetv1_1", 3).state_dict(), path)
    result = inspect(path)
    assert result.exit_code == 0 and "structure not attested" in result.output


def test_json(model):
    result = inspect(model, "--json")
    found = json.loads(result.output)
    assert (found["verdict"], found["architecture"], found["classes"]) == ("loadable", "squeezenetv1_1", 3)
    assert (found["tensors"], found["dtypes"], found["reason"]) == (52, {"float32": 52}, None)
    assert found["bytes"] == model.stat().st_size


def test_a_hostile_file_is_refused_and_its_name_is_only_text(hostile):
    result = inspect(hostile)
    assert result.exit_code == 2 and "verdict       refused: " in result.output
    assert r"[bold red]a\x1b[2Jb\n.pt" in result.output
    assert result.output.replace("\n", "").isprintable()


def test_a_hostile_file_on_a_terminal(hostile, monkeypatch):
    screen = Console(width=200, force_terminal=True, color_system="truecolor", record=True)
    monkeypatch.setattr(command, "make_console", lambda: screen)
    result = inspect(hostile)
    text = screen.export_text()
    assert result.exit_code == 2
    assert r"[bold red]a\x1b[2Jb\n.pt" in text and "refused: " in text and "\x1b" not in text


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link"])
def test_what_is_no_file(tmp_path, kind):
    path = tmp_path / "it"
    make = {"missing": lambda: None, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link": lambda: None}
    make[kind]()
    if kind == "link":
        path.symlink_to(os.devnull)
    result = inspect(path)
    assert result.exit_code == 2 and "verdict       refused: " in result.output
    assert json.loads(inspect(path, "--json").output)["sha256"] is None
