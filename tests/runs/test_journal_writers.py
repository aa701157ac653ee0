"""One run directory, several writers, and disks that fail: the first complete record stays, whatever happens."""

import errno
import os
import random
import shutil
import subprocess
import threading

import pytest

from trojai_moth.core import files
from trojai_moth.core.errors import DamagedRecordError, NoSpaceError, RunDirectoryError
from trojai_moth.core.files import publish_text, require_space, sweep_parts, write_text
from trojai_moth.core.process_identity import process_name
from trojai_moth.core.records import record, to_json
from trojai_moth.runs.journal import Journal, RunIdentity

MODEL = "id-00000000"
IDENTITY = RunIdentity(version="1", models=(MODEL, "id-00000001"), settings={"seed": 0})


@record
class Found:
    """A record as the journal holds them."""

    by: int
    text: str = 'what was found, in ü words and "quotes"'
    parts: tuple[float, ...] = (1.5, float("nan"))


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "run")
    journal.open(IDENTITY)
    return journal


def at_once(count, action):
    """The answers, or the errors, of so many threads that begin together."""
    start, answers = threading.Barrier(count), [None] * count

    def one(number):
        start.wait()
        try:
            answers[number] = action(number)
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_many_who_publish_at_once_one_succeeds_and_readers_see_only_that(journal):
    answers = at_once(12, lambda number: journal.publish(MODEL, "before", Found(by=number)))
    assert sorted(answers) == [False] * 11 + [True]
    assert journal.read(MODEL, "before", Found).by == answers.index(True)
    assert not journal.publish(MODEL, "before", Found(by=99))
    assert os.listdir(journal.root / "journal") == [f"{MODEL}.before.json"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_links_does_too(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert publish_text(tmp_path / "a", "first") and not publish_text(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first" and os.listdir(tmp_path) == ["a"]


def test_a_link_that_was_made_although_the_answer_says_no(tmp_path, monkeypatch):
    """NFS: the answer is lost, the question asked again, and then the file is there already: our own."""
    link = os.link

    def twice(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert publish_text(tmp_path / "a", "mine") and (tmp_path / "a").read_text() == "mine"


def test_many_may_start_the_same_run_at_once(tmp_path):
    answers = at_once(12, lambda _: Journal(tmp_path / "run").open(IDENTITY))
    assert answers == [None] * 12 and Journal(tmp_path / "run").identity() == IDENTITY
    assert os.listdir(tmp_path / "run") == ["run.json"]


def test_of_different_runs_one_starts_and_the_others_are_refused(tmp_path):
    def start(number):
        identity = RunIdentity(version="1", models=(MODEL,), settings={"seed": number})
        Journal(tmp_path / "run").open(identity)
        return number

    answers = at_once(8, start)
    (winner,) = [answer for answer in answers if isinstance(answer, int)]
    assert Journal(tmp_path / "run").identity().settings == {"seed": winner}
    assert all("made with other settings (settings.seed" in str(a) for a in answers if isinstance(a, RunDirectoryError))
    assert sum(isinstance(answer, RunDirectoryError) for answer in answers) == 7


def test_a_run_that_starts_while_one_looks_is_joined(tmp_path, monkeypatch):
    """Between the question whether a run is there and the look into the folder another may have started it."""
    fresh = Journal._fresh

    def late(self):
        monkeypatch.setattr(Journal, "_fresh", fresh)
        Journal(self.root).open(IDENTITY)
        return fresh(self)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Journal, "_fresh", late)
    Journal(tmp_path / "run").open(IDENTITY)


def test_a_damaged_record_is_moved_aside_and_made_again(journal):
    journal.publish(MODEL, "before", Found(by=1))
    path, notes = journal.path(MODEL, "before"), []
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedRecordError):
        journal.read(MODEL, "before", Found)
    assert journal.recall(MODEL, "before", Found, notes.append) is None
    (note,) = notes
    assert "damaged" in note and "its stage is done again" in note and not path.exists()
    assert journal.publish(MODEL, "before", Found(by=2)) and journal.read(MODEL, "before", Found).by == 2
    assert len(os.listdir(journal.root / "damaged")) == 1


def test_a_record_that_can_not_be_read_now_is_not_moved(journal, monkeypatch):
    """A file system that is away for a moment has damaged nothing."""
    journal.publish(MODEL, "before", Found(by=1))

    def away(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("trojai_moth.core.records.read_bytes", away)
        with pytest.raises(RunDirectoryError, match="cannot be read"):
            journal.recall(MODEL, "before", Found, lambda _: None)
    assert journal.read(MODEL, "before", Found).by == 1


def mangled(whole, stream):
    """Bytes as a dying disk or a careless editor leaves them."""
    data, kind = bytearray(whole), stream.randrange(5)
    at = stream.randrange(len(data))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        data[at] = stream.randrange(256)
    elif kind == 2:
        data[at : at + stream.randrange(1, 40)] = b""
    elif kind == 3:
        data[at:at] = bytes(stream.randrange(256) for _ in range(stream.randrange(1, 20)))
    else:
        data[at:] = bytes(len(data) - at)
    return bytes(data)


def test_whatever_lies_there_is_a_record_or_a_damaged_one(journal):
    """Seeded fuzzing of the reader: no other error, and never a record with other fields or types."""
    journal.publish(MODEL, "before", Found(by=1))
    path, stream = journal.path(MODEL, "before"), random.Random(9)
    whole, refused = path.read_bytes(), 0
    for _ in range(1000):
        path.write_bytes(mangled(whole, stream))
        try:
            found = journal.read(MODEL, "before", Found)
        except DamagedRecordError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
        else:
            assert isinstance(found, Found) and isinstance(found.by, int) and to_json(found)
    assert 500 < refused < 1000


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, NoSpaceError), (errno.EROFS, RunDirectoryError)])
def test_a_disk_that_takes_no_more_is_the_runs_trouble(journal, monkeypatch, code, kind):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", refuse)
        for action in (journal.publish, journal.write):
            with pytest.raises(kind, match=r"cannot be written .* give the same command again"):
                action(MODEL, "before", Found(by=1))
        with pytest.raises(kind):
            Journal(journal.root.parent / "other").open(IDENTITY)
    assert journal.read(MODEL, "before", Found) is None and not list(journal.root.rglob("*.part"))


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 64 KiB, where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_run_and_the_same_run_goes_on_when_there_is_room(tiny_disk):
    journal = Journal(tiny_disk / "run")
    journal.open(IDENTITY)
    ballast = tiny_disk / "ballast"
    descriptor = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        for _ in range(100):
            os.write(descriptor, bytes(4096))
    os.close(descriptor)
    with pytest.raises(NoSpaceError, match="No space left on device"):
        journal.publish(MODEL, "before", Found(by=1, text="x" * 5000))
    assert journal.read(MODEL, "before", Found) is None and not list(journal.root.rglob("*.part"))
    ballast.unlink()
    journal.open(IDENTITY)
    assert journal.publish(MODEL, "before", Found(by=1))


def test_room_is_asked_for_before_it_is_needed(tmp_path):
    require_space(tmp_path / "not" / "there", 1 << 20)
    with pytest.raises(
        NoSpaceError, match=r"there: no space left: \d+ MiB .* make room and give the same command again"
    ):
        require_space(tmp_path / "not" / "there", 1 << 60)


def test_what_dead_writers_left_is_swept_and_nothing_else(tmp_path):
    machine, _, start = process_name().split("-")
    dead, foreign, old = (
        f".a.json.{name}.0.part" for name in (f"{machine}-{os.getpid()}-{int(start) + 1}", "0" * 12 + "-1-1", "f-1-1")
    )
    living = f".a.json.{process_name()}.0.part"
    for name in (dead, foreign, old, living, "a.json", ".strange.part"):
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / old, (0, 0))
    assert sweep_parts(tmp_path) == 2 and sweep_parts(tmp_path / "nowhere") == 0
    assert sorted(os.listdir(tmp_path)) == sorted([foreign, living, "a.json", ".strange.part"])


def test_two_writers_never_share_a_temporary_file(tmp_path):
    seen = []

    def write(_):
        files.write_atomically(tmp_path / "a", lambda part: (seen.append(part.name), part.write_text("x")))

    assert at_once(8, write) == [None] * 8
    assert len(set(seen)) == 8 and os.listdir(tmp_path) == ["a"]
    write_text(tmp_path / "a", "y")
    assert (tmp_path / "a").read_text() == "y"
