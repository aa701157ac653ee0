"""Seconds and peak memory of `trojai-moth report` and `export` for a run of many models that was never run.

    python benchmarks/report_scale.py --out benchmarks/results/report_scale.json

The journal is made up (tests/run_on_paper.py) with six candidates a scan; time and memory are those of the commands'
own processes, start of Python and torch included. The limits are 30 seconds and 1 GiB on an idle machine.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import ROOT, Record, parser

sys.path.append(str(ROOT / "tests"))
from run_on_paper import write_run

LIMIT_SECONDS, LIMIT_GIB = 30.0, 1.0
GIB = 2**30


def main() -> None:
    """Write the run and measure both commands on it."""
    options = parser(__doc__)
    options.add_argument("--models", type=int, default=1000)
    options.add_argument("--classes", type=int, default=20)
    chosen = options.parse_args()
    record = Record("report_scale", chosen)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        write_run(run, models=chosen.models, classes=chosen.classes, seed=chosen.seed)
        page = record.part("report", lambda: measured("report", run, run / "report.html"))
        record.part("export", lambda: measured("export", run, run / "export" / "candidates.parquet"))
    fits = page["seconds"] < LIMIT_SECONDS and page["gib"] < LIMIT_GIB
    record.finish(models=chosen.models, within_limits=fits, limits={"seconds": LIMIT_SECONDS, "gib": LIMIT_GIB})
    print(record.data["summary"], record.data["parts"])


def measured(command: str, run: Path, written: Path) -> dict[str, Any]:
    """Wall-clock and processor seconds and the largest resident set of a process of its own."""
    arguments = [sys.executable, "-m", "trojai_moth", command, str(run)]
    started = time.perf_counter()
    child = os.posix_spawn(sys.executable, arguments, os.environ)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{command}: exit code {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
        "gib": round(used.ru_maxrss * 1024 / GIB, 3),
        "megabytes_written": round(written.stat().st_size / 1e6, 2),
    }


if __name__ == "__main__":
    main()
