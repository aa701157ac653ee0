"""Which task comes next, whatever workers are: told by a pool that only says what it was asked for."""

from collections import deque
from types import SimpleNamespace

import pytest

from trojai_moth.core.errors import RunDirectoryError, SettingsError
from trojai_moth.core.messages import silent
from trojai_moth.runs import dispatcher as module
from trojai_moth.runs.dispatcher import dispatch
from trojai_moth.runs.execution_settings import ExecutionSettings, Shard, parse_shard
from trojai_moth.runs.journal import Journal
from trojai_moth.runs.leases import LeaseTerms
from trojai_moth.runs.workers.pool import Report


class Scripted:
    """A pool of so many places that ends each task as its script says, the oldest first."""

    def __init__(self, endings, places=1, splits=False):
        self.endings, self.places, self.splits = endings, places, splits
        self.asked, self.running, self.stopped = [], deque(), False

    def has_room(self):
        return len(self.running) < self.places

    def submit(self, task):
        self.asked.append((task.number, task.part))
        self.running.append(task)

    def wait(self, seconds):
        if not self.running:
            return []
        task = self.running.popleft()
        ending = self.endings.get((task.number, task.part), ["done"])
        return [Report(task, ending.pop(0) if len(ending) > 1 else ending[0])]

    def stop(self):
        self.stopped = True


@pytest.fixture
def run(tmp_path):
    def make(models=3, **fleet):
        cases = [SimpleNamespace(model_id=f"id-{number:08d}") for number in range(models)]
        journal = Journal(tmp_path / "run", LeaseTerms(expiry=0.2))
        return SimpleNamespace(
            cases=cases, fleet=ExecutionSettings(**fleet), journal=journal, progress=silent, check=lambda: None
        )

    return make


def test_no_scan_waits_for_what_follows_one(run):
    pool = Scripted({(number, "scan"): ["more"] for number in range(3)}, places=2, splits=True)
    dispatch(run(), pool)
    assert pool.asked == [(0, "scan"), (1, "scan"), (2, "scan"), (0, "all"), (1, "all"), (2, "all")] and pool.stopped


def test_a_shard_is_every_nth_model_and_all_shards_are_all(run):
    asked = []
    for index in (1, 2, 3):
        pool = Scripted({})
        dispatch(run(8, shard=Shard(index=index, of=3)), pool)
        asked.append([number for number, _ in pool.asked])
    assert asked == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "9999999/9999999"])
def test_what_is_no_shard_is_refused(text):
    assert parse_shard(" 3/8 ") == Shard(index=3, of=8)
    with pytest.raises(SettingsError, match=r"--shard .*: write I/N"):
        parse_shard(text)


def test_a_model_whose_worker_died_is_next_and_one_that_kills_them_is_given_up(run, monkeypatch):
    failed = []
    monkeypatch.setattr(module, "fail_model", lambda run, number, *words: failed.append((number, *words)))
    pool = Scripted({(0, "all"): ["died", "done"], (1, "all"): ["died"]})
    dispatch(run(deaths=3), pool)
    assert [number for number, _ in pool.asked] == [0, 0, 1, 1, 1, 2]
    assert [(number, kind) for number, _, _, kind, _ in failed] == [(1, "worker died")]


def test_what_others_are_at_is_asked_for_again_when_they_are_done(run):
    pool = Scripted({(0, "all"): ["held", "held", "done"]})
    dispatch(run(2), pool)
    assert [number for number, _ in pool.asked] == [0, 1, 0, 0]


def test_a_silent_one_is_named_to_whoever_takes_over(run):
    started = run(1)
    folder = started.journal.root / "leases"
    folder.mkdir(parents=True)
    (folder / "id-00000000.1.lease").write_text("000000000000-7-7\nelsewhere\nffff 000000000003\n")
    pool, seen = Scripted({(0, "all"): ["held", "done"]}), []
    submit = pool.submit
    pool.submit = lambda task: (seen.append(task.expired), submit(task))
    dispatch(started, pool)
    assert seen == [None, "000000000000-7-7\nelsewhere\nffff 000000000003\n"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RunDirectoryError])
def test_workers_are_ended_whatever_ends_the_run(run, error):
    ended = run()

    def check():
        raise error

    ended.check = check
    pool = Scripted({})
    with pytest.raises(error):
        dispatch(ended, pool)
    assert pool.stopped and pool.asked == []
