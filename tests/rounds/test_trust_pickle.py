"""--trust-pickle: off unless given, only for what is no stock network, and said in every result."""

import os
import signal
import sys
import zipfile

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from fake_round import write_round
from torch import nn

from trojai_moth.cli.main import COMMANDS, main
from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import build_architecture, load_model
from trojai_moth.loading.trusted import pickles_are_trusted, trusting_pickles

SMALL = [
    "data.source=examples", "data.train_per_class=3", "data.held_per_class=2", "scanner.steps=2",
    "scanner.screen_steps=2",
]  # fmt: skip
QUICK = [part for text in SMALL for part in ("--set", text)]
RESEARCH = """
import pathlib
from torch import nn

class Research(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)

    def __setstate__(self, state):
        pathlib.Path(state["trace"]).touch()
        super().__setstate__(state)
"""


@pytest.fixture
def trace(tmp_path):
    """Where a research network leaves a sign that its code was run."""
    return tmp_path / "it_ran"


@pytest.fixture
def research(tmp_path, monkeypatch, trace):
    """Wrap a network into a class that is installed, but is no stock one."""
    (tmp_path / "research_nets.py").write_text(RESEARCH)
    monkeypatch.syspath_prepend(tmp_path)

    def research(inner):
        import research_nets

        network = research_nets.Research(inner).eval()
        network.trace = str(trace)
        return network

    return research


@pytest.fixture
def saved(tmp_path):
    def saved(value):
        torch.save(value, tmp_path / "model.pt")
        return tmp_path / "model.pt"

    return saved


def test_without_it_nothing_runs(research, saved, stock, trace):
    with pytest.raises(UnreadableModelError, match=r"asks for 'research_nets.Research'"):
        load_model(saved(research(stock)), classes=5)
    assert not trace.exists()


def test_with_it_the_network_is_what_the_file_says(research, saved, stock, trace):
    with trusting_pickles():
        loaded = load_model(saved(nn.DataParallel(research(stock))), classes=5)
    assert trace.exists() and not pickles_are_trusted()
    assert (loaded.unpickled, loaded.attested, loaded.architecture, loaded.classes) == (True, False, "Research", 5)
    assert "--trust-pickle" in loaded.note and not loaded.module.training
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), stock(x))


def test_stock_networks_are_read_as_ever(saved, stock):
    with trusting_pickles():
        whole, weights = load_model(saved(stock)), load_model(saved(stock.state_dict()))
    assert (whole.unpickled, whole.attested, whole.note) == (False, True, "")
    assert not weights.unpickled and "not attested" in weights.note


def test_an_architecture_that_is_not_known_keeps_its_configured_name(research, saved, stock):
    with trusting_pickles():
        assert load_model(saved(research(stock)), architecture="Net6", classes=5).architecture == "Net6"


@pytest.mark.parametrize("kind", ["no classes", "no network", "not finite", "damaged", "link", "absent class"])
def test_what_is_refused_all_the_same(research, saved, stock, tmp_path, kind):
    network = research(stock)
    if kind == "not finite":
        network.inner.classifier[1].weight.data[0] = float("nan")
    path = saved({"net": network} if kind == "no network" else network)
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "absent class":
        path.write_bytes(b"\x80\x02cabsent\nNet\n)\x81.")
    elif kind == "link":
        path = tmp_path / "link.pt"
        path.symlink_to("model.pt")
    with trusting_pickles(), pytest.raises(UnreadableModelError) as caught:
        load_model(path, classes=None if kind == "no classes" else 5)
    assert str(caught.value).isprintable() and "; " in str(caught.value)


@pytest.fixture
def own_class(tmp_path, monkeypatch, stock):
    """A network of a class in a file of the user's own, saved there; the class is known to nobody afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "own_net.py").write_text("from torch import nn\n\nclass Net(nn.Sequential):\n    pass\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(home)
        import own_net

        torch.save(own_net.Net(stock).eval(), home / "model.pt")
    monkeypatch.delitem(sys.modules, "own_net")
    yield home
    sys.modules.pop("own_net", None)


def test_a_class_in_the_folder_one_stands_in_is_found(own_class, monkeypatch):
    monkeypatch.chdir(own_class)
    before = list(sys.path)
    with trusting_pickles():
        assert load_model(own_class / "model.pt", classes=5).architecture == "Net"
    assert sys.path == before


def test_a_folder_is_no_place_for_classes_unless_pickles_are_trusted(own_class, monkeypatch):
    monkeypatch.chdir(own_class)
    with pytest.raises(UnreadableModelError, match=r"asks for 'own_net.Net'.* give --trust-pickle") as caught:
        load_model(own_class / "model.pt", classes=5)
    assert "state_dict()" in str(caught.value) and "own_net" not in sys.modules


def test_a_class_that_is_not_found_is_said_where_to_put(own_class, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with trusting_pickles(), pytest.raises(UnreadableModelError, match=r"put the folder of own_net\.py on PYTHONPATH"):
        load_model(own_class / "model.pt", classes=5)
    (own_class / "own_net.py").write_text("")
    monkeypatch.chdir(own_class)
    with trusting_pickles(), pytest.raises(UnreadableModelError, match="'own_net' that is found here is another one"):
        load_model(own_class / "model.pt", classes=5)


def test_a_class_of_a_program_is_said_to_move(own_class, tmp_path):
    with zipfile.ZipFile(own_class / "model.pt") as old, zipfile.ZipFile(tmp_path / "main.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"cown_net\nNet", b"c__main__\nNt"))
    with pytest.raises(UnreadableModelError, match=r"move that class into a module of its own.*--architecture"):
        load_model(tmp_path / "main.pt", classes=5)
    with trusting_pickles(), pytest.raises(UnreadableModelError, match=r"'Nt' was defined in the program .*; move it"):
        load_model(tmp_path / "main.pt", classes=5)


@pytest.fixture
def stock():
    return build_architecture("squeezenetv1_1", 5, seed=3).eval()


@pytest.fixture
def round_dir(tmp_path, research):
    root = write_round(tmp_path / "round", models=1, per_class=2)
    path = root / "id-00000000" / "model.pt"
    network = research(load_model(path).module)
    torch.save(network, path)
    return root


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *words: CliRunner().invoke(main, [str(word) for word in words])
    signal.signal(signal.SIGTERM, handler)


def test_scan_and_rescan(round_dir, call, trace, monkeypatch):
    model = round_dir / "id-00000000"
    monkeypatch.setenv("TROJAI_MOTH_TRUST_PICKLE", "1")
    refused = call("scan", model, *QUICK)
    assert refused.exit_code == 2 and "research_nets.Research" in refused.output and not trace.exists()
    scanned = call("scan", model, *QUICK, "--trust-pickle")
    assert scanned.exit_code in (0, 1), scanned.output
    assert "runs whatever code" in scanned.output and "loaded by --trust-pickle" in scanned.output
    os.unlink(trace)
    call("rescan", round_dir, "--out", "plain", *QUICK)
    assert not trace.exists()
    run = call("rescan", round_dir, "--out", "run", "--trust-pickle", *QUICK, "--set", "scanner.pair_bound=1e-9")
    assert run.exit_code == 0, run.output
    (note,) = pd.read_csv("run/results.csv")["note"]
    assert "--trust-pickle" in note and not pickles_are_trusted()
    again = call("rescan", round_dir, "--out", "run", *QUICK, "--set", "scanner.pair_bound=1e-9")
    assert again.exit_code == 2 and "trust_pickle" in again.output


@pytest.mark.parametrize("name", ["scan", "harden", "distance", "compare", "rescan", "calibrate"])
def test_every_command_that_loads_models_has_it_and_says_what_it_risks(call, name):
    assert name in COMMANDS
    text = " ".join(call(name, "--help").output.split())
    assert "--trust-pickle DANGEROUS" in text and "runs whatever code" in text


def test_no_setting_turns_it_on(round_dir, call, trace):
    for assignment in ("data.trust_pickle=true", "scanner.trust_pickle=true"):
        assert call("scan", round_dir / "id-00000000", "--set", assignment).exit_code == 2
    assert not trace.exists()
