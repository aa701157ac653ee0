"""Which model is next: hands tasks to workers, takes up what dead ones left, and waits for what others are at."""

from __future__ import annotations

import time
from collections import Counter, deque

from ..core.process_identity import is_process_dead
from .leases import LeaseWatch
from .run import Run
from .run_task import fail_model
from .tasks import Part, Task
from .workers.pool import Pool, Report

# Seconds between two looks at workers.
_LOOK_S = 0.5
# Looks at what others are at in the time after which a silent one is given up; each reads a small file per such model.
_LOOKS_PER_TERM = 20


def dispatch(run: Run, pool: Pool) -> None:
    """Have every model of the run's shard finished by the workers of the pool, or by others that work on this run."""
    try:
        _Dispatcher(run, pool).execute()
    finally:
        pool.stop()


class _Dispatcher:
    def __init__(self, run: Run, pool: Pool) -> None:
        self.run, self.pool = run, pool
        first: Part = "scan" if pool.splits else "all"
        self.waiting = deque(Task(number, first) for number in run.fleet.shard.numbers(len(run.cases)))
        self.held: dict[int, Part] = {}
        self.deaths: Counter[int] = Counter()
        self.running = 0
        expiry = run.journal.leases.terms.expiry
        self.watch, self.look_at_others, self.next_look = LeaseWatch(expiry), expiry / _LOOKS_PER_TERM, 0.0
        self.said_waiting = False

    def execute(self) -> None:
        """Until nothing is left to do."""
        while self.waiting or self.running or self.held:
            self.run.check()
            while self.waiting and self.pool.has_room():
                self.pool.submit(self.waiting.popleft())
                self.running += 1
            for report in self.pool.wait(min(_LOOK_S, self.look_at_others) if self.running or self.held else 0):
                self.running -= 1
                self._take(report)
            if not self.waiting and self.held and time.monotonic() >= self.next_look:
                self._look_at_others()
                self.next_look = time.monotonic() + self.look_at_others

    def _take(self, report: Report) -> None:
        task = report.task
        if report.ending == "held":
            self.held[task.number] = task.part
        elif report.ending == "more":
            self.waiting.append(Task(task.number))
        elif report.ending == "died":
            self._after_death(report)

    def _after_death(self, report: Report) -> None:
        """The model is taken up again, unless it seems to be what its workers die of."""
        task, most = report.task, self.run.fleet.deaths
        self.deaths[task.number] += 1
        if self.deaths[task.number] < most:
            self.waiting.appendleft(Task(task.number, task.part))
        else:
            reason = f"{most} processes died at this model"
            fail_model(self.run, task.number, report.stage or "worker", reason, "worker died", report.seconds)

    def _look_at_others(self) -> None:
        """Take up what nobody is at any more."""
        leases = self.run.journal.leases.all({self.run.cases[number].model_id for number in self.held})
        for number, part in list(self.held.items()):
            model_id = self.run.cases[number].model_id
            standing = leases.get(model_id)
            if standing is None or is_process_dead(standing.owner):
                self.waiting.append(Task(number, part))
            elif self.watch.expired(model_id, standing):
                self.waiting.append(Task(number, part, standing.content))
            else:
                continue
            del self.held[number]
        if self.held and not self.running and not self.said_waiting:
            self.said_waiting = True
            self.run.progress(f"waiting for {len(self.held)} models that other processes are at")
