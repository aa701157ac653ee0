"""Whether k-arm here says what the public K-Arm code says of the same models, and what several arms at once change.

    python benchmarks/k_arm_agreement.py ROUND --out benchmarks/results/k_arm_agreement.json

The public code's figures are in reference/public_k_arm.json. Verdicts are compared by both of its rules: the size and
the ratio of the way back, and the size alone. Beside them stand other seeds and the order of one arm at a time.
"""

import json
from pathlib import Path
from typing import Any

import torch
from record import Record, parser

from trojai_moth.core.records import to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_round
from trojai_moth.rounds.samples import Samples
from trojai_moth.scanners.registry import make_scanner

PUBLIC = Path(__file__).parent / "reference" / "public_k_arm.json"
WAYS = {"as it ships": 0, "one at a time": 1}


def main() -> None:
    """Scan, then compare."""
    options = parser(__doc__)
    options.add_argument("round", type=Path)
    options.add_argument("--seeds", type=int, default=3)
    chosen = options.parse_args()
    public = json.loads(PUBLIC.read_text(encoding="utf-8"))
    record = Record("k-arm agreement", chosen, scanner=to_dict(make_scanner("k-arm", {}).settings))
    for case in read_round(chosen.round):
        for way, arms in WAYS.items():
            for seed in range(chosen.seed, chosen.seed + chosen.seeds):
                record.part(
                    f"{case.model_id}, {way}, seed {seed}",
                    lambda c=case, a=arms, s=seed: smallest(c, a, s, record.device),
                )
    figures = {way: compared(record.data["parts"], way, public, chosen) for way in WAYS}
    record.finish(**figures)
    for way, found in figures.items():
        print(f"{way}: {found['same']} of {found['verdicts']} verdicts as the public code; {found['differences']}")


def smallest(case: ModelFolder, arms_at_once: int, seed: int, device: torch.device) -> dict[str, Any]:
    """The smallest pair with its way back."""
    opened, own = open_folder(case, device), derive_seed(seed, case.model_id)
    nothing = opened.examples.take(torch.arange(0))
    samples = Samples(opened.examples, nothing, nothing, "all examples")  # the public code holds none back
    scanner = make_scanner("k-arm", {"arms_at_once": arms_at_once, "left_out_candidates": 0})
    verdict = scanner(opened.subject, samples, seed=derive_seed(own, "scan"))
    best = verdict.evidence[0] if verdict.evidence and verdict.evidence[0].size is not None else None
    ratio = best.reverse_size / best.size if best and best.reverse_size else None
    return {
        "seconds": verdict.seconds,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "pair": [best.victim, best.target] if best else None,
        "size": best.size if best else None,
        "ratio": ratio,
    }


def compared(parts: dict[str, Any], way: str, public: dict[str, Any], chosen: Any) -> dict[str, Any]:
    """Verdicts by both rules with the first seed, and how they differ."""
    same, verdicts, differences = 0, 0, []
    for model_id, theirs in public["models"].items():
        ours = parts[f"{model_id}, {way}, seed {chosen.seed}"]
        for rule in ("size and ratio", "size alone"):
            pair = flagged(ours, rule, public), flagged(theirs, rule, public)
            verdicts, same = verdicts + 1, same + (pair[0] == pair[1])
            if pair[0] != pair[1]:
                differences.append({"model": model_id, "rule": rule, "ours": ours, "public": theirs})
    seconds = [part["seconds"] for name, part in parts.items() if f", {way}, " in name]
    return {
        "same": same,
        "verdicts": verdicts,
        "same_pair": sum(
            parts[f"{m}, {way}, seed {chosen.seed}"]["pair"] == theirs["pair"] for m, theirs in public["models"].items()
        ),
        "differences": differences,
        "mean_seconds": sum(seconds) / len(seconds),
        "same_verdict_for_all_seeds": sum(
            len({parts[f"{m}, {way}, seed {s}"]["outcome"] for s in range(chosen.seed, chosen.seed + chosen.seeds)})
            == 1
            for m in public["models"]
        ),
    }


def flagged(found: dict[str, Any], rule: str, public: dict[str, Any]) -> bool:
    """By the published bounds; a way back that was not found is infinitely far."""
    if found["size"] is None or found["size"] >= public["pair_bound"]:
        return False
    return rule == "size alone" or found["ratio"] is None or found["ratio"] > 10


if __name__ == "__main__":
    main()
