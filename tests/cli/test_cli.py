import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import get_args

import click
import pytest
import torch
from click.testing import CliRunner
from fake_round import write_round

from trojai_moth.cli.main import COMMANDS, main
from trojai_moth.cli.options import record_fields
from trojai_moth.core.records import read_record
from trojai_moth.eval.calibration.fit_rule import RuleSettings
from trojai_moth.eval.calibration.learn import LearnSettings
from trojai_moth.eval.results import read_results
from trojai_moth.loading import load_model
from trojai_moth.runs.execution_settings import ExecutionSettings
from trojai_moth.runs.run import RescanSettings
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.result import ScanResult

SMALL = ["data.source=examples", "data.train_per_class=3", "data.held_per_class=2"]
SCAN = [*SMALL, "scanner.steps=2", "scanner.screen_steps=2"]
MOTH = [
    "hardener.rounds=1",
    "hardener.turns=1",
    "hardener.first_steps=2",
    "hardener.warmup_steps=2",
    "hardener.sgd_steps=1",
    "hardener.recovery_steps=1",
    "hardener.batch=6",
]
# A message of the log, which may come before an error.
DATED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S")
# Bounds on the trigger's size between which everything lies.
ALWAYS, NEVER = "scanner.pair_bound=1e9", "scanner.pair_bound=1e-9"


def sets(*assignments):
    return [part for text in assignments for part in ("--set", text)]


@pytest.fixture(scope="module")
def shared_round(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("cli") / "round", models=2, per_class=2)


@pytest.fixture
def model_dir(shared_round):
    return shared_round / "id-00000000"


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Run a command and undo what it may do to its process; relative paths are in the test's folder."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    yield call
    signal.signal(signal.SIGTERM, handler)
    torch.set_flush_denormal(False)


@pytest.fixture
def refused(call):
    """Run a command that must end with one line on standard error and exit code 2; returns the line."""

    def refused(*arguments):
        result = call(*arguments)
        assert result.exit_code == 2, result.output
        assert isinstance(result.exception, SystemExit) and "Traceback" not in result.output
        *usage, line = [text for text in result.stderr.strip().splitlines() if not DATED.match(text)]
        assert line.startswith("Error: ") and (not usage or usage[0].startswith("Usage: "))
        return line

    return refused


@pytest.mark.parametrize(("bound", "code", "word"), [(NEVER, 0, "CLEAN"), (ALWAYS, 1, "FLAGGED")])
def test_scan_says_its_verdict_by_exit_code(call, model_dir, bound, code, word):
    result = call("scan", model_dir, *sets(*SCAN, bound), "--json", "verdict.json")
    assert result.exit_code == code and f"id-00000000: {word} by neural-cleanse: " in result.stdout
    verdict = read_record(ScanResult, model_dir.parent.__class__("verdict.json"))
    assert verdict.flagged == bool(code) and verdict.settings["steps"] == 2 and verdict.evidence
    assert f"{verdict.evidence[0].size:.1f} pixels" in result.stdout


def test_what_can_not_be_judged_is_neither_clean_nor_flagged(call, model_dir, monkeypatch):
    kind = importlib.import_module("trojai_moth.scanners.neural_cleanse").NeuralCleanse
    monkeypatch.setattr(kind, "scan", lambda *_, **__: {}["a key that a plugin forgot"])
    result = call("scan", model_dir, *sets(*SMALL))
    assert result.exit_code == 2 and "NOT JUDGED by neural-cleanse: KeyError" in result.stdout


@pytest.mark.parametrize(("error", "code", "words"), [(KeyboardInterrupt, 2, "interrupted"), (KeyError, 2, "a bug")])
def test_no_accident_looks_like_a_verdict(call, model_dir, monkeypatch, error, code, words):
    """Python and click would end with 1, which means flagged."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Scanner, "__call__", fail)
    result = call("scan", model_dir, *sets(*SMALL))
    assert result.exit_code == code and words in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in call("--debug", "scan", model_dir, *sets(*SMALL)).stderr


@pytest.mark.parametrize(("bound", "code", "verdict"), [(NEVER, 0, "clean"), (ALWAYS, 1, "kept")])
def test_rescan_writes_everything(call, shared_round, bound, code, verdict):
    options = ["--out", "run", "--verdict", "naive", *sets(*SCAN, *MOTH, bound)]
    result = call("rescan", shared_round, *options)
    assert result.exit_code == code, result.output
    run = shared_round.__class__("run")
    assert {"results.csv", "summary.json", "report.md", "run.json", "journal"} <= set(os.listdir(run))
    rows = read_results(run / "results.csv")
    assert rows["verdict"].to_list() == [verdict] * 2 and rows["label"].to_list() == [False, False]
    assert result.stdout.count(verdict) >= 2 and "A cleared model may be a hardened Trojan" in result.stdout
    assert not list(run.rglob("*.part"))
    again = call("rescan", shared_round, *options)
    assert (again.exit_code == code and "hardened" not in again.stdout.replace("hardened Trojan", "")) or code


def test_rescan_does_not_pass_over_what_it_could_not_judge(call, shared_round, tmp_path):
    root = shutil.copytree(shared_round, tmp_path / "round")
    (root / "id-00000001" / "model.pt").write_bytes(b"nothing")
    result = call("rescan", root, "--out", "run", "--no-labels", *sets(*SCAN, NEVER))
    assert result.exit_code == 2 and "not judged" in result.stdout
    assert "[2/2] id-00000001: not judged: " in result.stderr and "Error" not in result.stderr
    rows = read_results(tmp_path / "run" / "results.csv")
    assert rows["verdict"].to_list() == ["clean", "not judged"] and rows["label"].isna().all()


def test_clean_only_goes_by_the_labels(call, tmp_path):
    root = write_round(tmp_path / "round", models=2, poisoned=[0], per_class=2)
    result = call("rescan", root, "--out", "run", "--harden", "clean-only", *sets(*SCAN, *MOTH, ALWAYS))
    assert result.exit_code == 1 and "A cleared model may be" not in result.stdout
    rows = read_results(tmp_path / "run" / "results.csv")
    assert rows["reason"][0] == "not hardened: it is labelled poisoned" and rows["accuracy_after"].notna()[1]
    assert os.listdir(tmp_path / "run" / "weights") == ["id-00000001.safetensors"]


def test_harden_writes_weights_trace_and_model(call, model_dir, tmp_path):
    files = ["--out", "w.safetensors", "--model-pt", "new/model.pt"]
    result = call("harden", model_dir, *files, "--without", "warmup", *sets(*SMALL, *MOTH))
    assert result.exit_code == 0, result.output
    trace = json.loads((tmp_path / "w.json").read_text())
    assert trace["hardener"] == "moth" and trace["settings"]["without"] == ["warmup"]
    assert trace["settings"]["rounds"] == 1 and len(trace["rounds"]) == 2
    assert f"w.safetensors: accuracy {trace['accuracy_before']:.2%} -> " in result.stdout
    assert load_model(tmp_path / "new" / "model.pt", architecture="squeezenetv1_1", classes=3).attested


def test_distance_is_json_with_null_where_there_is_none(call, model_dir, tmp_path):
    options = sets(*SMALL, "distance.steps=3", "distance.seeds=[1]")
    result = call("distance", model_dir, *options)
    assert result.exit_code == 0 and "rows (" in result.stderr
    matrix = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(name))
    table = matrix["distances"]
    assert [len(row) for row in table] == [3, 3, 3] and all(table[label][label] is None for label in range(3))
    off = [table[v][t] for v in range(3) for t in range(3) if v != t]
    assert off.count(None) == matrix["censored"] and 0 < matrix["censored"] < 6
    found = [size for size in off if size is not None]
    assert all(0 < size <= 32 * 32 for size in found) and matrix["mean"] == pytest.approx(sum(found) / len(found))
    to_file = call("distance", model_dir, *options, "--out", "d.json")
    written = json.loads((tmp_path / "d.json").read_text())
    assert written["distances"] == table and to_file.stdout.startswith("d.json: mean ")


def test_lists(call):
    result = call("scanners")
    assert result.exit_code == 0 and "\nneural-cleanse: " in "\n" + result.stdout
    result = call("settings")
    assert result.exit_code == 0
    for name in ("data.held_fraction = 0.3", "hardener.rounds = ", "scanner.steps = ", "distance.seeds = "):
        assert f"\n{name}" in f"\n{result.stdout}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scan", "MODEL", "--set", "scanner.nonsense=1"], ["scanner", "nonsense"]),
        (["scan", "MODEL", "--set", "scanner.steps=many"], ["steps", "'many'"]),
        (["scan", "MODEL", "--set", "hardener.rounds=1"], ["hardener.rounds=1", "one of scanner, data"]),
        (["scan", "MODEL", "--set", "nonsense"], ["--set nonsense", "GROUP.NAME=VALUE"]),
        (["scan", "MODEL", "--scanner", "nonsense"], ["nonsense", "neural-cleanse"]),
        (["scan", "MODEL", "--device", "nonsense"], ["--device nonsense", "use auto, cpu or cuda:N"]),
        (["scan", "MODEL", "--json", "."], [".", "directory"]),
        (["scan", "."], ["model.pt"]),
        (["scan", "nothing"], ["nothing", "does not exist"]),
        (["harden", "MODEL", "--out", "w.json"], ["w.json", ".safetensors"]),
        (["harden", "MODEL", "--out", "w.safetensors", "--set", "hardener.visits=0"], ["visits", "got 0"]),
        (["harden", "MODEL", "--out", "w.safetensors", "--without", "magic"], ["--without", "symmetric"]),
        (
            ["harden", "MODEL", "--out", "w.safetensors", "--hardener", "uap", "--without", "warmup"],
            ["--without warmup", "only moth", "uap"],
        ),
        (["distance", "MODEL", "--set", "distance.seeds=[]"], ["seed"]),
        (["distance", "MODEL", "--set", "distance.steps=-1"], ["steps", "got -1"]),
        (["rescan", "ROUND", "--out", "r", "--set", "hardener.visits=0"], ["hardener moth: visits", "got 0"]),
        (["rescan", "ROUND", "--out", "r", "--set", "hardener.nonsense=0"], ["hardener moth: nonsense"]),
        (["rescan", "ROUND", "--out", "r", "--set", "scanner.nonsense=0"], ["nonsense"]),
        (["rescan", "ROUND", "--out", "r", "--set", "data.held_fraction=2"], ["data.held_fraction", "got 2"]),
        (["rescan", "ROUND", "--out", "r", "--seed", "-1"], ["seed", "got -1"]),
        (["rescan", "ROUND", "--out", "r", "--scanner", "nonsense"], ["nonsense", "neural-cleanse"]),
        (["rescan", "ROUND", "--out", "r", "--device", "cuda:99"], ["--device cuda:99"]),
        (["rescan", "ROUND"], ["--out"]),
        (["rescan", "ROUND", "--out", "file"], ["file"]),
        (["rescan", "ROUND", "--out", "file/run"], ["file/run"]),
        (["rescan", "ROUND", "--out", "full"], ["full", "not empty"]),
        (["rescan", "full", "--out", "r"], ["full", "no id-"]),
        (["rescan", "full", "--out", "r", "--harden", "clean-only"], ["clean-only", "no labels"]),
        (["settings", "--scanner", "nonsense"], ["nonsense", "neural-cleanse"]),
        (["nonsense"], ["nonsense"]),
    ],
)
def test_mistakes_are_one_line(refused, model_dir, tmp_path, arguments, words):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    paths = {"MODEL": model_dir, "ROUND": model_dir.parent}
    line = refused(*(paths.get(argument, argument) for argument in arguments))
    assert all(word.lower() in line.lower() for word in words), line
    assert not (tmp_path / "r").exists() and os.listdir(tmp_path / "full") == ["thesis.txt"]


def test_other_settings_do_not_continue_a_run(call, refused, shared_round):
    assert call("rescan", shared_round, "--out", "run", *sets(*SCAN, NEVER)).exit_code == 0
    line = refused("rescan", shared_round, "--out", "run", *sets(*SCAN, NEVER), "--seed", "3")
    assert "settings.seed: 0 there, 3 now" in line


def option(command, name):
    return next(found for found in main.get_command(click.Context(main), command).params if found.name == name)


@pytest.mark.parametrize(
    ("command", "name", "settings"),
    [
        ("rescan", "harden", RescanSettings),
        ("rescan", "verdict", RescanSettings),
        ("rescan", "executor", ExecutionSettings),
        ("rescan", "keep_weights", ExecutionSettings),
        ("calibrate", "method", LearnSettings),
    ],
)
def test_options_offer_what_the_settings_take(command, name, settings):
    """Those of records that cannot be imported without torch are written down once more."""
    assert list(option(command, name).type.choices) == list(get_args(record_fields(settings)[name].annotation))


def test_a_default_that_is_told_is_the_one_that_holds():
    told = option("calibrate-rule", "tolerate_loss")
    assert not isinstance(told.default, float)  # click says by a mark of its own that there is none
    assert told.show_default == str(RuleSettings().tolerate_loss)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(call, name):
    result = call(name, "--help")
    assert result.exit_code == 0 and result.stdout.startswith(f"Usage: main {name}")
    text = " ".join(result.stdout.split())
    assert ("Exit code 0:" in text) == (name in ("rescan", "doctor", "scan", "inspect"))
    command = main.get_command(click.Context(main), name)
    assert command.name == name and command.help


def test_it_is_a_module_too():
    done = subprocess.run([sys.executable, "-m", "trojai_moth", "-h"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: trojai-moth")
