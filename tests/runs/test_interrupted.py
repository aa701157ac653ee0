"""A run that dies at any moment is continued by the same command and ends as if nothing had happened."""

import random
import re
import signal
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from fake_round import write_round
from forks import Forked

from trojai_moth.runs.run import RescanSettings, Run
from trojai_moth.runs.workers.stopping import SIGNALS, Stopping

SETTINGS = [
    "data.source=examples", "data.train_per_class=6", "data.held_per_class=4", "scanner.steps=6",
    "scanner.screen_steps=6",
    "scanner.pair_bound=1e9", "hardener.rounds=2", "hardener.first_steps=6", "hardener.later_steps=4",
    "hardener.warmup_steps=6", "hardener.batch=12",
]  # fmt: skip
DEADLINE_S = 600
# A message of the log: everything else on standard error is an error.
DATED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S")


@pytest.fixture(scope="module")
def round_dir(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("round") / "round", models=3, poisoned=[1], per_class=3)


def begin(round_dir, out):
    """The program on the round as a process of its own."""
    options = ["--verdict", "naive", *(part for text in SETTINGS for part in ("--set", text))]
    return Forked("trojai_moth", "rescan", round_dir, "--out", out, *options, cwd=out.parent)


@pytest.fixture
def start(round_dir):
    """Start it, to be ended for certain when the test is over."""
    processes = []

    def start(out):
        processes.append(begin(round_dir, out))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(path, process):
    """Until the file is there; a process that ends before is not what the test is about."""
    end = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"no {path.name} after {DEADLINE_S} s"
        time.sleep(0.002)


def table(run):
    return pd.read_csv(run / "results.csv", dtype=str).drop(columns="seconds")


@pytest.fixture(scope="module")
def undisturbed(round_dir, tmp_path_factory):
    """The table of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = begin(round_dir, out)
    _, errors = done.communicate(timeout=DEADLINE_S)
    assert done.returncode in (0, 1), errors
    rows = table(out)
    assert len(rows) == 3 and rows["flagged_before"].eq("True").all() and rows["accuracy_after"].notna().all()
    return done.returncode, rows


def test_killed_at_any_moment(start, undisturbed, tmp_path):
    """Killed after each of three files has appeared, at a random moment of the stage that follows."""
    code, expected = undisturbed
    stream = random.Random(0)
    run = tmp_path / "run"
    for moment in ("run.json", "weights/id-00000000.safetensors", "journal/id-00000001.before.json"):
        process = start(run)
        wait_for(run / moment, process)
        time.sleep(stream.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run was over too soon to be killed"
        assert not (run / "results.csv").exists()
    process = start(run)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, errors
    pd.testing.assert_frame_equal(table(run), expected)
    assert (run / "report.md").exists() and (run / "summary.json").exists()


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("number", SIGNALS)
def test_signal(number, lost, monkeypatch):
    """It ends the run at once; if a finaliser swallows that, at the next sign of progress."""
    stopping, told = Stopping(), []
    cases = [SimpleNamespace(model_id="id-00000000")]
    run = Run(
        cases, RescanSettings(), None, torch.device("cpu"), None, progress=told.append, check=stopping.check
    )  # fmt: skip
    with stopping.listening(*SIGNALS):
        run.step(0, "nothing has happened yet")
        with pytest.raises(KeyboardInterrupt) if not lost else nullcontext():
            send_within_a_finaliser(number, monkeypatch) if lost else signal.raise_signal(number)
        for call in (run.step, run.note):
            with pytest.raises(KeyboardInterrupt):
                call(0, "too late")
    assert told == ["[1/1] id-00000000: nothing has happened yet"]


def send_within_a_finaliser(number, monkeypatch):
    """Python prints what a finaliser raises, and drops it."""
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: dropped.append(args.exc_type))

    class Dying:
        def __del__(self):
            signal.raise_signal(number)

    Dying()
    assert dropped == [KeyboardInterrupt]


def test_interrupted_in_the_middle(start, undisturbed, tmp_path):
    """One line, exit code 2, and a table of what is known so far: by Ctrl-C, then by a scheduler's signal."""
    code, expected = undisturbed
    run = tmp_path / "run"
    for number, sent in enumerate((signal.SIGINT, signal.SIGTERM)):
        process = start(run)
        wait_for(run / "journal" / f"id-0000000{number}.before.json", process)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 2
        *log, line = errors.splitlines()
        assert line == f"Error: interrupted; {run} is usable, and the same command goes on there"
        assert all(DATED.match(text) for text in log)
        rows = table(run)
        assert rows["model"].to_list() == expected["model"].to_list() and not list(run.rglob("*.part"))
        assert rows["reason"].iloc[-1] == "not reached yet" and rows["verdict"].iloc[-1] == "not judged"
    process = start(run)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    pd.testing.assert_frame_equal(table(run), expected)
