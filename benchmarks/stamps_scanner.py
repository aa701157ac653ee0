"""What the scanner ``stamps`` goes by, beside neural-cleanse, from committed records.

    python benchmarks/stamps_scanner.py --out benchmarks/results/scanners_stamps.json

Its bounds were set on the set ``polygon``; it had not seen ``confirm``. A model's score is that of its most suspicious
pair among those that its record has stamps of: neural-cleanse's three and two of its own. The scanner itself looks at
five of its own, and trains its clean networks without the models' signs.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from set_records import Record, read_set

from trojai_moth.core.files import write_text
from trojai_moth.core.statistics import logistic
from trojai_moth.eval.metrics import cross_entropy, roc_auc
from trojai_moth.triggers.stamps import StampBounds, weakest_point

SETS = ("polygon", "confirm")


def stamp_score(record: Record) -> float:
    """How far its most suspicious pair is within the nearest bound, in log odds."""
    names = ("stamp_success", "removal_success", "stamp_gap")
    told = [[pair[name] for name in names] for pair in record["evidence"]["candidates"]]
    # The scanner's bounds do not ask for breadth, which these records are without.
    return max(weakest_point(success, 0.0, removal, gap, StampBounds()) for success, removal, gap in told)


def figures(records: Sequence[Record]) -> dict[str, Any]:
    """Both scanners' counts and quality."""
    scans = [record["before"] for record in records]
    stamps = [stamp_score(record) for record in records]
    return {
        "stamps": quality(records, [score > 0 for score in stamps], [logistic(score) for score in stamps]),
        "neural-cleanse": quality(
            records, [scan["outcome"] == "flagged" for scan in scans], [scan["probability"] for scan in scans]
        ),
    }


def quality(records: Sequence[Record], flagged: Sequence[bool], probabilities: Sequence[float]) -> dict[str, Any]:
    """[flagged, all] of the poisoned and of the clean models, and how good the probabilities are."""
    poisoned = [record["poisoned"] for record in records]
    own = {bad: [flag for flag, label in zip(flagged, poisoned, strict=True) if label is bad] for bad in (True, False)}
    return {
        "true_positives": [sum(own[True]), len(own[True])],
        "false_positives": [sum(own[False]), len(own[False])],
        "roc_auc": roc_auc(probabilities, poisoned),
        "cross_entropy": cross_entropy(probabilities, poisoned),
    }


def main() -> None:
    """Print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found = {name: figures(read_set(name)) for name in SETS}
    print(json.dumps(found, indent=1))
    if chosen.out:
        write_text(chosen.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
