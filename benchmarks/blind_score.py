"""What the shipped rule makes of the scored half, beside the oracle, naive hardening, the votes and the controls.

    python benchmarks/blind_score.py [--records benchmarks/results/blind/scored] [--out FILE]

The rule was frozen by commit before these records were read, and refuses the models it was learned from.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blind_gates import Record, gate_e0, gate_e1, naive, read_records
from blind_rule import FEATURES, SETTINGS, labelled, learned_from, source

from trojai_moth.blind.learned import LearnedRule
from trojai_moth.blind.rule import SHIPPED, judge, read_rule
from trojai_moth.blind.verdict import BlindVerdict
from trojai_moth.calibration import fingerprint
from trojai_moth.eval.blind_runs import LabelledModel
from trojai_moth.eval.fit_rule import RuleSettings, fit_rule
from trojai_moth.eval.protocol_rows import Evaluation, ScoredModel, evaluate
from trojai_moth.eval.rule_weights import WeightSettings
from trojai_moth.files import write_text
from trojai_moth.records import to_dict

RECORDS = Path(__file__).parent / "results" / "blind"


def score(records: Sequence[Record], rule: LearnedRule | None) -> list[ScoredModel]:
    """The flagged models by ``rule``, or by votes without one."""
    by_id = {f"{r['half']} {r['stratum']} {r['model_id']}": r for r in records}
    return [
        scored(by_id[model.model_id], model, judge(model.evidence, rule, sha256=model.sha256))
        for model in labelled(records)
    ]


def scored(record: Record, model: LabelledModel, verdict: BlindVerdict) -> ScoredModel:
    """One model as the protocol's rows count it. AssertionError if the rule has seen it."""
    assert not verdict.fitted_on, f"{model.model_id}: the rule was learned from it"
    pairs = model.evidence.candidates
    return ScoredModel(
        model_id=model.model_id,
        twin_group=model.twin_group,
        poisoned=model.poisoned,
        cleared_naive=record["after"]["outcome"] == "clean",
        cleared_blind=verdict.cleared,
        probability=verdict.probability,
        size=min((pair.size for pair in pairs if pair.size is not None), default=None),
        held_success=max((pair.held_success for pair in pairs if pair.held_success is not None), default=None),
        right_pair=bool(model.right_pairs),
        seconds=record["seconds"],
        conditions=conditions(record),
    )


def conditions(record: Record) -> dict[str, str]:
    """What the counts are split by."""
    made = record["round"]
    return {
        "architecture": record["architecture"], "classes": str(record["classes"]), "pixels": str(made["size"]),
        "trigger condition": made["condition"], "look-alike pairs asked for": str(made["lookalikes"]),
        "images per class": str(made["images_per_class"]),
    }  # fmt: skip


def ablation(development: Sequence[Record], held: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Every feature alone and left out: learned anew from the development half, counted on the other."""
    sets = {f"{name} alone": (name,) for name in FEATURES}
    sets |= {f"without {name}": tuple(other for other in FEATURES if other != name) for name in FEATURES}
    found = {}
    for name, features in sets.items():
        settings = RuleSettings(folds=SETTINGS.folds, weights=WeightSettings(features=features))
        rule = fit_rule(labelled(development), settings, source("development"))
        found[name] = _short(evaluate(score(held, rule)))
    return found


def without_architecture(development: Sequence[Record], held: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Learned without the development models of an architecture, counted on the scored models of it."""
    found = {}
    for architecture in sorted({record["architecture"] for record in held}):
        rest = [record for record in development if record["architecture"] != architecture]
        own = [record for record in held if record["architecture"] == architecture]
        rule = fit_rule(labelled(rest), SETTINGS, source("development"))
        found[architecture] = _short(evaluate(score(own, rule)))
    return found


def _short(found: Evaluation) -> dict[str, Any]:
    row = next(row for row in found.rows if row.name == "blind rule")
    cleared, lost = row.false_positives_cleared, row.true_positives_lost
    return {
        "cleared": [cleared.count, cleared.total], "lost": [lost.count, lost.total],
        "roc_auc": found.roc_auc, "cross_entropy": found.cross_entropy,
    }  # fmt: skip


def main() -> None:
    """Print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--rule", type=Path, default=SHIPPED)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    development, held = learned_from(arguments.records / "development"), read_records(arguments.records / "scored")
    rule = read_rule(arguments.rule)
    models = score(held, rule)
    result = {
        "rule_sha256": fingerprint(rule),
        "models": len(held),
        "naive": naive(held),
        "evaluation": to_dict(evaluate(models)),
        "votes": _short(evaluate(score(held, None))),
        "ablation": ablation(development, held),
        "leave_one_architecture_out": without_architecture(development, held),
        "e0": gate_e0(held),
        "e1": gate_e1(held),
        "censored": statistics.mean(r["evidence"]["censored"] for r in held if "evidence" in r),
        "verdicts": [to_dict(model) for model in models],
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        write_text(arguments.out, text)


if __name__ == "__main__":
    main()
