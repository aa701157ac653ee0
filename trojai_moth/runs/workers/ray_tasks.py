"""Models as tasks of a Ray cluster, each with a GPU or a core of its own; scans and what follows are separate tasks.

Ray finds the places, also on machines that join later, and says when a worker or its machine was lost; the lost model
is then taken up again as everywhere else. All machines must see the round and the run directory under the same paths.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from ...core.device import prepare_process, resolve_device
from ...core.errors import MissingDependencyError, WorkerError, one_line
from ...core.messages import silent
from ..run import Run, go_on
from ..tasks import Task
from ..watchdog import OVERTIME_S
from .pool import Report
from .stopping import SIGNALS, stopped_by_signal
from .worker import Done, Inherited, do_task, log_here

# Tasks that are handed to Ray beyond what it has places for: enough to keep them busy, few enough to keep memory flat.
_AHEAD = 2
# How many are handed to it while it is not known how many places there are.
_LEAST = 2


class RayTasks:
    """A pool whose workers are wherever Ray puts them."""

    splits = True

    def __init__(self, run: Run, workers: int | None) -> None:
        """Join the cluster, or start one on this machine with so many places (None: a place per GPU, or per core)."""
        self._run, self._ray, self._limit = run, _import(), workers
        self._started = not self._ray.is_initialized()
        if self._started:
            _connect(self._ray, run, workers)
            if self._limit is not None and _own_places(run):  # as many places as asked for, so more tasks may wait
                self._limit += _AHEAD
        self._sent = self._ray.put(replace(run, progress=silent, check=go_on))
        self._inherited = Inherited.from_here(OVERTIME_S)
        place = {"num_gpus": 1} if run.device.type != "cpu" else {"num_cpus": 1}
        # Lost tasks are not tried again by Ray but by the dispatcher, which counts and says so.
        self._remote = self._ray.remote(max_retries=0, **place)(_turn)
        self._place = "GPU" if run.device.type != "cpu" else "CPU"
        self._running: dict[Any, tuple[Task, float]] = {}

    def has_room(self) -> bool:
        """Whether the cluster, as it is now, has room for another task, or nearly."""
        if self._limit is not None:
            return len(self._running) < self._limit
        places = int(self._ray.cluster_resources().get(self._place, 0))
        return len(self._running) < max(places + _AHEAD, _LEAST)

    def submit(self, task: Task) -> None:
        """Hand a task to Ray."""
        answer = self._remote.remote([self._sent], task, self._inherited)
        self._running[answer] = (task, time.monotonic())

    def wait(self, seconds: float) -> list[Report]:
        """Tasks that came back or were lost."""
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=max(seconds, 0.01))
        return [self._report(answer) for answer in ready]

    def stop(self) -> None:
        """End the tasks that are under way, and the cluster if it was started here."""
        for answer in self._running:
            self._ray.cancel(answer, force=True)
        self._running.clear()
        if self._started:
            self._ray.shutdown()

    def _report(self, answer: Any) -> Report:
        task, since = self._running.pop(answer)
        try:
            done, records = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            raise WorkerError(f"a Ray worker cannot work: {one_line(error)}") from None
        except self._ray.exceptions.RayError as error:
            lost = f"its worker was lost ({type(error).__name__}); another takes the model up"
            self._run.note(task.number, lost)
            return Report(task, "died", "worker", time.monotonic() - since)
        for record in records:
            log_here(record)
        if done.broken is not None:
            raise done.broken
        self._run.step(task.number, "its task is over")
        return Report(task, done.outcome)


@functools.lru_cache(maxsize=1)
def _fetched(reference: Any) -> Run:
    """The run, once for each worker: unpacked for every task, a large round would cost more for each of its models."""
    found: Run = _import().get(reference)
    return found


def _turn(sent: list[Any], task: Task, inherited: Inherited) -> tuple[Done, list[logging.LogRecord]]:
    """A task, in a worker of Ray, which shows it its own GPU only; a reference in a list comes as it is."""
    run = _fetched(*sent)
    device = resolve_device("auto") if run.device.type != "cpu" else run.device
    prepare_process(device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    records: list[logging.LogRecord] = []
    with stopped_by_signal() as stopping, inherited.in_force(records.append):
        own = replace(run, device=device, check=stopping.check)
        return do_task(own, task, inherited.overtime, lambda stage: None), records


def _own_places(run: Run) -> bool:
    """Whether a cluster that is started here has no places but those asked for: of GPUs it has all of the machine's."""
    return not run.fleet.address and run.device.type == "cpu"


def _import() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("--executor ray: needs pip install 'trojai-moth[ray]'") from None
    module: ModuleType = ray
    return module


def _connect(ray: ModuleType, run: Run, workers: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "logging_level": "ERROR"}
    if run.fleet.address:
        options = {"address": run.fleet.address, "log_to_driver": False, "logging_level": "ERROR"}
    elif workers is not None and _own_places(run):
        options["num_cpus"] = workers
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of a run is told to anybody
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        ray.init(**options)
        for number, handler in handlers.items():  # Ray has its own way with signals, which would lose results
            signal.signal(number, handler)
    except Exception as error:  # Ray raises whatever its parts raise
        where = run.fleet.address or "this machine"
        raise WorkerError(f"--executor ray: no cluster at {where} ({one_line(error):.200})") from None
