"""What a run of many tiny models costs beside its work: overhead per model, the driver's memory, growth with the round.

    python benchmarks/fleet.py --out benchmarks/results/fleet.json --work FOLDER --models 1000 --models-alone 60

Real models (squeezenet1_1 at 32 pixels), real scanner and hardener with few steps; by one and two workers, local and
Ray (left out where Ray is not installed). All but the most local workers may be given fewer models, since what is
counted is per model.
Work is what the journal's records say their stages took, model loading included; everything else from the start of the
run to the end of its last model is overhead, the start of workers included. Times mean something only on a machine that
does nothing else.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chaos import TINY
from record import ROOT, Record, parser

sys.path.append(str(ROOT / "tests"))
from fake_round import write_round

from trojai_moth.eval.results import read_results
from trojai_moth.runs.journal import Journal
from trojai_moth.runs.status import run_status

LIMIT_OVERHEAD = 0.05
SAMPLE_S = 0.5
MIB = 2**10  # of the kilobytes in /proc


def main() -> None:
    """Every way, the most local workers at full size."""
    options = parser(__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for rounds and runs")
    options.add_argument("--models", type=int, default=1000)
    options.add_argument("--models-alone", type=int, help="models of all but the most local workers; default: as many")
    options.add_argument("--steps", type=int, default=12, help="of the scanner: more make a model's work longer")
    options.add_argument("--rounds", type=int, default=1, help="of hardening, likewise")
    options.add_argument("--executors", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    chosen = options.parse_args()
    record = Record("fleet", chosen)
    executors = [name for name in chosen.executors if name == "local" or importlib.util.find_spec("ray")]
    parts = {}
    for executor in executors:
        for workers in chosen.workers:
            full = (executor, workers) == ("local", max(chosen.workers))
            models = chosen.models if full else chosen.models_alone or chosen.models
            name = f"{executor}, {workers} workers, {models} models"
            parts[name] = record.part(name, lambda e=executor, w=workers, m=models: measured(chosen, e, w, m))
    record.finish(**summary(chosen, parts))
    print(record.data["summary"])


def round_of(work: Path, models: int) -> Path:
    """Tiny models, made once."""
    folder = work / f"round-{models}"
    if not folder.exists():
        write_round(folder, models=models, per_class=3)
    return folder


def measured(chosen: argparse.Namespace, executor: str, workers: int, models: int) -> dict[str, Any]:
    """One run from nothing, watched from outside."""
    round_dir, out = round_of(chosen.work, models), chosen.work / f"run-{executor}-{workers}-{models}"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "trojai_moth", "rescan", str(round_dir.absolute()), "--out", str(out.absolute())]
    command += ["--verdict", "naive", "--device", "cpu", "--executor", executor]
    if (executor, workers) != ("local", 1):  # one local worker is the command itself, as it is without the option
        command += ["--workers", str(workers)]
    longer = {"scanner.steps": chosen.steps, "hardener.rounds": chosen.rounds}
    kept = [text for text in TINY if text.partition("=")[0] not in longer]
    command += [
        part for text in (*kept, *(f"{name}={value}" for name, value in longer.items())) for part in ("--set", text)
    ]
    with (chosen.work / f"{out.name}.log").open("wb") as log:
        began = time.perf_counter()
        driver = subprocess.Popen(
            command, cwd=chosen.work, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        memory = watch(driver)
        seconds = time.perf_counter() - began
    if driver.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: exit code {driver.returncode}; see {out.name}.log")
    return {**costs(out, workers), "seconds": round(seconds, 1), **memory}


def watch(driver: subprocess.Popen[bytes]) -> dict[str, float]:
    """The driver's memory in MiB while it ran, after its first quarter and in its last."""
    sizes = []
    while driver.poll() is None:
        sizes.append(resident(driver.pid))
        time.sleep(SAMPLE_S)
    quarter = max(1, len(sizes) // 4)
    early, late = sizes[quarter : 2 * quarter] or sizes, sizes[-quarter:-1] or sizes
    return {"driver_mib_early": round(max(early), 1), "driver_mib_late": round(max(late), 1)}


def resident(pid: int) -> float:
    """MiB of a process; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / MIB for line in lines if line.startswith("VmRSS")), 0.0)


def costs(out: Path, workers: int) -> dict[str, Any]:
    """Work and overhead between the moment when the run directory was made and the end of the last model."""
    rows, journal = read_results(out / "results.csv"), Journal(out)
    work, models = float(rows["seconds"].sum()), len(rows)
    ends = sorted(path.stat().st_mtime for path in (out / "finished").iterdir())
    first = min((out / "run.json").stat().st_mtime, *ends)
    span = max(ends) - first
    status = run_status(journal)
    return {
        "models": models,
        "failed": status.failed,
        "work_seconds_per_model": round(work / models, 3),
        "span_seconds": round(span, 1),
        "overhead_seconds_per_model": round((span * workers - work) / models, 3),
        "overhead_share": round((span * workers - work) / work, 4),
        "models_per_hour": round(models / span * 3600, 1),
        "seconds_per_model_by_quarter": [
            round((part[-1] - part[0]) / max(1, len(part) - 1), 3) for part in quarters(ends)
        ],
    }


def quarters(ends: list[float]) -> list[list[float]]:
    """The models' ends in four parts, in order; what grows with the number of models shows in the later ones."""
    size = max(1, len(ends) // 4)
    return [ends[at : at + size] for at in range(0, min(4 * size, len(ends)), size)]


def summary(chosen: argparse.Namespace, parts: dict[str, Any]) -> dict[str, Any]:
    """Overhead, the driver's memory and growth."""
    local = f"local, {max(chosen.workers)} workers, {chosen.models} models"
    full = parts[local if local in parts else max(parts, key=lambda name: parts[name]["models"])]
    return {
        "largest_overhead_share": max(part["overhead_share"] for part in parts.values()),
        "overhead_limit": LIMIT_OVERHEAD,
        "driver_growth_mib": {
            name: round(p["driver_mib_late"] - p["driver_mib_early"], 1) for name, p in parts.items()
        },
        "seconds_per_model_by_quarter": full["seconds_per_model_by_quarter"],
    }


if __name__ == "__main__":
    main()
