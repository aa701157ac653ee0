"""What a round takes on many GPUs: a simulation of the dispatcher with stage times that were measured.

    python benchmarks/fleet_simulation.py --out benchmarks/results/fleet_simulation.json

Times of the stages are drawn, model by model, from the committed records of the last set that tested the shipped rule
(one CPU thread, 32 pixels), so that their spread and the share of each stage are real; ``--scale`` multiplies all of
them, since a GPU at 224 pixels was not measured. A share of the workers is slow; workers
fail at random, which loses the stage in work, and the model is taken up again when its lease has expired; a failed
worker is back after a while. Two ways: a model's stages in one turn (local workers, Slurm), and scans first with the
rest as tasks of their own (Ray), which loads flagged models twice. Nothing is claimed of shared disks: their part is
the overhead per stage.
"""

import argparse
import heapq
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from set_records import Record, read_set

from trojai_moth.core.files import write_text

SET = "twelfth"
# What follows the first scan of a flagged model.
AFTER = ("harden", "after", "evidence")
# Efficiency below which more workers are called a waste.
WORTH = 0.8


@dataclass(frozen=True)
class Times:
    """Seconds of a model's stages, measured."""

    before: float
    rest: tuple[float, ...]


@dataclass
class Worker:
    """speed: 1, or less for a straggler; fails: when it fails next."""

    speed: float
    fails: float


@dataclass
class Fleet:
    """What is simulated, and what came of it."""

    options: argparse.Namespace
    workers: list[Worker]
    stream: random.Random
    waiting: list[tuple[int, list[float]]] = field(default_factory=list)
    redo: list[tuple[float, int, list[float]]] = field(default_factory=list)
    lost: float = 0.0
    failures: int = 0


def main() -> None:
    """Every number of workers, both ways, several times."""
    options = parse()
    measured = read_times(read_set(SET))
    record: dict[str, Any] = {
        "benchmark": "fleet_simulation",
        "settings": {"records": SET} | {name: value for name, value in vars(options).items() if name != "out"},
        "measured": describe(measured),
        "parts": {},
    }
    for way in ("one turn", "scans first"):
        rows = [row(options, measured, workers, way) for workers in options.workers]
        record["parts"][way] = rows
        for line in rows:
            print(way, line)
    record["summary"] = {way: most_worth_while(rows) for way, rows in record["parts"].items()}
    write_text(options.out, json.dumps(record, indent=2) + "\n")
    print(record["summary"])


def parse() -> argparse.Namespace:
    """Round 4 has 1008 models."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--models", type=int, default=1008)
    made.add_argument("--flagged", type=float, default=0.4, help="share of models that the first scan flags")
    made.add_argument("--workers", type=int, nargs="+", default=[1, 8, 16, 32, 64, 128, 256, 512, 1008])
    made.add_argument("--scale", type=float, default=1.0, help="all measured times are multiplied by this")
    made.add_argument("--load", type=float, default=2.0, help="seconds for reading a model and its images")
    made.add_argument("--overhead", type=float, default=0.1, help="seconds per stage for journal and leases")
    made.add_argument("--slow-share", type=float, default=0.05, help="share of workers that are stragglers")
    made.add_argument("--slow-factor", type=float, default=3.0, help="how many times slower they are")
    made.add_argument("--failures-per-day", type=float, default=0.5, help="of each worker, at random moments")
    made.add_argument("--down", type=float, default=600.0, help="seconds until a failed worker is back")
    made.add_argument("--expiry", type=float, default=90.0, help="seconds until its model is taken over")
    made.add_argument("--repeats", type=int, default=10)
    made.add_argument("--seed", type=int, default=0)
    return made.parse_args()


def read_times(records: Sequence[Record]) -> list[Times]:
    """Of every model; those that were not flagged give their scan only."""
    return [
        Times(one["before"]["seconds"], tuple(one.get(stage, {}).get("seconds", 0.0) for stage in AFTER))
        for one in records
    ]


def describe(measured: list[Times]) -> dict[str, Any]:
    """Medians of what was read."""
    complete = [times.rest for times in measured if all(times.rest)]
    return {
        "records": len(measured),
        "complete": len(complete),
        "median_before": round(statistics.median(times.before for times in measured), 2),
        **{
            f"median_{name}": round(statistics.median(rest[at] for rest in complete), 2)
            for at, name in enumerate(AFTER)
        },
    }


def row(options: argparse.Namespace, measured: list[Times], workers: int, way: str) -> dict[str, Any]:
    """Medians over repeats for one number of workers."""
    runs = [simulate(options, measured, workers, way, options.seed + repeat) for repeat in range(options.repeats)]
    hours = sorted(hours for hours, *_ in runs)
    return {
        "workers": workers,
        "hours": round(statistics.median(hours), 4),
        "hours_low": round(hours[0], 4),
        "hours_high": round(hours[-1], 4),
        "efficiency": round(statistics.median(efficiency for _, efficiency, *_ in runs), 3),
        "failures": round(statistics.mean(failures for *_, failures, _ in runs), 1),
        "work_lost": round(statistics.mean(lost for *_, lost in runs), 4),
    }


def most_worth_while(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest number of workers that still does most of what so many could."""
    good = [line for line in rows if line["efficiency"] >= WORTH]
    return {"workers_at_80_percent": max((line["workers"] for line in good), default=None), "rows": len(rows)}


def simulate(
    options: argparse.Namespace, measured: list[Times], workers: int, way: str, seed: int
) -> tuple[float, float, int, float]:
    """Hours, efficiency (useful work over workers times hours), failures, and the share of work that was lost."""
    stream = random.Random(seed)
    slow = {number for number in range(workers) if stream.random() < options.slow_share}
    fleet = Fleet(
        options,
        [Worker(1 / options.slow_factor if number in slow else 1.0, next_failure(options, stream, 0.0))
         for number in range(workers)],
        stream,
    )  # fmt: skip
    models = draw(options, measured, stream)
    useful = sum(sum(stages) for stages in models)
    turns = [(number, stages if way == "one turn" else stages[:1]) for number, stages in enumerate(models)]
    fleet.waiting = list(reversed(turns))
    later = {number: stages[1:] for number, stages in enumerate(models)} if way != "one turn" else {}
    end = play(fleet, later)
    return end / 3600, useful / (end * workers), fleet.failures, fleet.lost / useful


def draw(options: argparse.Namespace, measured: list[Times], stream: random.Random) -> list[list[float]]:
    """Stages of each model in seconds; reading it counts as part of its first stage."""
    complete = [times for times in measured if all(times.rest)]
    models = []
    for _ in range(options.models):
        flagged = stream.random() < options.flagged
        times = stream.choice(complete if flagged else measured)
        stages = [times.before, *(times.rest if flagged else ())]
        models.append([seconds * options.scale + options.overhead for seconds in stages])
        models[-1][0] += options.load
    return models


def next_failure(options: argparse.Namespace, stream: random.Random, now: float) -> float:
    """When a worker fails next; never if the rate is nothing."""
    rate = options.failures_per_day / 86400
    return now + stream.expovariate(rate) if rate else float("inf")


def play(fleet: Fleet, later: dict[int, list[float]]) -> float:
    """The seconds until everything is done: a heap of moments at which workers are free."""
    free = [(0.0, number) for number in range(len(fleet.workers))]
    heapq.heapify(free)
    end = 0.0
    running: list[tuple[float, int, int, list[float], bool]] = []
    while fleet.waiting or fleet.redo or running:
        if free and (not running or free[0][0] <= running[0][0]) and (task := next_task(fleet, free[0][0])):
            now, worker = heapq.heappop(free)
            heapq.heappush(running, begin(fleet, worker, now, *task))
            continue
        if not running:  # everybody waits for a lease to expire
            moment = min(when for when, *_ in fleet.redo)
            free = [(max(when, moment), worker) for when, worker in free]
            heapq.heapify(free)
            continue
        moment, worker, number, stages, failed = heapq.heappop(running)
        settle(fleet, later, moment, number, stages, failed)
        back = moment + fleet.options.down if failed else moment
        heapq.heappush(free, (back, worker))
        free = [(max(when, moment), other) for when, other in free]
        heapq.heapify(free)
        end = max(end, moment)
    return end


def next_task(fleet: Fleet, now: float) -> tuple[int, list[float]] | None:
    """What was lost and may be taken over goes first."""
    for place, (when, number, stages) in enumerate(fleet.redo):
        if when <= now:
            del fleet.redo[place]
            return number, stages
    return fleet.waiting.pop() if fleet.waiting else None


def begin(
    fleet: Fleet, worker: int, now: float, number: int, stages: list[float]
) -> tuple[float, int, int, list[float], bool]:
    """When the turn ends, by whom, of which model, with what left, and whether by a failure."""
    own = fleet.workers[worker]
    if own.fails < now:
        own.fails = next_failure(fleet.options, fleet.stream, now)
    for done, seconds in enumerate(stages):
        now += seconds / own.speed
        if now > own.fails:
            fleet.failures += 1
            fleet.lost += (own.fails - now + seconds / own.speed) * own.speed
            moment = own.fails
            own.fails = next_failure(fleet.options, fleet.stream, moment + fleet.options.down)
            return moment, worker, number, stages[done:], True
    return now, worker, number, [], False


def settle(
    fleet: Fleet, later: dict[int, list[float]], moment: float, number: int, stages: list[float], failed: bool
) -> None:
    """What follows a turn: the rest of it after a failure, what comes after the scan, or nothing."""
    if failed:
        again = [stages[0] + fleet.options.load, *stages[1:]]
        fleet.redo.append((moment + fleet.options.expiry, number, again))
    elif rest := later.pop(number, []):
        # Behind all scans, in the order in which they came; the model is read anew.
        fleet.waiting.insert(0, (number, [rest[0] + fleet.options.load, *rest[1:]]))


if __name__ == "__main__":
    main()
