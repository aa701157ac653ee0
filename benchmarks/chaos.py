"""A run that is killed at random for minutes must end as one that nothing happened to.

    python benchmarks/chaos.py --out benchmarks/results/chaos.json --work FOLDER --models 200 --minutes 10

Makes tiny models, rescans them undisturbed by local workers, then again (``--executor ray``: by Ray's) while, every few
seconds, one of its processes is killed: a worker (kill -9), the command itself (kill -9 or SIGTERM, then started
again), or a record is cut in half. If the run ends early, many records are cut and it is started again. After so many
minutes it is left alone. Both tables must be equal but for the seconds, no lease and no half-written file may be left,
and nothing may have failed.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from record import ROOT, Record, parser

sys.path.append(str(ROOT / "tests"))
from fake_round import write_round

from trojai_moth.eval.results import read_results
from trojai_moth.runs.journal import Journal
from trojai_moth.runs.status import run_status

# Scans and hardenings of a second or so: what is tried here is not how good they are.
TINY = (
    "data.source=examples", "data.train_per_class=4", "data.held_per_class=3", "scanner.steps=12",
    "scanner.screen_steps=6", "scanner.pair_bound=1e9", "hardener.rounds=2", "hardener.first_steps=6",
    "hardener.later_steps=4", "hardener.warmup_steps=6", "hardener.batch=12",
)  # fmt: skip
ACTS = ("worker", "worker", "worker", "driver", "sigterm", "record")


def main() -> None:
    """Undisturbed, disturbed, compared."""
    options = parser(__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for the round and both runs")
    options.add_argument("--models", type=int, default=200)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--executor", default="local", choices=["local", "ray"], help="of the disturbed run")
    options.add_argument("--pause", type=float, default=5.0, help="mean seconds between two accidents")
    chosen = options.parse_args()
    record = Record("chaos", chosen)
    round_dir = chosen.work / "round"
    if not round_dir.exists():
        write_round(round_dir, models=chosen.models, per_class=3)
    calm, wild = chosen.work / "calm", chosen.work / "wild"
    record.part("undisturbed", lambda: undisturbed(round_dir, calm, chosen))
    record.part("disturbed", lambda: disturbed(round_dir, wild, chosen))
    found = compared(calm, wild)
    record.finish(**found)
    print(found)
    raise SystemExit(0 if found["same_table"] and found["nothing_left"] and not found["failed"] else 1)


def command(round_dir: Path, out: Path, workers: int, executor: str) -> list[str]:
    """A rescan whose models may lose many workers before it counts against them."""
    made = [sys.executable, "-m", "trojai_moth", "rescan", str(round_dir), "--out", str(out), "--verdict", "naive"]
    made += ["--device", "cpu", "--workers", str(workers), "--executor", executor, "--worker-deaths", "1000"]
    return [*made, *(part for text in TINY for part in ("--set", text))]


def start(round_dir: Path, out: Path, workers: int, executor: str = "local") -> subprocess.Popen[bytes]:
    """The command, in a folder where nothing shadows the installed package; one thread whatever the workers."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(
            command(round_dir.absolute(), out.absolute(), workers, executor), cwd=out.parent, stdout=log, stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def undisturbed(round_dir: Path, out: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """The run that nothing happens to."""
    began = time.perf_counter()
    code = start(round_dir, out, chosen.workers).wait()
    return {"exit_code": code, "seconds": round(time.perf_counter() - began, 1)}


def disturbed(round_dir: Path, out: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """The run that everything happens to, for so many minutes, and then its end."""
    shutil.rmtree(out, ignore_errors=True)
    stream, done = random.Random(chosen.seed), Counter[str]()
    began = time.perf_counter()
    process = start(round_dir, out, chosen.workers, chosen.executor)
    while time.perf_counter() - began < chosen.minutes * 60:
        time.sleep(stream.expovariate(1 / chosen.pause))
        act = stream.choice(ACTS)
        done[act] += disturb(act, process, Journal(out), stream)
        if process.poll() is not None:
            if process.returncode in (0, 1):  # done before the time is over: there must be something left to disturb
                done["record"] += sum(disturb("record", process, Journal(out), stream) for _ in range(chosen.models))
            done["starts"] += 1
            process = start(round_dir, out, chosen.workers, chosen.executor)
    while process.wait() not in (0, 1):  # what was asked to end may still be at it
        process = start(round_dir, out, chosen.workers, chosen.executor)
    return {**done, "exit_code": process.returncode, "seconds": round(time.perf_counter() - began, 1)}


def disturb(act: str, process: subprocess.Popen[bytes], journal: Journal, stream: random.Random) -> bool:
    """One accident; False if there was nothing that it could happen to."""
    if act in ("driver", "sigterm"):
        process.send_signal(signal.SIGKILL if act == "driver" else signal.SIGTERM)
        process.wait()
        return True
    if act == "worker":
        return kill_one(journal, process.pid, stream)
    records = sorted((journal.root / "journal").glob("*.json")) if journal.started else []
    if not records:
        return False
    # Of a model that is finished nobody holds a lease; the next start finds the damage and does the stage again.
    chosen = stream.choice(records)
    chosen.write_bytes(chosen.read_bytes()[: stream.randrange(1, 200)])
    return True


def kill_one(journal: Journal, driver: int, stream: random.Random) -> bool:
    """Kill a process that holds a lease, and is not the command itself."""
    if not journal.started:
        return False
    holders = [int(holder.process) for holder in run_status(journal).holders if not holder.dead]
    victims = [pid for pid in holders if pid != driver]
    if not victims:
        return False
    try:
        os.kill(stream.choice(victims), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def compared(calm: Path, wild: Path) -> dict[str, Any]:
    """Whether anything shows."""
    one, two = (read_results(out / "results.csv").drop(columns="seconds").to_csv(index=False) for out in (calm, wild))
    leases = wild / "leases"
    left = [*wild.rglob("*.part"), *(leases.iterdir() if leases.exists() else ())]
    status = run_status(Journal(wild))
    return {
        "same_table": one == two,
        "nothing_left": not left,
        "failed": status.failed,
        "models": status.models,
        "finished": status.finished,
        "damaged_records": status.damaged,
    }


if __name__ == "__main__":
    main()
