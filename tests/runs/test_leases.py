"""Leases: just one holder, whatever dies, sleeps, or has a wrong clock; and nothing is left behind."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trojai_moth.core.errors import NoSpaceError
from trojai_moth.core.process_identity import is_process_dead, process_name
from trojai_moth.runs.leases import Leases, LeaseTerms, LeaseWatch

MODEL = "id-00000000"


@pytest.fixture
def leases(tmp_path):
    return Leases(tmp_path / "leases", LeaseTerms(expiry=9.0))


def left(leases):
    return sorted(os.listdir(leases.folder))


def process(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


HOLD = """
import sys, time
from pathlib import Path
from trojai_moth.runs.leases import Leases
assert Leases(Path(sys.argv[1])).acquire(sys.argv[2])
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def killed(leases):
    """A lease whose holder was killed."""
    holder = process(HOLD, leases.folder, MODEL)
    try:
        assert holder.stdout.readline() == "held\n"
        assert leases.acquire(MODEL) is None, "its holder lives"
    finally:
        holder.kill()
        holder.communicate()
    assert holder.returncode == -signal.SIGKILL
    return leases.standing(MODEL)


def test_one_holder_until_it_lets_go(leases):
    lease = leases.acquire(MODEL)
    assert lease.held and lease.generation == 1 and leases.acquire(MODEL) is None
    other = leases.acquire("id-00000001")
    assert other.held and set(leases.all()) == {MODEL, "id-00000001"}
    lease.release()
    other.release()
    assert left(leases) == [] and not lease.held and leases.standing(MODEL) is None
    again = leases.acquire(MODEL)
    assert again.generation == 1
    again.release()


def test_of_many_that_ask_at_once_one_gets_it(leases):
    start, got = threading.Barrier(16), []

    def ask():
        start.wait()
        got.append(leases.acquire(MODEL))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [lease for lease in got if lease]
    winner.release()
    assert left(leases) == []


def test_a_dead_holder_is_followed_at_once_and_counted(leases, killed):
    lease = leases.acquire(MODEL)
    assert lease.generation == 2 and left(leases) == [f"{MODEL}.2.lease"]
    assert killed.owner != leases.standing(MODEL).owner == process_name()
    lease.release()
    assert left(leases) == []


def test_what_a_dead_holder_left_at_a_finished_model_is_swept(leases, killed):
    leases.sweep(lambda model_id: False)
    assert left(leases) == [f"{MODEL}.1.lease"]
    leases.sweep(lambda model_id: model_id == MODEL)
    assert left(leases) == []


def test_a_living_holder_is_taken_over_from_only_when_it_was_silent(leases):
    """As on another machine: nothing is known of the process, and only its heartbeat speaks for it."""
    slow = leases.acquire(MODEL)
    seen = leases.standing(MODEL).content
    assert leases.acquire(MODEL, expired="something else") is None
    taker = leases.acquire(MODEL, expired=seen)
    assert taker.held and taker.generation == 2 and not slow.held
    slow._write()  # its heartbeat comes late, into a file that is no longer there
    slow.release()
    assert taker.held and left(leases) == [f"{MODEL}.2.lease"]
    assert leases.acquire(MODEL, expired=seen) is None, "a second observer of the same silence comes too late"
    taker.release()
    assert left(leases) == []


def test_a_heartbeat_changes_the_content(tmp_path):
    leases = Leases(tmp_path, LeaseTerms(expiry=0.3, beats=10))
    lease = leases.acquire(MODEL)
    first, end = leases.standing(MODEL).content, time.monotonic() + 30
    while leases.standing(MODEL).content == first:
        assert time.monotonic() < end, "no heartbeat"
        time.sleep(0.01)
    lease.release()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def standing(leases, content):
    leases.folder.mkdir(exist_ok=True)
    (leases.folder / f"{MODEL}.1.lease").write_text(content)
    return leases.standing(MODEL)


def test_silence_is_measured_by_the_observers_own_clock(leases):
    """Nothing in the file, and no time stamp of it, is compared with any clock."""
    clock = Clock()
    watch = LeaseWatch(9.0, clock)
    for count in range(20):
        clock.now += 1.0
        assert not watch.expired(MODEL, standing(leases, f"other-1-1\nhost\nx {count}\n")), "it beats"
    os.utime(leases.folder / f"{MODEL}.1.lease", (0, 0))  # fifty years ago, says a clock that jumped
    looks = 0
    while not watch.expired(MODEL, leases.standing(MODEL)):
        clock.now, looks = clock.now + 1.0, looks + 1
    assert 8 <= looks <= 10


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_an_observer_that_slept_or_whose_clock_jumped_does_not_count_that(leases, jump):
    clock = Clock()
    watch, silent = LeaseWatch(9.0, clock), standing(leases, "other-1-1\nhost\nx 1\n")
    for _ in range(4):
        clock.now += jump
        assert not watch.expired(MODEL, silent)
    assert not watch.expired(MODEL, standing(leases, "other-1-1\nhost\nx 2\n")), "it had only slept, too"


def test_half_a_lease_and_strange_files_are_no_crash(leases):
    for content in ("", "x", "a-b-c", "\x00\xff", "id\nhost"):
        assert standing(leases, content).generation == 1 and leases.acquire(MODEL) is None
        lease = leases.acquire(MODEL, expired=content) if content else None
        if lease:
            lease.release()
    (leases.folder / "notes.txt").write_text("mine")
    (leases.folder / "strange.lease").write_text("mine")
    assert MODEL not in leases.all() or leases.all()[MODEL].content == ""


def test_a_full_disk_leaves_no_lease_that_nobody_holds(leases, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(NoSpaceError, match=r"1\.lease: cannot be written"):
            leases.acquire(MODEL)
    assert left(leases) == []
    leases.acquire(MODEL).release()


def test_a_process_is_known_by_more_than_its_number():
    machine, pid, start = process_name().split("-")
    assert pid == str(os.getpid()) and not is_process_dead(process_name())
    assert is_process_dead(f"{machine}-{pid}-{int(start) + 1}"), "an earlier process had the same number"
    assert not is_process_dead(f"{'0' * 12}-{pid}-1"), "of other machines nothing is known"
    for name in ("", "x", machine, f"{machine}-", f"{machine}-x-1", f"{machine}-{'9' * 30}-1"):
        assert is_process_dead(name) == (name.count("9") >= 30)


def test_a_zombie_is_dead():
    child = process("")
    end = time.monotonic() + 30
    try:
        stat = Path(f"/proc/{child.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < end
            time.sleep(0.01)
        ticks = stat.read_text().rpartition(")")[2].split()[19]
        assert is_process_dead(f"{process_name().split('-')[0]}-{child.pid}-{ticks}")
    finally:
        child.communicate()
