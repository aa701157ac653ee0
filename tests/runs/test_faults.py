"""Faults within one process: of the model, the plugin, memory and the disk. None of them ever counts as clean."""

import dataclasses
import errno
import hashlib
import os
import shutil

import fleet_parts
import pytest
import torch
from fleet_parts import IDS, make_run, marks
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trojai_moth.core.errors import NoSpaceError, RunDirectoryError, UnreadableModelError
from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.eval.results import write_results
from trojai_moth.hardeners.trace import HardeningTrace
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.runs import run_task
from trojai_moth.runs.execute import execute
from trojai_moth.runs.hardened_weights import load_named_weights
from trojai_moth.runs.journal import Failure, ScanRecord
from trojai_moth.runs.run import RescanSettings
from trojai_moth.runs.status import run_status
from trojai_moth.triggers.engine import Engine, Gradient

MODELS = 3


@pytest.fixture(scope="module")
def the_round(tmp_path_factory):
    return fleet_parts.make_round(tmp_path_factory.mktemp("faults") / "round", MODELS)


@pytest.fixture
def start(the_round, tmp_path, monkeypatch):
    fleet_parts.install_for_all(tmp_path / "plugins", monkeypatch)

    def start(round_dir=None, **options):
        root, originals = the_round
        return make_run(round_dir or root, originals, tmp_path / "run", tmp_path / "marks", **options)

    return start


def verdicts(run):
    rows, _ = write_results(run.journal, {})
    return dict(zip(rows["model"], rows["verdict"], strict=True))


def kind(run, model):
    failure = run.journal.read(model, "failure", Failure)
    return failure and failure.kind


def test_a_file_that_is_cut_short_or_changed_is_unreadable_and_not_tried_twice(start, the_round, tmp_path, notes):
    shutil.copytree(the_round[0], tmp_path / "round")
    whole = (tmp_path / "round" / IDS[0] / "model.pt").read_bytes()
    (tmp_path / "round" / IDS[0] / "model.pt").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    (tmp_path / "round" / IDS[1] / "model.pt").write_bytes(whole[:middle] + bytes(2000) + whole[middle + 2000 :])
    run = start(tmp_path / "round")
    execute(run)
    assert verdicts(run)[IDS[0]] == "not judged" and kind(run, IDS[0]) == "unreadable"
    assert verdicts(run)[IDS[1]] == "not judged" and kind(run, IDS[1]) == "unreadable"
    assert not any("once more" in note for note in notes.messages)
    assert run_status(run.journal).failures == {"unreadable": 2}


@pytest.mark.parametrize(("times", "verdict"), [(1, "cleared"), (9, "not judged")])
def test_memory_that_runs_out_is_tried_once_more_with_half_the_batch(start, times, verdict, tmp_path):
    run = start(accidents={IDS[0]: f"memory {times}"})
    execute(run)
    assert verdicts(run) == {IDS[0]: verdict, IDS[1]: "clean", IDS[2]: "kept"}
    assert len(marks(tmp_path / "marks", f"accident.{IDS[0]}")) == min(times, 2)
    before = run.journal.read(IDS[0], "before", ScanRecord)
    assert before.verdict.skip == ("out of memory" if times > 1 else None)


def test_the_second_try_has_half_the_batch(the_round):
    from trojai_moth.core.device import smaller_batches
    from trojai_moth.rounds.open_folder import open_folder
    from trojai_moth.rounds.reading import read_round

    subject = open_folder(read_round(the_round[0])[0], torch.device("cpu")).subject
    whole = Engine(subject, batch=24).batch
    with smaller_batches(2):
        assert (whole, Engine(subject, batch=24).batch) == (24, 12)
    assert Engine(subject, batch=24).batch == 24


def test_a_hang_is_given_up_and_a_model_has_one_budget_for_all_its_stages(start):
    """What listens to the clock: a plain sleep. In a worker, what does not is killed (runs/workers/test_fleet.py)."""
    run = start(pause=30.0, time_budget=0.2)
    execute(run)
    assert set(verdicts(run).values()) == {"not judged"}
    assert run.journal.read(IDS[0], "before", ScanRecord).verdict.skip == "time-out"


def test_what_is_left_of_a_models_budget_is_what_its_next_stage_has(start, monkeypatch):
    run = start(model_budget=1000.0, hardener_budget=400.0)
    limits = []
    real = run_task.ModelRun._begin

    def begin(self, stage, limit=None):
        got = real(self, stage, limit)
        if self.case.model_id == IDS[0] and stage != "load":
            limits.append((stage, got))
        return got

    monkeypatch.setattr(run_task.ModelRun, "_begin", begin)
    execute(run)
    used = run.journal.read(IDS[0], "before", ScanRecord).seconds
    used += run.journal.read(IDS[0], "harden", HardeningTrace).seconds
    asked = dict(limits)
    assert asked["before"] == 1000.0 and asked["harden"] == 400.0 and asked["after"] == pytest.approx(1000.0 - used)


def test_a_model_over_its_budget_is_a_failure_of_that_kind(start):
    """All of it was used up by the first scan, as its record says."""
    run = start(model_budget=1000.0)
    execute(run)
    scan = run.journal.read(IDS[0], "before", ScanRecord)
    run.journal.write(IDS[0], "before", dataclasses.replace(scan, seconds=1001.0))
    for stage in ("harden", "after"):
        run.journal.path(IDS[0], stage).unlink()
    run.journal.weights(IDS[0]).unlink()
    execute(run)
    assert verdicts(run)[IDS[0]] == "not judged" and kind(run, IDS[0]) == "out of time"
    reason = run.journal.read(IDS[0], "failure", Failure).reason
    assert reason == "took longer than the model's time budget of 1000 s in all"


def test_an_inversion_that_gives_no_numbers_is_no_clean_model(start, monkeypatch):
    def nothing(self, plan, images, target, weight):
        undefined = torch.full_like(images, float("nan"))
        return Gradient(undefined[:, 0, 0, 0], torch.zeros(len(images), dtype=torch.bool), undefined)

    monkeypatch.setattr(Engine, "_gradient", nothing)
    run = start()
    settings = {
        **to_dict(run.settings),
        "scanner": "neural-cleanse",
        "scanner_options": {"steps": 2, "screen_steps": 2},
    }
    run = dataclasses.replace(run, settings=from_dict(RescanSettings, settings))
    execute(run)
    assert set(verdicts(run).values()) == {"not judged"}


@pytest.mark.parametrize("moment", ["before the work", "while writing", "read-only"])
def test_a_disk_that_takes_no_weights_stops_the_run_and_the_run_goes_on(start, monkeypatch, moment):
    run = start()

    def full(*_, **__):
        if moment == "before the work":
            raise NoSpaceError("weights: no space left: make room and give the same command again")
        code = errno.EROFS if moment == "read-only" else errno.ENOSPC
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(run_task, "require_space" if moment == "before the work" else "save_weights", full)
        with pytest.raises(RunDirectoryError, match="give the same command again") as caught:
            execute(run)
    assert isinstance(caught.value, NoSpaceError) == (moment != "read-only")
    status = run_status(run.journal)
    assert (status.failed, status.holders) == (0, ()) and run.journal.read(IDS[0], "before", ScanRecord)
    execute(run)
    assert verdicts(run) == {IDS[0]: "cleared", IDS[1]: "clean", IDS[2]: "kept"}


def test_weights_of_one_who_died_before_saying_so_are_taken_up_with_their_own_trace(start, monkeypatch):
    run = start()
    execute(run)
    trace = run.journal.path(IDS[0], "harden").read_text()
    for stage in ("harden", "after"):
        run.journal.path(IDS[0], stage).unlink()
    monkeypatch.setattr(fleet_parts.Scaling, "harden", lambda *_, **__: 1 / 0)
    execute(run)
    assert run.journal.path(IDS[0], "harden").read_text() == trace and verdicts(run)[IDS[0]] == "cleared"


@pytest.mark.parametrize("stages, factor", [(("after",), 2.0), (("harden", "after"), float("nan"))])
def test_hardened_weights_that_changed_are_set_aside_and_made_anew(start, notes, stages, factor):
    run = start()
    run = dataclasses.replace(run, cases=run.cases[:1])
    execute(run)
    path = run.journal.weights(IDS[0])
    said = run.journal.read(IDS[0], "harden", HardeningTrace).weights_sha256
    assert said == hashlib.sha256(path.read_bytes()).hexdigest()
    for stage in stages:
        run.journal.path(IDS[0], stage).unlink()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: value * factor for name, value in load_file(path).items()}, path, metadata)
    execute(run)
    assert verdicts(run) == {IDS[0]: "cleared"} and len(os.listdir(run.journal.root / "damaged")) == 1
    now = run.journal.read(IDS[0], "harden", HardeningTrace).weights_sha256
    assert now == hashlib.sha256(path.read_bytes()).hexdigest()
    words = "the journal names" if stages == ("after",) else "infinite or undefined"
    assert any(words in note for note in notes.messages)


def test_weights_of_a_run_that_a_user_names_are_those_of_its_journal(start, the_round):
    run = start()
    run = dataclasses.replace(run, cases=run.cases[:1])
    execute(run)
    path = run.journal.weights(IDS[0])
    subject = open_folder(run.cases[0], torch.device("cpu")).subject
    link = path.parent.parent / "link.safetensors"
    link.symlink_to(path)
    assert load_named_weights(link, subject).source_sha256 == subject.source_sha256
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: value * 1 for name, value in load_file(path).items()}, path, {**metadata, "more": "text"})
    with pytest.raises(UnreadableModelError, match="not the weights that the journal names"):
        load_named_weights(link, subject)
    path.rename(path.parent.parent / "elsewhere.safetensors")
    load_named_weights(path.parent.parent / "elsewhere.safetensors", subject)


def test_a_result_that_comes_second_is_dropped_and_said(start):
    """As by one who was slow and taken over from: the first record stays, also in what is said afterwards."""
    run = start()
    run.journal.open(run.identity())
    notes = []
    model = run_task.ModelRun(run, 0, lambda stage, limit: None, notes.append)
    first = Failure(stage="a", reason="first", seconds=1.0, kind="error")
    assert model._published("before", first) == first
    assert model._published("before", Failure(stage="b", reason="second", seconds=2.0, kind="error")) == first
    assert notes == ["before: another process was first, so this result is dropped"]
