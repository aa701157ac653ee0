"""``rescan``'s options that say by whom and how long: what they do to the command's output and exit code."""

import time

import pytest
from run_on_paper import write_run

from trojai_moth.eval import results
from trojai_moth.eval.results import read_results, settled_results
from trojai_moth.runs.journal import Journal
from trojai_moth.runs.workers.stopping import Stopping

from .test_cli import NEVER, SCAN, call, refused, sets, shared_round  # noqa: F401


def test_shards_share_a_run_directory_and_each_answers_for_its_own_models(call, shared_round, tmp_path):  # noqa: F811
    options = ["--out", "run", "--verdict", "naive", *sets(*SCAN, NEVER)]
    first = call("rescan", shared_round, "--shard", "2/2", *options)
    assert first.exit_code == 0 and "Shard 2 of 2; the files hold the whole run." in first.stdout
    assert "id-00000001" in first.stdout and "Models: 1, of which 1 judged" in first.stdout
    assert read_results(tmp_path / "run" / "results.csv")["verdict"].to_list() == ["not judged", "clean"]
    status = call("status", "run")
    assert status.exit_code == 0 and "1 of 2 models done: 1 finished, 0 failed; 1 left" in status.stdout
    second = call("rescan", shared_round, "--shard", "1/2", *options)
    assert second.exit_code == 0
    assert read_results(tmp_path / "run" / "results.csv")["verdict"].to_list() == ["clean", "clean"]


def test_a_round_budget_ends_the_run_as_ctrl_c_does(call, refused, shared_round, tmp_path):  # noqa: F811
    line = refused("rescan", shared_round, "--out", "run", "--round-budget", "1e-9", *sets(*SCAN, NEVER))
    assert line == "Error: the round's time budget is used up; run is usable, and the same command goes on there"
    assert read_results(tmp_path / "run" / "results.csv")["reason"].to_list() == ["not reached yet"] * 2


def test_a_budget_ends_at_the_next_sign_of_progress():
    stopping = Stopping(budget=0.05)
    stopping.check()
    assert not stopping.late
    time.sleep(0.06)
    with pytest.raises(KeyboardInterrupt):
        stopping.check()
    assert stopping.late and not stopping.asked and not Stopping().late


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--shard", "3/2", "--shard 3/2: write I/N with I from 1 to N, e.g. 3/8"),
        ("--workers", "0", "'--workers'"),
        ("--executor", "mpi", "'--executor'"),
        ("--keep-weights", "some", "'--keep-weights'"),
        ("--worker-deaths", "0", "'--worker-deaths'"),
        ("--lease-expiry", "0", "'--lease-expiry'"),
        ("--model-budget", "0", "'--model-budget'"),
    ],
)
def test_impossible_values_are_refused(refused, shared_round, option, value, words):  # noqa: F811
    assert words in refused("rescan", shared_round, "--out", "run", option, value)


def test_a_table_that_was_overtaken_is_written_again(tmp_path, monkeypatch):
    """Another process adds a record while the table is made: else the older table could stay for good."""
    ids, labels = write_run(tmp_path / "run", models=4)
    journal, hidden = Journal(tmp_path / "run"), tmp_path / "hidden"
    journal.path(ids[0], "before").rename(hidden)
    real, calls = results.write_results, []

    def slow(*arguments):
        written = real(*arguments)
        calls.append(len(calls))
        if len(calls) == 1:
            hidden.rename(journal.path(ids[0], "before"))
        return written

    monkeypatch.setattr(results, "write_results", slow)
    rows, _ = settled_results(journal, labels)
    assert len(calls) == 2 and rows["flagged_before"].notna().to_list()[0]
    assert read_results(journal.root / "results.csv")["flagged_before"].notna().to_list()[0]
