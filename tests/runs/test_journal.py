import errno
import os
from pathlib import Path

import pytest
from toys import AS_STORED

from trojai_moth.core.errors import RunDirectoryError
from trojai_moth.core.files import write_atomically, write_text
from trojai_moth.core.records import to_dict, to_json
from trojai_moth.runs.journal import Failure, Journal, RunIdentity, ScanRecord
from trojai_moth.runs.run import RescanSettings
from trojai_moth.scanners.result import Candidate, ScanResult


def identity(**changes):
    settings = {**to_dict(RescanSettings()), **changes.pop("settings", {})}
    return RunIdentity(**{"version": "1", "models": ("a", "b"), "settings": settings, **changes})


def scan_record():
    evidence = Candidate(victim=None, target=1, size=2.5, success=1.0, held_success=None, held_images=0, converged=True)
    verdict = ScanResult(scanner="x", outcome="flagged", score=1.5, probability=0.8, reason="ü", evidence=(evidence,))
    return ScanRecord(
        architecture="resnet18", classes=3, sha256="0", check="fine", convention=AS_STORED, data="examples",
        accuracy=float("nan"), device="cpu", verdict=verdict, seconds=1.0,
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "run")
    journal.open(identity())
    return journal


def refusal(action, *arguments):
    with pytest.raises(RunDirectoryError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_run_goes_on(journal):
    before = (journal.root / "run.json").stat().st_mtime_ns
    journal.open(identity())
    assert journal.identity() == identity() and (journal.root / "run.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": {"seed": 7}}, "settings.seed: 0 there, 7 now"),
        ({"settings": {"hardener_options": {"rounds": 3}}}, "settings.hardener_options."),
        ({"settings": {"scanner_options": {"steps": 3}}}, "settings.scanner_options.steps: None there, 3 now"),
        ({"settings": {"harden": "all"}}, "settings.harden: 'flagged' there, 'all' now"),
        ({"models": ("a",)}, "models: "),
        ({"models": ("b", "a")}, "models: "),
        ({"version": "2"}, "version: '1' there, '2' now"),
    ],
)
def test_another_run_is_refused_by_the_first_difference(journal, changes, named):
    text = refusal(journal.open, identity(**changes))
    assert named in text and "give another --out" in text and str(journal.root) in text


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "not empty and not a run directory" in refusal(Journal(tmp_path).open, identity())
    assert os.listdir(tmp_path) == ["thesis.txt"]
    assert "not a run directory" in refusal(Journal(tmp_path / "thesis.txt").open, identity())


def test_an_empty_folder_and_one_left_at_birth_are_fine(tmp_path):
    """A run that is killed while it writes its first file leaves only that file's beginning."""
    (tmp_path / ".run.json.12345.part").write_text('{"ver')
    Journal(tmp_path).open(identity())
    assert Journal(tmp_path).identity() == identity()


def test_records_come_back(journal):
    assert journal.read("a", "before", ScanRecord) is None
    journal.write("a", "before", scan_record())
    back = journal.read("a", "before", ScanRecord)
    assert to_json(back) == to_json(scan_record()) and back.verdict == scan_record().verdict
    journal.write("a", "failure", Failure(stage="load", reason='"quotes" and ü', seconds=0.5, kind="error"))
    assert journal.read("a", "failure", Failure).reason == '"quotes" and ü'
    assert journal.read("b", "before", ScanRecord) is None


def test_half_a_record_is_refused_at_every_length(journal):
    """Only the last byte, a line end, may be missing: then the record is whole."""
    journal.write("a", "before", scan_record())
    path = journal.path("a", "before")
    whole = path.read_bytes()
    assert len(whole) > 500
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        text = refusal(journal.read, "a", "before", ScanRecord)
        assert text.startswith(f"{path}: damaged") and text.endswith("delete this file to redo its stage")
    path.write_bytes(whole[:-1])
    assert to_json(journal.read("a", "before", ScanRecord)) == to_json(scan_record())


def test_half_an_identity_is_refused_with_a_mend_that_works(journal):
    """Without run.json the rest is not recognised as a run, so deleting it would not help."""
    path = journal.root / "run.json"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        text = refusal(journal.open, identity())
        assert text.startswith(f"{path}: damaged") and text.endswith("give another --out")


@pytest.mark.parametrize("content", ["{}", '{"stage": "load", "reason": 1, "seconds": 0}', "[]", "null", "\x00"])
def test_other_json_is_no_record(journal, content):
    journal.write("a", "failure", Failure(stage="load", reason="r", seconds=0.0, kind="error"))
    journal.path("a", "failure").write_text(content)
    assert "failure.json: damaged" in refusal(journal.read, "a", "failure", Failure)


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a b", "a\n", "n" * 129])
def test_names_that_are_no_file_names_are_refused_before_any_work(tmp_path, name):
    journal = Journal(tmp_path / "run")
    assert "not usable as a file name" in refusal(journal.path, name, "before")
    assert "not usable as a file name" in refusal(journal.open, identity(models=("a", name)))
    assert not (tmp_path / "run").exists()


def test_writing_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_text(path, "old")
    write_text(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü" and os.listdir(path.parent) == ["file.json"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, failure):
    path = tmp_path / "file.json"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise failure

    with pytest.raises(type(failure)):
        write_atomically(path, half)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]


def test_content_is_on_disk_before_its_name(tmp_path, monkeypatch):
    """After a power cut a name without content would be an empty file."""
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("flushed"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("named"), replace(*names)))
    write_text(tmp_path / "x", "text")
    assert done == ["flushed", "named"]
