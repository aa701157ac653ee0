"""What hangs where Python cannot interrupt it ends with its process, and the next one knows of it."""

import os
import subprocess
import sys

import pytest

from trojai_moth.core.errors import RunDirectoryError
from trojai_moth.runs.watchdog import Hang, Watchdog, sweep_words, take_word, watch_path

# The expression takes 2^60 steps, in C, with Python's lock: no signal handler and no thread of Python runs meanwhile.
HANGS = """
import re, sys
from pathlib import Path
from trojai_moth.runs.watchdog import Watchdog
with Watchdog(Path(sys.argv[1]), overtime=0.25) as watchdog:
    watchdog.begins("before", 0.25)
    re.match("(a+)+$", "a" * 60 + "b")
"""
IN_TIME = """
import sys, time
from pathlib import Path
from trojai_moth.runs.watchdog import Watchdog
with Watchdog(Path(sys.argv[1]), overtime=0.0) as watchdog:
    for stage, limit in (("before", 0.3), ("harden", 600.0), ("load", None)):
        watchdog.begins(stage, limit)
    time.sleep(0.6)
watchdog.begins("after", 0.3)
watchdog.__exit__(None, None, None)
time.sleep(0.6)
"""


def run(text, path):
    return subprocess.run([sys.executable, "-c", text, str(path)], capture_output=True, timeout=120)


def test_what_holds_pythons_lock_for_ever_is_ended_and_told_of_once(tmp_path):
    path = watch_path(tmp_path / "leases", "id-00000001")
    assert run(HANGS, path).returncode == 1
    assert "in match" in path.read_text(), "where it hung is for people"
    assert take_word(path) == Hang("before", 0.5)
    assert not path.exists() and take_word(path) is None


def test_what_is_in_time_is_left_alone_and_leaves_nothing(tmp_path):
    path = watch_path(tmp_path, "id-00000001")
    ended = run(IN_TIME, path)
    assert (ended.returncode, ended.stderr) == (0, b"") and list(tmp_path.iterdir()) == []


def test_a_turn_that_was_none_leaves_anothers_file_alone(tmp_path):
    path = watch_path(tmp_path, "id-00000001")
    path.write_text("before 31\n")
    with Watchdog(path) as watchdog:
        watchdog.begins("load", None)
    assert path.read_text() == "before 31\n"


@pytest.mark.parametrize("text", ["", "before 31\n", "before\nTimeout (0:00:31)!\n", "Timeout (0:00:31)!\n", "\0\n\0"])
def test_the_word_of_one_who_did_not_hang_says_nothing(tmp_path, text):
    path = watch_path(tmp_path, "id-00000001")
    path.write_text(text)
    assert take_word(path) is None and not path.exists()


def test_words_of_finished_models_are_swept(tmp_path):
    for model in ("id-00000001", "id.00000002"):
        watch_path(tmp_path, model).touch()
    (tmp_path / "id-00000001.1.lease").touch()
    sweep_words(tmp_path, lambda model: model == "id.00000002")
    sweep_words(tmp_path / "nowhere", lambda model: True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["id-00000001.1.lease", "id-00000001.watch"]


def test_a_word_that_can_not_be_left_is_the_runs_trouble(tmp_path):
    (tmp_path / "leases").write_text("a file where a folder should be")
    with pytest.raises(RunDirectoryError, match=r"id-1\.watch: cannot be written"), \
            Watchdog(watch_path(tmp_path / "leases", "id-1")) as watchdog:  # fmt: skip
        watchdog.begins("before", 1.0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_its_file_is_not_waited_for(tmp_path):
    path = watch_path(tmp_path, "id-00000001")
    os.mkfifo(path)
    assert take_word(path) is None
    with Watchdog(path) as watchdog:
        watchdog.begins("before", 600.0)
        assert path.is_file()
    assert not path.exists()
