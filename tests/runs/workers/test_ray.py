"""Models as Ray tasks: the same table, also when a node of the cluster is killed while it is at work."""

import dataclasses
import os
import sys

import fleet_parts
import pytest
from fleet_parts import IDS, make_run, marks
from undisturbed import table, undisturbed_table

from trojai_moth.core.errors import MissingDependencyError, WorkerError
from trojai_moth.runs.execute import execute
from trojai_moth.runs.execution_settings import ExecutionSettings
from trojai_moth.runs.journal import Failure
from trojai_moth.runs.run_task import HUNG
from trojai_moth.runs.status import run_status
from trojai_moth.runs.workers import ray_tasks

MODELS = 4


@pytest.fixture(scope="module")
def the_round(tmp_path_factory):
    return fleet_parts.make_round(tmp_path_factory.mktemp("ray") / "round", MODELS)


@pytest.fixture(scope="module")
def expected(the_round, tmp_path_factory):
    return undisturbed_table(the_round, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two nodes of one core each; Ray's processes find the plugins through the environment."""
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    fleet_parts.install_for_all(tmp_path / "plugins", monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    size = {"num_cpus": 1, "object_store_memory": 80 << 20}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    second = made.add_node(**size)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made, second
    ray.shutdown()
    made.shutdown()


def test_a_killed_node_changes_nothing(cluster, the_round, expected, tmp_path, notes):
    made, second = cluster
    folder, killed = tmp_path / "marks", []

    def kill_one():
        by = {name.split(".")[2] for name in marks(folder, "scan")} - {str(os.getpid())}
        if len(by) == 2 and not killed:
            killed.append(True)
            made.remove_node(second, allow_graceful=False)

    run = make_run(*the_round, tmp_path / "run", folder, pause=2.0, fleet=ExecutionSettings(executor="ray"))
    execute(dataclasses.replace(run, check=kill_one))
    assert killed and table(run) == expected
    assert any(": its worker was lost" in note for note in notes.messages)
    assert os.listdir(run.journal.root / "leases") == [] and run_status(run.journal).left == 0


def test_a_worker_that_hangs_or_is_ended_loses_nothing_in_a_cluster_that_was_started_here(
    the_round, expected, tmp_path, monkeypatch
):
    pytest.importorskip("ray")
    fleet_parts.install_for_all(tmp_path / "plugins", monkeypatch)
    monkeypatch.setattr(ray_tasks, "OVERTIME_S", 0.5)
    accidents = {IDS[0]: "kill 1", IDS[2]: "end 1", IDS[3]: "hang 9"}
    run = make_run(
        *the_round, tmp_path / "run", tmp_path / "marks", time_budget=6.0, accidents=accidents,
        fleet=ExecutionSettings(executor="ray", workers=2),
    )  # fmt: skip
    execute(run)
    expected, found = expected.splitlines(), table(run).splitlines()
    assert found[:-1] == expected[:-1] and "not judged" in found[-1]
    failure = run.journal.read(IDS[3], "failure", Failure)
    assert (failure.kind, failure.stage, failure.reason, failure.seconds) == ("out of time", "before", HUNG, 6.5)
    assert len(marks(tmp_path / "marks", f"accident.{IDS[3]}")) == 1, "nobody hangs at it again"
    assert os.listdir(run.journal.root / "leases") == [] and run_status(run.journal).left == 0


def test_without_ray_or_a_cluster_it_says_so(the_round, tmp_path, monkeypatch):
    fleet_parts.install_for_all(tmp_path / "plugins", monkeypatch)
    run = make_run(*the_round, tmp_path / "run", tmp_path / "marks", fleet=ExecutionSettings(executor="ray"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"--executor ray: needs pip install 'trojai-moth\[ray\]'"):
        execute(run)

    class Nowhere:
        """A Ray whose cluster is not there."""

        @staticmethod
        def is_initialized():
            return False

        @staticmethod
        def init(**options):
            raise ConnectionError("nobody\nthere")

    monkeypatch.setitem(sys.modules, "ray", Nowhere)
    away = dataclasses.replace(run, fleet=ExecutionSettings(executor="ray", address="10.0.0.1:6379"))
    with pytest.raises(WorkerError, match=r"no cluster at 10\.0\.0\.1:6379 \(ConnectionError: nobody there\)"):
        execute(away)
