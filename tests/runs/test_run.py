import dataclasses
import json
import os
import typing

import pandas as pd
import pytest
import torch
from fake_round import write_round
from fake_scanner import Entry, install, weight_sum
from safetensors.torch import load_file

from trojai_moth.core.errors import MothError, RunDirectoryError
from trojai_moth.core.records import from_dict
from trojai_moth.core.subject import Subject
from trojai_moth.eval.results import write_results
from trojai_moth.hardeners.moth import Moth
from trojai_moth.hardeners.trace import HardeningTrace
from trojai_moth.loading import load_model
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.reading import read_round
from trojai_moth.rounds.samples import Samples
from trojai_moth.runs import run_task
from trojai_moth.runs.execute import execute
from trojai_moth.runs.journal import Journal, ScanRecord
from trojai_moth.runs.run import RescanSettings, Run

MOTH = {
    "rounds": 1, "pairs_per_round": 1, "first_steps": 2, "warmup_steps": 2, "sgd_steps": 1, "recovery_steps": 1,
    "turns": 1, "batch": 6, "success_bound": 0.01, "warmup_bound": 0.01, "largest_share": 1.0, "accuracy_limit": 1.0,
}  # fmt: skip
DATA = {"train_per_class": 4, "held_per_class": 3}
A, B, C = "id-00000000", "id-00000001", "id-00000002"


@pytest.fixture(scope="session")
def round_dir(tmp_path_factory):
    """Three models, never changed; the middle one is labelled poisoned."""
    return write_round(tmp_path_factory.mktemp("pipeline") / "round", models=3, poisoned=[1], per_class=2)


@pytest.fixture(scope="session")
def originals(round_dir):
    """The sums by which the scanner knows the models as they were."""
    return {case.model_id: weight_sum(load_model(case.model_file).module) for case in read_round(round_dir)}


@pytest.fixture
def start(monkeypatch, tmp_path, round_dir, originals):
    """Run the scripted scanner over the round and return (rows, summary, journal)."""
    install(monkeypatch, Entry())

    def start(script, *, harden="flagged", out="run", root=round_dir, against=lambda model_id: None, labels=None):
        options = {"script": script, "originals": originals}
        settings = RescanSettings(
            scanner="scripted", scanner_options=options, harden=harden, verdict="naive",
            hardener_options=MOTH, data=from_dict(DataSettings, DATA),
        )  # fmt: skip
        run = Run(read_round(root), settings, Journal(tmp_path / out), torch.device("cpu"), against)
        execute(run)
        rows, summary = write_results(run.journal, labels or {})
        return rows.set_index("model"), summary, run.journal

    return start


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*.json")) if path.parent.name == "journal"}


def test_every_verdict_has_its_row(start):
    rows, summary, journal = start({A: "flagged clean", B: "flagged flagged", C: "clean"})
    assert rows["verdict"].to_dict() == {A: "cleared", B: "kept", C: "clean"}
    assert rows["flagged_before"].to_list() == [True, True, False]
    assert rows["flagged_after"].to_list()[:2] == [False, True] and pd.isna(rows["flagged_after"][C])
    assert rows["size_before"].to_list() == [5.0, 5.0, 3.0] and rows["size_after"].to_list()[:2] == [3.0, 5.0]
    assert rows["probability_before"].to_list() == [0.75, 0.75, 0.25]
    assert rows["probability"].to_list() == [0.25, 0.75, 0.25]
    assert rows["reason"].to_list() == ["after hardening: says clean", "after hardening: says flagged", "says clean"]
    assert rows["accuracy_before"].to_list() == [1.0] * 3 and rows["accuracy_after"].notna().to_list() == [1, 1, 0]
    assert (summary.flagged_before, summary.flagged_after, summary.hardened) == (2, 1, 2)
    assert sorted(os.listdir(journal.root / "weights")) == [f"{A}.safetensors", f"{B}.safetensors"]


def test_hardening_ran_and_was_recorded(start, notes):
    _, _, journal = start({A: "flagged clean"})
    trace = journal.read(A, "harden", HardeningTrace)
    assert [part.number for part in trace.rounds] == [0, 1] and trace.settings["rounds"] == 1
    before, after = (journal.read(A, stage, ScanRecord) for stage in ("before", "after"))
    assert before.verdict.seed == after.verdict.seed and before.sha256 == after.sha256 and before.data == after.data
    assert before.check.startswith("published logits reproduced")
    assert next(note for note in notes.messages if ": before" in note) == f"[1/3] {A}: before: flagged (says flagged)"
    assert f"[3/3] {C}: before: clean (says clean)" in notes.messages
    assert notes.records[0].model == A


@pytest.mark.parametrize(
    ("script", "flagged_before", "reason"),
    [("crash", None, "scan before: KeyError"), ("flagged crash", True, "scan after: KeyError")],
)
def test_a_scanner_that_crashes_judges_nothing(start, script, flagged_before, reason):
    rows, summary, _ = start({A: script, B: "flagged clean"})
    assert rows["verdict"].to_dict() == {A: "not judged", B: "cleared", C: "clean"}
    assert rows["reason"][A].startswith(reason) and "\n" not in rows["reason"][A]
    assert pd.isna(rows["flagged_before"][A]) if flagged_before is None else bool(rows["flagged_before"][A])
    assert (summary.unfinished, summary.not_judged) == ((1, 0) if flagged_before else (0, 1))
    assert summary.flagged_after == (1 if flagged_before else 0)


@pytest.mark.parametrize("error", [ZeroDivisionError("division\nby zero"), MemoryError(), MothError("told why")])
def test_a_hardening_that_crashes_leaves_the_model_flagged(start, monkeypatch, notes, error):
    real = Moth.harden

    def harden(self, work, *arguments, **options):
        if work.model_id == A:
            raise error
        return real(self, work, *arguments, **options)

    monkeypatch.setattr(Moth, "harden", harden)
    rows, summary, _ = start({A: "flagged clean", B: "flagged clean"})
    assert rows["verdict"].to_dict() == {A: "not judged", B: "cleared", C: "clean"}
    assert bool(rows["flagged_before"][A]) and pd.isna(rows["flagged_after"][A])
    assert rows["reason"][A].startswith("harden: ") and "\n" not in rows["reason"][A]
    assert (summary.unfinished, summary.flagged_after) == (1, 1)
    assert any(f"{A}: not judged: " in note for note in notes.messages)


def test_models_that_can_not_be_read_are_rows(start, tmp_path, round_dir):
    root = tmp_path / "round"
    root.mkdir()
    for case in read_round(round_dir):
        (root / case.model_id).symlink_to(case.directory)
    (root / "id-00000007").mkdir()
    broken = root / "id-00000008"
    broken.mkdir()
    (broken / "config.json").write_bytes((round_dir / A / "config.json").read_bytes())
    (broken / "model.pt").write_bytes(b"nonsense")
    (root / "METADATA.csv").write_text("model_name\nid-00000009\n")
    rows, summary, _ = start({A: "flagged clean"}, root=root)
    assert rows.index.to_list() == [A, B, C, "id-00000007", "id-00000008", "id-00000009"]
    assert rows["verdict"].to_list() == ["cleared", "clean", "clean", *["not judged"] * 3]
    assert all(reason.startswith("load: ") for reason in rows["reason"][3:]) and rows["flagged_before"][3:].isna().all()
    assert (summary.models, summary.judged, summary.not_judged) == (6, 3, 3)


def test_clean_only_leaves_poisoned_models_alone(start):
    """The reason is asked of the caller, once; the pipeline itself knows no labels."""
    asked = []

    def against(model_id):
        asked.append(model_id)
        return "it is labelled poisoned" if model_id == B else None

    script = {A: "flagged clean", B: "flagged clean", C: "clean"}
    first = start(script, harden="clean-only", against=against, labels={A: False, B: True, C: False})
    rows, summary, journal = first
    assert rows["verdict"].to_dict() == {A: "cleared", B: "kept", C: "clean"}
    assert rows["reason"][B] == "not hardened: it is labelled poisoned" and pd.isna(rows["accuracy_after"][B])
    assert os.listdir(journal.root / "weights") == [f"{A}.safetensors"]
    assert (summary.false_positives_removed.count, summary.true_positives_lost.count) == (1, 0)
    assert asked == [A, B]
    before = stamps(journal.root)
    rows, *_ = start(script, harden="clean-only", against=against, labels={A: False, B: True, C: False})
    assert stamps(journal.root) == before and rows.equals(first[0])


def test_all_hardens_the_unflagged_too(start):
    rows, summary, journal = start({A: "flagged clean", B: "clean clean", C: "crash"}, harden="all")
    assert rows["verdict"].to_dict() == {A: "cleared", B: "clean", C: "not judged"}
    assert sorted(os.listdir(journal.root / "weights")) == [f"{A}.safetensors", f"{B}.safetensors"]
    assert summary.hardened == 2


def test_a_second_run_does_nothing(start, monkeypatch):
    script = {A: "flagged clean", B: "flagged crash", C: "clean"}
    *_, journal = start(script)
    table, files = (journal.root / "results.csv").read_bytes(), stamps(journal.root)
    weights = journal.weights(A).stat().st_mtime_ns
    assert len(files) == 7

    def never(*_, **__):
        raise AssertionError("nothing may be read again")

    for name in ("open_folder", "collect_samples", "save_weights"):
        monkeypatch.setattr(run_task, name, never)
    monkeypatch.setattr(Moth, "harden", never)
    start(script)
    assert (journal.root / "results.csv").read_bytes() == table and stamps(journal.root) == files
    assert journal.weights(A).stat().st_mtime_ns == weights


def test_a_failed_model_is_tried_again_once_its_failure_is_deleted(start, monkeypatch, notes):
    script = {A: "flagged clean"}
    with monkeypatch.context() as patch:
        patch.setattr(Moth, "harden", lambda *_, **__: 1 / 0)
        rows, _, journal = start(script)
    assert rows["verdict"][A] == "not judged"
    start(script)
    assert any("delete its .failure.json" in note for note in notes.messages)
    journal.path(A, "failure").unlink()
    rows, *_ = start(script)
    assert rows["verdict"][A] == "cleared"


def test_no_journal_says_hardened_without_the_weights(start, monkeypatch, tmp_path):
    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_task, "save_weights", dies)
        with pytest.raises(KeyboardInterrupt):
            start({A: "flagged clean"})
    assert os.listdir(tmp_path / "run" / "journal") == [f"{A}.before.json"]
    assert start({A: "flagged clean"})[0]["verdict"][A] == "cleared"


@pytest.mark.parametrize("stage", ["before", "harden", "after"])
def test_a_damaged_record_is_set_aside_and_its_stage_done_again(start, stage, notes):
    """It is not held against the model, and the damaged file is kept for whoever wants to know."""
    script = {A: "flagged clean", B: "clean"}
    rows, _, journal = start(script)
    path = journal.path(A, stage)
    path.write_text(path.read_text()[:40])
    again, *_ = start(script)
    assert again.drop(columns="seconds").equals(rows.drop(columns="seconds"))
    (note,) = [note for note in notes.messages if "damaged" in note]
    assert note.startswith(f"[1/3] {A}: {path}") and note.endswith("its stage is done again")
    assert [kept.read_text()[:5] for kept in (journal.root / "damaged").iterdir()] == [path.read_text()[:5]]
    assert os.listdir(journal.root / "leases") == []


def test_the_same_seed_gives_the_same_run_in_any_order(start, tmp_path, round_dir):
    """The table of one model does not depend on which models came before it."""
    script = {A: "flagged clean", C: "flagged flagged"}
    rows, _, journal = start(script)
    alone, _, other = start(script, out="alone", root=round_dir / C)
    assert alone.drop(columns="seconds").to_csv() == rows.loc[[C]].drop(columns="seconds").to_csv()
    one, two = load_file(journal.weights(C)), load_file(other.weights(C))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_other_settings_do_not_continue_a_run(start, round_dir):
    start({A: "clean"})
    with pytest.raises(RunDirectoryError, match=r"settings\.scanner_options\.script"):
        start({A: "flagged clean"})
    with pytest.raises(RunDirectoryError, match="models"):
        start({A: "clean"}, root=round_dir / B)


def leaves(kind, found=None):
    """All field names of a record and of the records within it."""
    found = set() if found is None else found
    for field in dataclasses.fields(kind):
        found.add(field.name)
        hint = typing.get_type_hints(kind)[field.name]
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part):
                leaves(part, found)
    return found


def test_no_label_reaches_scanner_or_pipeline(start, round_dir):
    """No field of what they see or write has room for one, and the journal is the same whatever the labels say."""
    names = leaves(Subject) | leaves(Samples) | leaves(ScanRecord) | leaves(HardeningTrace)
    assert not {name for name in names if "label" in name or "poison" in name or "truth" in name}
    _, _, journal = start({A: "flagged clean"}, labels={A: True, B: False})
    _, _, other = start({A: "flagged clean"}, out="other", labels={A: False, B: True})
    for path in stamps(journal.root):
        one, two = (json.loads((folder / "journal" / path.name).read_text()) for folder in (journal.root, other.root))
        assert without_times(one) == without_times(two)
        assert str(round_dir) not in path.read_text() and "poisoned" not in path.read_text()


def without_times(value):
    if not isinstance(value, dict):
        return value
    # The file of hardened weights holds its trace, and so the seconds, too.
    left_out = ("seconds", "weights_sha256")
    return {key: without_times(item) for key, item in value.items() if key not in left_out}


def test_what_a_stage_took_includes_reading_the_model_where_that_was_still_to_be_done(start, monkeypatch):
    clock, real = [0.0], run_task.open_folder

    def open_slowly(*arguments):
        clock[0] += 100
        return real(*arguments)

    monkeypatch.setattr(run_task, "open_folder", open_slowly)
    monkeypatch.setattr(run_task, "perf_counter", lambda: clock[0])

    def seconds():
        _, _, journal = start({A: "flagged clean", B: "clean", C: "clean"})
        kinds = {"before": ScanRecord, "harden": HardeningTrace, "after": ScanRecord}
        return journal, {stage: journal.read(A, stage, kind).seconds for stage, kind in kinds.items()}

    journal, at_one_go = seconds()
    assert at_one_go == {"before": 100, "harden": 0, "after": 0}
    for path in (
        journal.path(A, "harden"),
        journal.path(A, "after"),
        journal.weights(A),
        journal.root / "finished" / A,
    ):
        path.unlink()
    assert seconds()[1] == {"before": 100, "harden": 100, "after": 0}
