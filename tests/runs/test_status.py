"""``trojai-moth status``: what a run's files tell by their names alone, and fast."""

import json
import os
import time

import pytest
from click.testing import CliRunner

from trojai_moth.cli import status as command
from trojai_moth.cli.main import main
from trojai_moth.cli.status import status_lines
from trojai_moth.core.errors import RunDirectoryError
from trojai_moth.core.process_identity import process_name
from trojai_moth.core.records import from_json
from trojai_moth.runs.journal import Journal, RunIdentity
from trojai_moth.runs.status import RunStatus, run_status

# Made up: a run in which every tenth model failed, every second other is finished and every third of the rest is begun.
KINDS = ("unreadable", "out of memory", "worker died")


def made_up(root, models, content="{}"):
    """A run directory of so many models; ``content`` of its records, which are not to be read."""
    ids = tuple(f"id-{number:08d}" for number in range(models))
    journal = Journal(root)
    journal.open(RunIdentity(version="1", models=ids, settings={}))
    for folder in ("journal", "finished", "leases"):
        (root / folder).mkdir()
    for number, model in enumerate(ids):
        if number % 10 == 9:
            journal.path(model, "failure").write_text(json.dumps({"kind": KINDS[number // 10 % 3], "reason": "x"}))
        elif number % 2 == 0:
            for stage in ("before", "harden", "after", "evidence", "blind"):
                journal.path(model, stage).write_text(content)
            journal.mark_finished(model)
        elif number % 3 == 0:
            journal.path(model, "before").write_text(content)
    return journal, ids


@pytest.fixture
def journal(tmp_path):
    journal, ids = made_up(tmp_path / "run", 60)
    folder = journal.root / "leases"
    (folder / f"{ids[1]}.1.lease").write_text(f"{process_name()}\nhere\nffff 000000000003\n")
    (folder / f"{ids[3]}.3.lease").write_text("000000000000-7-7\nnode\x1b17\nffff 000000000003\n")
    for number, path in enumerate(sorted((journal.root / "finished").iterdir())):
        os.utime(path, (1e9 + 60 * number, 1e9 + 60 * number))
    for number in range(6):
        os.utime(journal.path(ids[10 * number + 9], "failure"), (1e9, 1e9))
    return journal


def test_everything_is_counted(journal):
    found = run_status(journal)
    assert (found.models, found.finished, found.failed, found.begun, found.untouched) == (60, 30, 6, 8, 16)
    assert found.left == 24 and found.stages["before"] == 38 and found.stages["blind"] == 30
    assert found.failures == {"unreadable": 2, "out of memory": 2, "worker died": 2}
    one, two = found.holders
    assert (one.dead, one.process, one.host, one.taken_over) == (False, str(os.getpid()), "here", 0)
    assert (two.dead, two.process, two.taken_over) == (False, "7", 2)
    assert found.per_hour == pytest.approx(35 / (29 * 60) * 3600)
    assert found.seconds_left == pytest.approx(24 / found.per_hour * 3600) and found.silent_seconds > 1e6
    assert from_json(RunStatus, json.dumps(json.loads(to_text(journal, "--json")))) is not None


def to_text(journal, *options):
    result = CliRunner().invoke(main, ["status", str(journal.root), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_is_said_in_lines(journal):
    text = to_text(journal)
    assert text.startswith("36 of 60 models done: 30 finished, 6 failed; 24 left\nLeft: 8 begun, 16 not yet. ")
    assert "an hour, the last " in text and "Failures: unreadable 2, out of memory 2, worker died 2." in text
    assert f"id-00000001: process {os.getpid()} on here is at it\n" in text
    assert "id-00000003: process 7 on node\\x1b17 is at it, after 2 that died or fell silent\n" in text


def test_a_run_nobody_is_at_says_so_and_a_finished_one_forecasts_nothing(journal):
    for path in (journal.root / "leases").iterdir():
        path.unlink()
    assert "No process is at work; the same rescan command goes on." in to_text(journal)
    for model in journal.identity().models:
        journal.path(model, "before").write_text("{}")
        journal.mark_finished(model)
    text = to_text(journal, "--watch")
    assert text.startswith("60 of 60 models done: 54 finished, 6 failed; 0 left\nRecords: ") and "hour" not in text


def test_watching_ends_when_all_is_done(journal, monkeypatch):
    slept = []

    def work(seconds):
        slept.append(seconds)
        for model in journal.identity().models:
            journal.path(model, "before").write_text("{}")
            journal.mark_finished(model)

    monkeypatch.setattr(command.time, "sleep", work)
    lines = to_text(journal, "--watch").splitlines()
    assert len(slept) == 1 and "24 left" in lines[0] and lines[1].endswith("0 left")


def test_a_model_whose_record_was_deleted_to_be_done_again_is_not_finished(journal):
    before = run_status(journal).finished
    journal.path("id-00000000", "before").unlink()
    journal.path("id-00000009", "failure").unlink()
    found = run_status(journal)
    assert (found.finished, found.failed) == (before - 1, 5)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"models": 3}', '{"models": [3]}', "\x00"])
def test_no_run_and_a_damaged_one(tmp_path, content):
    with pytest.raises(RunDirectoryError, match=r"no run\.json in it; give the --out of a rescan"):
        run_status(Journal(tmp_path))
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"run\.json: damaged"):
        run_status(Journal(tmp_path))


def test_strange_files_and_halves_are_no_crash(journal):
    folder = journal.root / "journal"
    for name in ("x", ".json", "a.json", ".id-00000001.before.json.x-1-1.0.part", "id-99999999.before.json"):
        (folder / name).write_text("")
    journal.path("id-00000009", "failure").write_text('{"kin')
    (journal.root / "finished" / "stranger").touch()
    found = run_status(journal)
    assert (found.models, found.finished, found.failed) == (60, 30, 6) and found.failures["damaged record"] == 1


def test_ten_thousand_models_take_less_than_a_second(tmp_path):
    """Of processor time, since the clock of a busy machine says little."""
    journal, _ = made_up(tmp_path / "run", 10_000, content="not JSON, and nobody asks")
    started = time.process_time()
    found = run_status(journal)
    status_lines(found)
    assert time.process_time() - started < 1.0
    assert (found.models, found.finished, found.failed) == (10_000, 5000, 1000)
