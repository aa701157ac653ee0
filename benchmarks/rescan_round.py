"""Rescan one round in both protocols and write one JSON record of what came out.

    python benchmarks/rescan_round.py ROUND --out benchmarks/results/NAME.json [rescan options ...]

Other options are handed to ``trojai-moth rescan``. Both runs lie in --work and are resumable. Stages depend on the
seed, the model and the settings alone, so the paper's protocol takes over what the run without labels did to a model.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import torchvision

import trojai_moth
from trojai_moth.core.files import write_text
from trojai_moth.eval.labels import read_labels
from trojai_moth.eval.results import read_results

PROTOCOLS = ("flagged", "clean-only")  # the second does less, on the records of the first


def main() -> None:
    """Run both protocols and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("round", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the run directories")
    known, options = parser.parse_known_args()
    folders = {protocol: known.work / protocol for protocol in PROTOCOLS}
    runs = {"flagged": run(known.round, folders["flagged"], "flagged", options)}
    if not folders["clean-only"].exists():
        take_over(known.round, folders["flagged"], folders["clean-only"])
    runs["clean-only"] = run(known.round, folders["clean-only"], "clean-only", options)
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


def take_over(round_dir: Path, done: Path, out: Path) -> None:
    """Start a clean-only run from a finished one's records, without what followed the scan of poisoned models."""
    shutil.copytree(done, out)
    identity = json.loads((out / "run.json").read_text())
    identity["settings"]["harden"] = "clean-only"
    write_text(out / "run.json", json.dumps(identity, indent=2) + "\n")
    for model_id, poisoned in read_labels(round_dir).items():
        for stage in ("harden", "after") if poisoned else ():
            (out / "journal" / f"{model_id}.{stage}.json").unlink(missing_ok=True)


def run(round_dir: Path, out: Path, protocol: str, options: list[str]) -> dict:
    """One rescan as a user runs it; its identity, summary and rows."""
    command = [sys.executable, "-m", "trojai_moth", "rescan", str(round_dir), "--out", str(out), "--harden", protocol]
    command += ["--verdict", "naive"]
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
