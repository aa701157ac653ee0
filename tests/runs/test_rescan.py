"""``rescan`` as a function: no command line, no exit, no signal handler unless it is asked for."""

import inspect
import logging
import shutil
import signal

import pytest
from fake_round import write_round
from fake_scanner import Entry, Scripted, install, weight_sum

from trojai_moth.cli.rescan import settings_of
from trojai_moth.core.errors import RunDirectoryError, SettingsError, UnfinishedRunError
from trojai_moth.core.messages import configured
from trojai_moth.eval.rescan import MayHarden, rescan
from trojai_moth.eval.results import read_results
from trojai_moth.hardeners.moth import Moth
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.runs import rescan as rescan_round
from trojai_moth.runs.journal import Failure, Journal, ScanRecord
from trojai_moth.runs.run import RescanSettings

A, B = "id-00000000", "id-00000001"
DATA = {"source": "examples", "train_per_class": 4, "held_per_class": 3}


@pytest.fixture(scope="module")
def round_dir(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("rescan") / "round", models=2, poisoned=[1], per_class=2)


@pytest.fixture
def settings(round_dir, monkeypatch):
    """Of a run that takes next to no time, by script."""
    from trojai_moth.loading import load_model

    install(monkeypatch, Entry())
    originals = {model: weight_sum(load_model(round_dir / model / "model.pt").module) for model in (A, B)}

    def settings(script, **more):
        options = {"script": script, "originals": originals}
        return {"scanner": "scripted", "scanner_options": options, "verdict": "naive", "data": {**DATA}, **more}

    return settings


def test_it_returns_what_the_files_hold_and_tells_its_progress(round_dir, settings, tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    told = []
    result = rescan(str(round_dir), str(tmp_path / "run"), progress=told.append, **settings({A: "clean", B: "clean"}))
    assert result.run_dir == tmp_path / "run" and result.settings.scanner == "scripted"
    assert result.rows.to_csv(index=False) == (result.run_dir / "results.csv").read_text()
    assert result.rows["label"].to_list() == [False, True] and result.summary.labelled == 2
    assert "Images are read as RGB, /255, crop 32 of 36 (2); all held-back ones are right." in result.remarks
    assert "naive verdict" in result.remarks[1]
    assert told[:2] == [f"[1/2] {A}: load", f"[1/2] {A}: scan before"] and (told[0].number, told[0].total) == (1, 2)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_odd_folders_rows_and_labels_stop_nobody_else(round_dir, settings, tmp_path, caplog):
    odd = shutil.copytree(round_dir, tmp_path / "odd")
    shutil.copytree(odd / A, odd / f"{A} copy")
    with (odd / "METADATA.csv").open("a") as file:
        file.write('"../x",True\nNA,True\n"id-00000007,maybe\n')
    (odd / B / "ground_truth.csv").write_text("maybe")
    with caplog.at_level(logging.WARNING, logger="trojai_moth"):
        result = rescan(odd, tmp_path / "run", **settings({A: "clean", B: "clean"}))
    verdicts = dict(zip(result.rows["model"], result.rows["verdict"], strict=True))
    assert verdicts.pop(A) == verdicts.pop(B) == "clean"
    assert set(verdicts.values()) == {"not judged"} and len(verdicts) == 4 and "NA" in verdicts
    reasons = result.rows["reason"][result.rows["verdict"] == "not judged"]
    assert all("load: " in reason for reason in reasons) and any(f"{A} copy: " in reason for reason in reasons)
    assert (result.summary.models, result.summary.judged, result.summary.labelled_judged) == (6, 2, 1)
    assert sum("labels that cannot be used" in message for message in caplog.messages) == 1
    assert read_results(tmp_path / "run" / "results.csv")["model"].to_list() == result.rows["model"].to_list()


def test_a_budget_ends_it_with_what_is_known_and_it_goes_on(round_dir, settings, tmp_path):
    chosen = settings({A: "clean", B: "clean"})
    with pytest.raises(UnfinishedRunError, match=r"time budget is used up; .*run is usable"):
        rescan(round_dir, tmp_path / "run", round_budget=1e-9, **chosen)
    assert read_results(tmp_path / "run" / "results.csv")["reason"].to_list() == ["not reached yet"] * 2
    assert rescan(round_dir, tmp_path / "run", **chosen).rows["verdict"].to_list() == ["clean", "clean"]
    with pytest.raises(RunDirectoryError, match="seed: 0 there, 7 now"):
        rescan(round_dir, tmp_path / "run", **{**chosen, "seed": 7})


@pytest.mark.parametrize("handled", [False, True])
def test_whoever_interrupts_gets_a_table_and_the_interruption(round_dir, settings, tmp_path, monkeypatch, handled):
    """Ctrl-C, also where the program swallowed it; nobody who uses it as a function is told of commands."""
    real = Scripted.scan

    def scan(self, subject, samples, *, seed):
        if subject.model_id == B:
            signal.raise_signal(signal.SIGINT)
        return real(self, subject, samples, seed=seed)

    monkeypatch.setattr(Scripted, "scan", scan)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            rescan(round_dir, tmp_path / "run", handle_signals=handled, **settings({A: "clean", B: "clean"}))
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_results(tmp_path / "run" / "results.csv")["verdict"].to_list() == ["clean", "not judged"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"seed": -1}, "seed"),
        ({"data": "nonsense"}, "data.source"),
        ({"harden": "clean-only", "verdict": "blind"}, "--verdict naive"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"subset": "id-00000077"}, "--subset"),
        ({"calibration": "missing.json"}, "missing.json"),
        ({"rule": "missing.json", "verdict": "naive"}, "blind verdict"),
    ],
)
def test_what_is_wrong_is_a_settings_error_before_anything_is_written(round_dir, tmp_path, given, words):
    with pytest.raises(SettingsError, match=words):
        rescan(round_dir, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "said", "source"),
    [
        (None, False, "examples"), ("auto", False, "examples"), ({"train_per_class": 4}, False, "examples"),
        ("composed", True, "composed"), ({"source": "examples"}, True, "examples"),
        (DataSettings(source="composed"), True, "composed"),
    ],
)  # fmt: skip
def test_images_are_left_to_the_round_unless_they_are_named(data, said, source):
    settings, images_are_said = rescan_round.read_settings({} if data is None else {"data": data})
    assert (images_are_said, settings.data.source) == (said, source)


def test_the_round_says_which_images_where_nobody_does(round_dir, settings, tmp_path, monkeypatch, notes):
    monkeypatch.setattr(rescan_round, "images_for", lambda cases: ("examples", f"Images: of {len(cases)} models."))
    chosen = settings({A: "clean", B: "clean"})
    del chosen["data"]["source"]
    result = rescan(round_dir, tmp_path / "run", **chosen)
    assert result.settings.data.source == "examples" and notes.messages[0] == "Images: of 2 models."


def test_who_is_labelled_poisoned_is_left_alone_where_labels_decide():
    chosen = MayHarden(True, {A: False, B: True})
    assert [chosen(model) for model in (A, B, "other")] == [None, "it is labelled poisoned", "it has no label"]
    assert MayHarden(False, {})(B) is None
    with pytest.raises(SettingsError, match="the round has no labels"):
        MayHarden(True, {})


def test_the_command_offers_every_setting_but_those_of_its_groups():
    choices = {"assignments": ("data.seed=4", "evidence.steps=3"), "data": "auto", "backgrounds": None, "seed": 1}
    found = settings_of(choices)
    assert found["data"] == {"folder": None, "backgrounds": None, "seed": 4} and found["evidence"] == {"steps": 3}
    assert settings_of({**choices, "data": "composed"})["data"]["source"] == "composed"
    taken = set(inspect.signature(rescan).parameters)
    assert not taken & set(RescanSettings.__dataclass_fields__), "a setting of the same name could not be given"


@pytest.mark.parametrize("debug", [False, True])
def test_tracebacks_are_kept_where_they_are_asked_for(round_dir, settings, tmp_path, monkeypatch, debug, capsys):
    """Of what a scanner raises, which is in its verdict, and of what a hardener raises, which is a failure."""

    def harden(self, *_, **__):
        raise ZeroDivisionError("by\x1b[2J the plugin")

    monkeypatch.setattr(Moth, "harden", harden)
    with configured(logging.INFO, debug):
        rescan(round_dir, tmp_path / "run", **settings({A: "crash", B: "flagged clean"}))
    journal, shown = Journal(tmp_path / "run"), capsys.readouterr().err
    scan, failure = journal.read(A, "before", ScanRecord), journal.read(B, "failure", Failure)
    assert scan.verdict.reason.startswith("KeyError") and failure.kind == "plugin"
    texts = [path.read_text() for path in (journal.path(A, "before"), journal.path(B, "failure"))]
    assert [("traceback" in text) for text in texts] == [debug, debug]
    assert ("Traceback" in shown) is debug and "\x1b" not in shown
    if debug:
        assert 'raise KeyError("no such' in scan.verdict.traceback
        assert "ZeroDivisionError" in failure.traceback and "in harden" in failure.traceback
        assert "\x1b" not in failure.traceback and failure.traceback in shown
    else:
        assert (scan.verdict.traceback, failure.traceback) == (None, None)
