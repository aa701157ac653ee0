"""Whether the package works with the oldest and the newest torch, torchvision, numpy and pandas that it allows.

One environment each is made below --work (several GB: torch's default build has a GPU's libraries with it), the package
is installed into it under these very versions, and a quick part of the tests is run there. What could not be had, e.g.
without a network or in --limit seconds, is written down as such and counts as a failure. ``--python PATH`` tries an
environment that is there already instead, under the name ``present``.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trojai_moth.core.files import write_text

ROOT = Path(__file__).resolve().parents[1]
WATCHED = ("torch", "torchvision", "numpy", "pandas", "pillow", "pydantic", "click", "scikit-learn", "scipy")
# The lower bounds of setup.cfg, read from there, so that the two cannot part.
BOUND = re.compile(r"^ {4}(torch|torchvision|numpy|pandas)>=([\d.]+)$", re.MULTILINE)
# What touches these four most: loading, layouts, images, tables, records, inversion, hardening.
QUICK = (
    *(
        "core/test_records.py",
        "rounds/test_reading.py",
        "rounds/test_layouts.py",
        "rounds/test_subset.py",
        "rounds/test_preprocessing.py",
    ),
    *(
        "rounds/test_open_folder.py",
        "triggers/test_inversion.py",
        "hardeners/test_moth.py",
        "hardeners/test_weights.py",
        "eval/test_metrics.py",
    ),
)
PROBE = (
    "import importlib.metadata as m, json, platform, sys; "
    "print(json.dumps({n: m.version(n) for n in sys.argv[1:]} | {'python': platform.python_version()}))"
)


def oldest() -> list[str]:
    """The lower bounds as exact versions; to pip 2.10 is 2.10.0."""
    found = BOUND.findall((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    if len(found) != 4:
        raise SystemExit("setup.cfg: lower bounds of torch, torchvision, numpy and pandas not found")
    return [f"{name}=={version}" for name, version in found]


def newest() -> list[str]:
    """Whatever pip takes for the newest that fits."""
    return [requirement.partition("==")[0] for requirement in oldest()]


def make(folder: Path, requirements: Sequence[str], limit: float) -> str:
    """A new environment with these and the package's other needs; what went wrong in one line, empty if nothing."""
    python = folder / "bin" / "python"
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *requirements],
        [str(python), "-m", "pip", "install", "--quiet", "setuptools>=70.1", f"{ROOT}[dev]", *requirements],
    ]
    for step in steps:
        begun = time.monotonic()
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=max(1.0, limit))
        except subprocess.TimeoutExpired:
            return f"not installed within the limit: {' '.join(step[1:6])}"
        limit -= time.monotonic() - begun
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: unknown"]
            return f"not installed: {lines[-1]:.200}"
    return ""


def tests(python: Path, limit: float) -> dict[str, Any]:
    """What the quick tests say under this interpreter, and with which versions."""
    versions = subprocess.run([str(python), "-c", PROBE, *WATCHED], capture_output=True, text=True)
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *(f"tests/{name}" for name in QUICK)]
    begun = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=ROOT, env=_environment())
    except subprocess.TimeoutExpired:
        return {"problem": "the tests took longer than the limit", "passed": False}
    counts = re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)
    found = {word: int(number) for number, word in counts}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return {
        "versions": json.loads(versions.stdout) if versions.returncode == 0 else None,
        "counts": found,
        "failed": failed[:20],
        "passed": done.returncode == 0 and found.get("passed", 0) > 0,
        "seconds": round(time.monotonic() - begun),
    }


def _environment() -> dict[str, str]:
    """The caller's, less what would let another installation in."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """All rows that were asked for."""
    rows: dict[str, Any] = {}
    if chosen.python:
        rows["present"] = {"requirements": "an environment that was there", **tests(chosen.python, chosen.limit)}
        return rows
    for name, requirements in (("oldest", oldest()), ("newest", newest())):
        if chosen.only in (None, name):
            folder = chosen.work / name
            problem = make(folder, requirements, chosen.limit)
            row = {"problem": problem, "passed": False} if problem else tests(folder / "bin" / "python", chosen.limit)
            rows[name] = {"requirements": requirements, **row}
    return rows


def main() -> None:
    """Run the matrix and write it; rows of an earlier record that were not asked for stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "compatibility.json")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "compatibility", help="where environments go")
    parser.add_argument("--only", choices=["oldest", "newest"])
    parser.add_argument("--python", type=Path, help="test this interpreter's environment instead of making any")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for installing, and again for testing, each")
    chosen = parser.parse_args()
    before = json.loads(chosen.out.read_text(encoding="utf-8"))["rows"] if chosen.out.exists() else {}
    rows = before | run(chosen)
    write_text(chosen.out, json.dumps({"benchmark": "compatibility", "tests": QUICK, "rows": rows}, indent=1) + "\n")
    for name, row in rows.items():
        print(f"{name}: {'passed' if row['passed'] else row.get('problem') or 'failed'} {row.get('counts', '')}")
    raise SystemExit(0 if all(row["passed"] for row in rows.values()) else 1)


if __name__ == "__main__":
    main()
