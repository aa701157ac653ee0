"""Many processes on one run: whatever dies, hangs or is told to stop, the table is that of an undisturbed run."""

import dataclasses
import os
import shutil
import signal
import sys
import time

import fleet_parts
import pytest
from fleet_parts import IDS, drive, make_run, marks
from undisturbed import table, undisturbed_table

from trojai_moth.core.errors import RunDirectoryError
from trojai_moth.eval.results import write_results
from trojai_moth.runs.execute import execute
from trojai_moth.runs.execution_settings import ExecutionSettings, Shard
from trojai_moth.runs.journal import Failure
from trojai_moth.runs.status import run_status
from trojai_moth.runs.workers import make_pool, processes
from trojai_moth.runs.workers.inline import Inline

MODELS = 4
DEADLINE_S = 240


@pytest.fixture(scope="module")
def the_round(tmp_path_factory):
    return fleet_parts.make_round(tmp_path_factory.mktemp("fleet") / "round", MODELS)


@pytest.fixture
def start(the_round, tmp_path, monkeypatch):
    """A run over the round, not begun yet; drivers of their own are ended when the test is over."""
    fleet_parts.install_for_all(tmp_path / "plugins", monkeypatch)

    def start(out="run", **options):
        return make_run(*the_round, tmp_path / out, tmp_path / "marks", **options)

    return start


@pytest.fixture
def driver():
    """Start a driver process for a run, with workers of its own."""
    begun = []

    def driver(run):
        context = processes._context()
        process = context.Process(target=drive, args=(run, list(sys.path)))
        process.start()
        begun.append(process)
        return process

    yield driver
    for process in begun:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def expected(the_round, tmp_path_factory):
    return undisturbed_table(the_round, tmp_path_factory.mktemp("undisturbed"))


def nothing_left(run):
    """No lease and no half-written file."""
    leases = run.journal.root / "leases"
    assert not leases.exists() or os.listdir(leases) == []
    assert not list(run.journal.root.rglob("*.part"))
    assert run_status(run.journal).left == 0


def wait_until(true):
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def workers(tmp_path):
    """The processes that have scanned."""
    return {int(name.split(".")[2]) for name in marks(tmp_path / "marks", "scan")}


def test_workers_and_shards_give_the_same_table_as_one_process(start, expected, tmp_path, notes):
    run = start("workers", fleet=ExecutionSettings(workers=2))
    execute(run)
    assert table(run) == expected and len(workers(tmp_path) - {os.getpid()}) == 2
    nothing_left(run)
    assert any(note.startswith(f"[3/4] {IDS[2]}: hardened: accuracy") for note in notes.messages)
    for index in (2, 1):
        shard = start("shards", fleet=ExecutionSettings(shard=Shard(index=index, of=2)))
        execute(shard)
        done = run_status(shard.journal).finished
        assert done == (2 if index == 2 else 4)
    assert table(shard) == expected
    nothing_left(shard)


def test_shards_without_a_shared_disk_are_put_together_by_copying(start, expected, tmp_path):
    for index in (1, 2):
        execute(start(f"part{index}", fleet=ExecutionSettings(shard=Shard(index=index, of=2))))
        shutil.copytree(tmp_path / f"part{index}", tmp_path / "whole", dirs_exist_ok=True)
    scans = len(marks(tmp_path / "marks", "scan"))
    whole = start("whole")
    execute(whole)
    assert table(whole) == expected and len(marks(tmp_path / "marks", "scan")) == scans
    nothing_left(whole)


def test_a_killed_worker_and_one_without_memory_lose_nothing(start, expected, notes):
    run = start(fleet=ExecutionSettings(workers=2), accidents={IDS[0]: "kill 2", IDS[1]: "memory 1"})
    execute(run)
    assert table(run) == expected
    nothing_left(run)
    died = [note for note in notes.messages if "worker died (signal 9)" in note]
    assert len(died) == 2
    assert f"[2/4] {IDS[1]}: out of memory: tried once more with half the batch" in notes.messages


def test_what_kills_every_worker_or_hangs_is_a_failure_of_its_kind_and_no_verdict(start, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "OVERTIME_S", 0.5)
    run = start(
        fleet=ExecutionSettings(workers=2, deaths=2), time_budget=3.0, accidents={IDS[1]: "kill 9", IDS[3]: "hang 9"}
    )
    execute(run)
    kinds = {model: run.journal.read(model, "failure", Failure) for model in IDS[:MODELS]}
    assert (kinds[IDS[0]], kinds[IDS[2]]) == (None, None)
    assert (kinds[IDS[1]].kind, kinds[IDS[3]].kind) == ("worker died", "out of time")
    assert kinds[IDS[3]].stage == "before" and len(marks(tmp_path / "marks", f"accident.{IDS[1]}")) == 2
    rows, summary = write_results(run.journal, {})
    assert rows["verdict"].to_list() == ["cleared", "not judged", "kept", "not judged"] and summary.not_judged == 2
    assert run_status(run.journal).failures == {"worker died": 1, "out of time": 1}
    nothing_left(run)


def test_a_single_worker_is_a_process_where_it_is_asked_for(start):
    assert isinstance(make_pool(start()), Inline)
    assert isinstance(make_pool(start(fleet=ExecutionSettings(workers=1))), processes.Processes)


def test_what_is_wrong_with_the_run_itself_ends_it_from_a_worker_too(start, expected):
    run = start(fleet=ExecutionSettings(workers=2))
    run.journal.open(run.identity())
    blocker = run.journal.root / "weights"
    blocker.write_text("a file where a folder should be")
    with pytest.raises(RunDirectoryError, match=r"weights.* cannot be written .* give the same command again"):
        execute(run)
    status = run_status(run.journal)
    assert (status.failed, status.holders) == (0, ())
    blocker.unlink()
    execute(run)
    assert table(run) == expected
    nothing_left(run)


def test_a_killed_driver_takes_its_workers_along_and_is_followed_by_the_next(start, driver, expected, tmp_path):
    run = start(fleet=ExecutionSettings(workers=2), pause=0.5)
    first = driver(run)
    wait_until(lambda: len(workers(tmp_path) - {os.getpid()}) == 2)
    seen = workers(tmp_path) - {os.getpid()}
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in seen))
    assert run_status(run.journal).left > 0
    execute(run)
    assert table(run) == expected
    nothing_left(run)


def test_sigterm_stops_within_seconds_and_leaves_nothing_half_done(start, driver, tmp_path):
    run = start(fleet=ExecutionSettings(workers=2), pause=5.0)
    first = driver(run)
    wait_until(lambda: len(workers(tmp_path)) == 2)
    seen, began = workers(tmp_path), time.monotonic()
    first.terminate()
    first.join(DEADLINE_S)
    assert first.exitcode is not None and time.monotonic() - began < 60
    wait_until(lambda: not any(alive(pid) for pid in seen))
    status = run_status(run.journal)
    assert status.left == MODELS and not status.failed and not status.holders


def test_two_drivers_share_one_run(start, driver, expected, tmp_path):
    run = start(pause=0.5)
    second = driver(run)
    wait_until(lambda: marks(tmp_path / "marks", "scan"))
    execute(run)
    second.join(DEADLINE_S)
    assert second.exitcode == 0 and table(run) == expected
    nothing_left(run)
    by = {name.split(".")[2] for name in marks(tmp_path / "marks", "scan")}
    assert {str(second.pid), str(os.getpid())} <= by


def test_a_silent_process_of_another_machine_is_taken_over_from(start, expected):
    """Its heartbeat stands still; no clock is asked but one's own."""
    run = start(expiry=0.5)
    run.journal.open(run.identity())
    folder = run.journal.root / "leases"
    folder.mkdir()
    (folder / f"{IDS[0]}.1.lease").write_text("000000000000-7-7\nelsewhere\nffff 000000000003\n")
    os.utime(folder / f"{IDS[0]}.1.lease", (2**32, 2**32))  # far in the future, says its clock
    execute(run)
    assert table(run) == expected
    nothing_left(run)


@pytest.mark.parametrize(("keep", "kept"), [("none", []), ("flagged", [IDS[0], IDS[2], IDS[3]])])
def test_weights_are_kept_as_asked_and_made_again_if_they_are_needed(start, expected, keep, kept):
    run = start(fleet=ExecutionSettings(keep_weights=keep))
    execute(run)
    folder = run.journal.root / "weights"
    assert sorted(path.stem for path in folder.iterdir()) == kept and table(run) == expected
    run.journal.path(IDS[2], "after").unlink()
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    run = dataclasses.replace(run, fleet=ExecutionSettings())
    execute(run)
    assert table(run) == expected and f"{IDS[2]}.safetensors" in os.listdir(folder)
