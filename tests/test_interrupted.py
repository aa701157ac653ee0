"""A run that dies at any moment is continued by the same command and ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from .fake_round import write_round

SETTINGS = [
    "data.train_per_class=6", "data.held_per_class=4", "scanner.steps=6", "scanner.screen_steps=6",
    "scanner.pair_bound=1e9", "moth.rounds=2", "moth.first_steps=6", "moth.later_steps=4", "moth.warmup_steps=6",
    "moth.batch=12",
]  # fmt: skip
DEADLINE_S = 120


@pytest.fixture(scope="module")
def round_dir(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("round") / "round", models=3, poisoned=[1], per_class=3)


@pytest.fixture
def start(round_dir, tmp_path):
    """Start the program on the round as a process of its own, ended for certain when the test is over."""
    processes = []

    def start(out):
        options = [part for text in SETTINGS for part in ("--set", text)]
        command = [sys.executable, "-m", "trojai_moth", "rescan", str(round_dir), "--out", str(out), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes))
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
    options = [part for text in SETTINGS for part in ("--set", text)]
    command = [sys.executable, "-m", "trojai_moth", "rescan", str(round_dir), "--out", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=out.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
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


# A signal that arrives while Python runs a finaliser is lost to it; rare, and known. Then the run simply goes on.
@pytest.mark.parametrize("attempts", [3])
def test_interrupted_in_the_middle(attempts, start, undisturbed, tmp_path):
    """One line, exit code 2, and a table of what is known so far: by Ctrl-C, then by a scheduler's signal."""
    code, expected = undisturbed
    run = tmp_path / "run"
    for number, sent in enumerate((signal.SIGINT, signal.SIGTERM)):
        for _ in range(attempts):
            process = start(run)
            record = run / "journal" / f"id-0000000{number}.before.json"
            wait_for(record, process)
            process.send_signal(sent)
            _, errors = process.communicate(timeout=DEADLINE_S)
            if process.returncode == 2:
                break
            for late in (run / "journal").glob(f"id-0000000[{number}-9].*"):
                late.unlink()
        assert process.returncode == 2
        assert errors.strip() == f"Error: interrupted; {run} is usable, and the same command goes on there"
        rows = table(run)
        assert rows["model"].to_list() == expected["model"].to_list() and not list(run.rglob("*.part"))
        assert rows["reason"].iloc[-1] == "not reached yet" and rows["verdict"].iloc[-1] == "not judged"
    process = start(run)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    pd.testing.assert_frame_equal(table(run), expected)
