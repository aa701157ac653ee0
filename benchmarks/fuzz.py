"""Coverage-guided fuzzing of what reads untrusted files, or files that somebody may have changed.

Those are model files, config.json, METADATA.csv with ground_truth.csv, runs, rules, calibrations, plans, model cards
and kept triggers.

    pip install -e '.[fuzz]'
    python benchmarks/fuzz.py --out FILE [--minutes 30] [--target model]

Every target runs for so many minutes in a process of its own, one after the other: four and a half hours in all. An
input that leads to anything but a refusal that some check intended, or to a sound result, is kept in
tests/data/fuzz/TARGET/ and replayed by tests/benchmarks/test_fuzz_cases.py ever after. What was found interesting on
the way is kept in build/fuzz, where the next call starts from.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuzz_targets import SEEDS, TARGETS

from trojai_moth import __version__
from trojai_moth.core.files import write_text

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "data" / "fuzz"
LARGEST_INPUT = 32_768
MOST_FINDINGS = 20
_STATUS = re.compile(r"#\d+\s+\S+\s+cov: (\d+) ft: (\d+)")
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


def main() -> None:
    """Drive all targets, or be one of them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, help="JSON record")
    options.add_argument("--minutes", type=float, default=30.0, help="for each target")
    options.add_argument("--target", choices=sorted(TARGETS), action="append", help="one of them; repeatable")
    options.add_argument("--be", choices=sorted(TARGETS), help=argparse.SUPPRESS)
    chosen, rest = options.parse_known_args()
    if chosen.be:
        fuzz(chosen.be, rest)
    if rest or not chosen.out:
        options.error(f"unknown {rest}" if rest else "--out is needed")
    record: dict[str, Any] = {
        "benchmark": "fuzz",
        "versions": {"trojai-moth": __version__, "python": platform.python_version(), "atheris": version("atheris")},
        "targets": {},
    }
    if chosen.out.exists():  # the other targets of an earlier call
        before = json.loads(chosen.out.read_text(encoding="utf-8"))
        record["targets"] = before["targets"] if before["versions"] == record["versions"] else {}
    for name in chosen.target or sorted(TARGETS):
        record["targets"][name] = run(name, 60 * chosen.minutes)
        write_text(chosen.out, json.dumps(record, indent=2) + "\n")
        print(name, record["targets"][name], flush=True)


def run(name: str, seconds: float) -> dict[str, Any]:
    """Fuzz one target until the time is over; a finding ends the process, which is then started again."""
    corpus = ROOT / "build" / "fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    before, started, executed, coverage, features = set(cases(name)), time.monotonic(), 0, 0, 0
    while time.monotonic() - started < seconds and len(cases(name)) - len(before) < MOST_FINDINGS:
        left = max(1, round(seconds - (time.monotonic() - started)))
        log = one_process(name, corpus, left)
        executed += sum(map(int, _EXECUTED.findall(log)))
        for found in _STATUS.findall(log):
            coverage, features = max(coverage, int(found[0])), max(features, int(found[1]))
    return {
        "seconds": round(time.monotonic() - started, 1),
        "executions": executed,
        "covered_edges": coverage,
        "features": features,
        "corpus": len(list(corpus.iterdir())),
        "findings": sorted(set(cases(name)) - before),
    }


def one_process(name: str, corpus: Path, seconds: int) -> str:
    """Run the fuzzer in a process of its own and return what it wrote."""
    folder = CASES / name
    folder.mkdir(parents=True, exist_ok=True)
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={LARGEST_INPUT}",
        "-timeout=60",
        "-report_slow_units=60",
        "-rss_limit_mb=4096",
    ]
    command = [sys.executable, __file__, "--be", name, *limits, f"-artifact_prefix={folder}{os.sep}"]
    process = subprocess.run(
        [*command, "-print_final_stats=1", str(corpus)], capture_output=True, text=True, errors="replace", check=False
    )
    if process.returncode:
        print(process.stdout[-3000:], process.stderr[-3000:], sep="\n", file=sys.stderr, flush=True)
    return process.stderr + process.stdout


def cases(name: str) -> list[str]:
    """The kept inputs of a target."""
    return sorted(path.name for path in (CASES / name).glob("*"))


def fuzz(name: str, flags: list[str]) -> None:
    """Never returns: the fuzzer ends the process."""
    import atheris

    target = TARGETS[name](atheris.instrument_imports)
    atheris.Setup([sys.argv[0], *flags], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
