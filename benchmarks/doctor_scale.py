"""Memory and seconds of `trojai-moth doctor` over 100 and over 1000 models: memory must not grow with the round.

    python benchmarks/doctor_scale.py --out benchmarks/results/doctor_scale.json

One small model (squeezenet1_1, 32 pixels, 3 classes) stands in every folder of a round, as hard links. Memory is the
sum of the resident sets of doctor and its workers, looked at several times a second; pages that they share count for
each.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from record import ROOT, Record, parser

sys.path.append(str(ROOT / "tests"))
from fake_round import write_metadata, write_model

FEW, GROWTH_LIMIT = 100, 1.1
PAUSE_SECONDS = 0.2
MIB = 2**20


def main() -> None:
    """Make the rounds and look at both."""
    options = parser(__doc__)
    options.add_argument("--models", type=int, default=1000)
    chosen = options.parse_args()
    record = Record("doctor_scale", chosen)
    with tempfile.TemporaryDirectory() as folder:
        first = write_model(Path(folder) / "first", per_class=2, seed=chosen.seed)
        found = {}
        for models in (FEW, chosen.models):
            made = Path(folder) / f"round-{models}"
            found[models] = record.part(f"{models} models", lambda made=made, n=models: looked_at(made, first, n))
    few, many = found[FEW], found[chosen.models]
    growth = many["peak_mib"] / few["peak_mib"]
    record.finish(
        models=chosen.models,
        memory_growth=round(growth, 3),
        flat=growth < GROWTH_LIMIT,
        seconds_per_model=round(many["seconds"] / chosen.models, 3),
        cores_busy=many["cores_busy"],
        workers=many["workers"],
    )
    print(record.data["summary"], record.data["parts"])


def looked_at(root: Path, first: Path, models: int) -> dict[str, Any]:
    """Write a round of so many models and measure doctor on it."""
    ids = [f"id-{number:08d}" for number in range(models)]
    for model_id in ids:
        linked(first, root / model_id)
    write_metadata(root, {model_id: number % 2 == 0 for number, model_id in enumerate(ids)})
    return measured(root, models)


def linked(source: Path, copy: Path) -> None:
    """The same folder once more, its files as hard links."""
    for path in source.rglob("*"):
        target = copy / path.relative_to(source)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)


def measured(root: Path, models: int) -> dict[str, Any]:
    """Wall-clock and processor seconds, processes and the largest memory of all of them together."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "trojai_moth", "doctor", str(root), "--no-estimate", "--data", "examples"],
        stdout=subprocess.PIPE,
    )
    watch = Watch(child.pid)
    watch.start()
    assert child.stdout is not None
    lines = child.stdout.read().decode().splitlines()
    _, status, used = os.wait4(child.pid, 0)
    watch.done.set()
    watch.join()
    if status or sum("  ok  " in line for line in lines) != models:
        raise SystemExit(f"doctor: exit code {os.waitstatus_to_exitcode(status)}; {lines[-8:]}")
    seconds, busy = time.perf_counter() - started, used.ru_utime + used.ru_stime
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(busy, 1),
        "cores_busy": round(busy / seconds, 2),
        "peak_mib": round(watch.peak / MIB),
        "largest_process_mib": round(used.ru_maxrss * 1024 / MIB),
        "workers": watch.most - 1,
    }


class Watch(threading.Thread):
    """The memory of a process and all that it started, while it lives."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.done, self.peak, self.most = pid, threading.Event(), 0, 0

    def run(self) -> None:
        """Look until told to stop."""
        while not self.done.wait(PAUSE_SECONDS):
            sizes = [size for pid in family(self.pid) if (size := resident(pid)) > MIB * 50]
            self.peak, self.most = max(self.peak, sum(sizes)), max(self.most, len(sizes))


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def resident(pid: int) -> int:
    """Bytes of a process in memory, 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    main()
