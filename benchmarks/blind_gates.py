"""Gates E0 and E1 of the blind verdict, and what every feature tells apart, from the records of benchmarks/blind.py.

    python benchmarks/blind_gates.py [--records benchmarks/results/blind/development] [--out gates.json]

E0, over clean models: pairs that were withheld from hardening grow at least 60 % as much as those hardened (median of
ln d1 - ln d0 in each model, then the ratio of the medians over models). E1, over poisoned models whose injected pair is
among the candidates: its median residual under withheld hardening is below -1.5, and its median contrast is above 0. A
feature's AUC is that of injected pairs against candidates of clean models, in the direction of its sign.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sklearn.metrics import roc_auc_score

from trojai_moth.core.files import write_text
from trojai_moth.eval.metrics import clopper_pearson
from trojai_moth.verdict.features import FEATURES

RECORDS = Path(__file__).parent / "results" / "blind" / "development"
GROWTH_SHARE, RESIDUAL = 0.6, -1.5
Record = Mapping[str, Any]
Pairs = list[tuple[str, Mapping[str, Any]]]


def read_records(folder: Path, without: Sequence[str] = ()) -> list[Record]:
    """The records of a folder, by name, less the files ``without``."""
    files = [path for path in sorted(folder.glob("*.json")) if path.name not in without]
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def injected(records: Sequence[Record]) -> Pairs:
    """(twin group, features) of the injected pairs that were among a poisoned model's candidates."""
    found: Pairs = []
    for record in records:
        true = {tuple(pair) for pair in record["injected_pairs"]}
        for pair in _candidates(record) if record["poisoned"] else []:
            found += [(record["twin_group"], pair)] if (pair["victim"], pair["target"]) in true else []
    return found


def natural(records: Sequence[Record]) -> Pairs:
    """(twin group, features) of every candidate of a clean model."""
    return [(r["twin_group"], pair) for r in records if not r["poisoned"] for pair in _candidates(r)]


def _candidates(record: Record) -> Sequence[Mapping[str, Any]]:
    return record["evidence"]["candidates"] if "evidence" in record else ()


def gate_e0(records: Sequence[Record]) -> dict[str, Any]:
    """Whether hardening spreads to pairs that it does not touch."""
    clean = [r["evidence"] for r in records if not r["poisoned"] and "evidence" in r]
    known = [e for e in clean if e["withheld_growth"] is not None and e["trained_growth"] is not None]
    withheld, trained = (_median([e[name] for e in known]) for name in ("withheld_growth", "trained_growth"))
    share = withheld / trained if withheld is not None and trained else None
    passed = share is not None and trained > 0 and share >= GROWTH_SHARE
    return {"models": len(known), "withheld": withheld, "trained": trained, "share": share, "passed": passed}


def gate_e1(records: Sequence[Record]) -> dict[str, Any]:
    """Whether an injected pair stays behind while others are hardened, and grows in the burst."""
    pairs = [pair for _, pair in injected(records)]
    residual = _median([p["withheld_residual"] for p in pairs if p["withheld_residual"] is not None])
    contrast = _median([p["burst_contrast"] for p in pairs if p["burst_contrast"] is not None])
    passed = residual is not None and contrast is not None and residual < RESIDUAL and contrast > 0
    return {"pairs": len(pairs), "residual": residual, "contrast": contrast, "passed": passed}


def feature_table(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Medians of both kinds and the AUC of every feature that both have."""
    table = {}
    for name, feature in FEATURES.items():
        ours, theirs = (
            [p[name] for _, p in pairs if p[name] is not None] for pairs in (injected(records), natural(records))
        )
        if ours and theirs:
            values, sign = [*ours, *theirs], feature.sign or 1
            auc = float(roc_auc_score([1] * len(ours) + [0] * len(theirs), [sign * value for value in values]))
            table[name] = {"injected": _median(ours), "natural": _median(theirs), "auc": auc, "sign": feature.sign,
                           "pairs": [len(ours), len(theirs)]}  # fmt: skip
    return table


def naive(records: Sequence[Record]) -> dict[str, Any]:
    """What plain hardening and a second scan make of flagged models: the oracle's row and what it loses."""
    rows = {}
    for name, poisoned in (("clean", False), ("poisoned", True)):
        mine = [r for r in records if r["poisoned"] == poisoned]
        flagged = [r for r in mine if r["before"]["outcome"] == "flagged"]
        cleared = [r for r in flagged if r.get("after", {}).get("outcome") == "clean"]
        rows[name] = {"models": len(mine), "flagged": len(flagged), "cleared": len(cleared),
                      "interval": clopper_pearson(len(cleared), len(flagged))}  # fmt: skip
    return rows


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def main() -> None:
    """Print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    records = read_records(arguments.records)
    result = {
        "models": len(records),
        "architectures": sorted({record["architecture"] for record in records}),
        "e0": gate_e0(records),
        "e1": gate_e1(records),
        "naive": naive(records),
        "features": feature_table(records),
        "seconds_per_model": _median([record["seconds"] for record in records]),
        "evidence_over_hardening": _median(
            [r["evidence"]["seconds"] / r["harden"]["seconds"] for r in records if "evidence" in r]
        ),
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        write_text(arguments.out, text)


if __name__ == "__main__":
    main()
