"""What becomes of an entry point's worker when the entry point itself is asked to end, or is killed."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trojai_moth.submission.supervise import CRASHED, supervise

SAYS = "import json, sys, time, os\ndef say(**m): print(json.dumps(m), flush=True)\n"


def alive(pid):
    """Whether the process runs; one that only waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(true, seconds=20):
    """Wait for it; AssertionError if it does not come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def started(tmp_path):
    """Start an entry point with a worker of these lines; returns (its process, its result file)."""
    processes = []

    def start(lines):
        worker, result = tmp_path / "worker.py", tmp_path / "r.txt"
        worker.write_text(lines)
        words = ["--model_filepath", str(tmp_path / "m.pt"), "--result_filepath", str(result)]
        code = (
            "import sys; from trojai_moth.submission.entrypoint import run; "
            f"run({words!r}, worker=[sys.executable, {str(worker)!r}])"
        )
        processes.append(subprocess.Popen([sys.executable, "-c", code]))
        return processes[-1], result

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_sigterm_ends_the_worker_too_and_leaves_the_result(started, tmp_path):
    pid = tmp_path / "pid"
    entry, result = started(
        SAYS + f"open({str(pid)!r}, 'w').write(str(os.getpid()))\nsay(probability=0.8)\ntime.sleep(60)"
    )
    until(lambda: result.exists() and result.read_text() == "0.8\n", seconds=60)
    entry.send_signal(signal.SIGTERM)
    assert entry.wait(timeout=30) == 128 + signal.SIGTERM
    assert result.read_text() == "0.8\n"
    until(lambda: not alive(int(pid.read_text())))


def test_a_worker_does_not_outlive_a_killed_entry_point(started, tmp_path):
    pid = tmp_path / "pid"
    entry, _ = started(
        "import os, time\nfrom trojai_moth.submission.worker import end_with_supervisor\nend_with_supervisor()\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    until(lambda: pid.exists() and pid.read_text(), seconds=60)
    time.sleep(0.5)
    assert alive(int(pid.read_text()))
    entry.kill()
    until(lambda: not alive(int(pid.read_text())))


ENDS = """
import time
from trojai_moth.submission.worker import end_with_supervisor
end_with_supervisor()
time.sleep(.2)
"""


@pytest.mark.parametrize("status", [0, 1])
def test_a_worker_that_still_waits_for_the_supervisors_end_comes_to_its_own(status):
    """Not killed by the interpreter for a thread that is at the lock of standard input."""
    code = f"{ENDS}raise SystemExit({status})"
    done = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert done.wait(timeout=60) == status and done.stderr.read() == b""


@pytest.mark.parametrize(
    ("lines", "ending", "words"),
    [
        ("os.abort()", "failed", [f"worker: {CRASHED}, by signal 6"]),
        ("sys.exit(7)", "failed", [f"worker: {CRASHED}, with exit code 7"]),
        ("sys.exit(1)", "failed", []),
        ("pass", "done", []),
    ],
)
def test_how_a_worker_ended_is_said_where_it_was_not_meant(tmp_path, lines, ending, words):
    notes = []
    command = [sys.executable, "-c", f"import os, sys\n{lines}"]
    found = supervise(
        command, deadline=math.inf, environment=os.environ, folder=tmp_path, take=notes.append, note=notes.append
    )
    assert (found, notes) == (ending, words)
