"""Rescan one round in both protocols and write one JSON record of what came out.

    python benchmarks/rescan_round.py ROUND --out benchmarks/results/NAME.json [rescan options ...]

What follows the options of this script is handed to ``trojai-moth rescan``. Both runs are resumable: their directories
lie beside the JSON file's name in --work.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
import torchvision

import trojai_moth
from trojai_moth.eval.results import read_results
from trojai_moth.files import write_text

PROTOCOLS = ("clean-only", "flagged")


def main() -> None:
    """Run both protocols and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("round", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the run directories")
    known, options = parser.parse_known_args()
    runs = {protocol: run(known.round, known.work / protocol, protocol, options) for protocol in PROTOCOLS}
    record = {
        "round": known.round.resolve().name,
        "options": options,
        "versions": {
            "trojai-moth": trojai_moth.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "python": platform.python_version(),
        },
        "processor": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()},
        "runs": runs,
    }
    write_text(known.out, json.dumps(record, indent=1) + "\n")


def run(round_dir: Path, out: Path, protocol: str, options: list[str]) -> dict:
    """One rescan as a user runs it; its identity, summary and rows."""
    command = [sys.executable, "-m", "trojai_moth", "rescan", str(round_dir), "--out", str(out), "--harden", protocol]
    started = time.time()
    done = subprocess.run([*command, *options], check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"rescan --harden {protocol} failed with exit code {done.returncode}")
    rows = json.loads(read_results(out / "results.csv").to_json(orient="records"))
    return {
        "seconds_of_this_call": round(time.time() - started, 1),
        "settings": json.loads((out / "run.json").read_text())["settings"],
        "summary": json.loads((out / "summary.json").read_text()),
        "rows": rows,
    }


if __name__ == "__main__":
    main()
