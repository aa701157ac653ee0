"""Whether two runs of the same models say the same: verdicts, sizes, probabilities and reasons, but not seconds.

    python benchmarks/same_results.py BEFORE AFTER

Both are run directories of ``trojai-moth rescan`` with the same seed, settings and number of threads. Exit code 1 and a
line for each difference where they differ: what a change of the code that must change nothing is checked with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

# What depends on the machine's mood.
APART = ["seconds", "device"]


def differences(before: Path, after: Path) -> list[str]:
    """One line for each cell that differs; floats must agree to the last digit that results.csv has."""
    first, second = (
        pd.read_csv(run / "results.csv", dtype=str).drop(columns=APART).set_index("model") for run in (before, after)
    )
    if list(first.index) != list(second.index) or list(first.columns) != list(second.columns):
        return [f"other models or columns: {list(first.index)} and {list(second.index)}"]
    changed = first.compare(second, keep_shape=False, result_names=("before", "after"))
    return [
        f"{model} {column}: {row[column]['before']} -> {row[column]['after']}"
        for model, row in changed.iterrows()
        for column in changed.columns.levels[0]
        if str(row[column]["before"]) != str(row[column]["after"])
    ]


def main() -> None:
    """Print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    found = differences(arguments.before, arguments.after)
    print("\n".join(found) or "the same")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
