"""How good the shipped rule is on the flagged models of the sets that tested it, beside other ways to decide.

    python benchmarks/score_rule.py [--out benchmarks/results/shipped_rule.json]

From the committed records, in two minutes. Beside the rule stand the scanner alone, thresholds on size and on held-out
success alone at equal loss, naive hardening where a set has it, the bounds that decide where no rule fits, and the rule
without the check for filters, without retrained copies, and learned without each of its features.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from learn_rule import FEATURES, blind_to_filters, has_filters, labelled, learn, name_of
from model_sets import LEARNED, TESTED
from set_records import Record, read_set

from trojai_moth.core.files import write_text
from trojai_moth.core.records import to_dict
from trojai_moth.eval.metrics import cross_entropy, roc_auc
from trojai_moth.eval.protocol_rows import ScoredModel, evaluate
from trojai_moth.verdict.judge import SHIPPED, judge
from trojai_moth.verdict.learned_rule import LearnedRule, read_rule

RESULT = Path(__file__).parent / "results" / "shipped_rule.json"
# The sets whose flagged models were also hardened plainly and scanned again.
HARDENED = ("confirm", "twelfth")


def result() -> dict[str, Any]:
    """Every figure; the tests and check_rule.py compare it with the committed one."""
    rule = read_rule(SHIPPED)
    held = [record for name in TESTED for record in read_set(name)]
    tested = scored(held, rule)
    return {
        "rule_sha256": rule.identity,
        "tested": {"sets": TESTED, "models": len(held), "evaluation": to_dict(evaluate(tested))},
        "by_set": {name: short(scored(read_set(name), rule)) for name in TESTED},
        "by_bounds": {name: short(scored(read_set(name), None)) for name in TESTED},
        "without_filters": by_trigger([blind_to_filters(record) for record in held], rule),
        "without_copies": short(scored([blind_to_copies(record) for record in held], rule)),
        "ignoring_other_colours": short(scored([one for one in held if one["stratum"] == "spectral"], rule)),
        "filter_rounds_by_stamps": filter_rounds_by_stamps(rule),
        "ninth": to_dict(evaluate(scored(read_set("ninth"), rule))),
        "examples": {
            "rule": short(scored(read_set("twelfth-examples"), rule)),
            "bounds": short(scored(read_set("twelfth-examples"), None)),
        },
        "naive": {name: naive(read_set(name)) for name in HARDENED},
        "cost": {name: cost(read_set(name)) for name in HARDENED},
        "out_of_fold": out_of_fold(),
        "verdicts": [to_dict(model) for model in tested],
    }


def scored(records: Sequence[Record], rule: LearnedRule | None) -> list[ScoredModel]:
    """The flagged models by ``rule``, or by bounds without one; AssertionError where the rule was learned from one."""
    by_name = {name_of(record): record for record in records}
    found = []
    for model in labelled(records):
        record, pairs = by_name[model.model_id], model.evidence.candidates
        verdict = judge(model.evidence, rule, sha256=model.sha256)
        assert not verdict.fitted_on, f"{model.model_id}: the rule was learned from it"
        found.append(
            ScoredModel(
                model_id=model.model_id,
                twin_group=model.twin_group,
                poisoned=model.poisoned,
                cleared_naive=None,
                cleared_blind=verdict.cleared,
                probability=verdict.probability,
                size=min((pair.size for pair in pairs if pair.size is not None), default=None),
                held_success=max((pair.held_success for pair in pairs if pair.held_success is not None), default=None),
                right_pair=bool(model.right_pairs),
                censored=model.evidence.censored,
                seconds=record["seconds"],
                conditions=conditions(record),
            )
        )
    return found


def conditions(record: Record) -> dict[str, str]:
    """What the counts are split by."""
    made = record["round"]
    return {
        "trigger": made["trigger"], "architecture": record["architecture"], "classes": str(record["classes"]),
        "pixels": str(made["size"]), "trigger condition": made["condition"],
        "look-alike pairs asked for": str(made["lookalikes"]), "images per class": str(made["images_per_class"]),
    }  # fmt: skip


def short(models: Sequence[ScoredModel]) -> dict[str, Any]:
    """[cleared, clean ones] and [lost, poisoned ones], and the quality of the probabilities."""
    known = [(model.probability, model.poisoned) for model in models if model.probability is not None]
    probabilities, poisoned = [probability for probability, _ in known], [label for _, label in known]
    return {
        "cleared": counted(models, lambda model: not model.poisoned),
        "lost": counted(models, lambda model: model.poisoned),
        "roc_auc": roc_auc(probabilities, poisoned),
        "cross_entropy": cross_entropy(probabilities, poisoned),
    }


def counted(models: Sequence[ScoredModel], wanted: Callable[[ScoredModel], bool]) -> list[int]:
    """[those whose flag is taken back, all] of the wanted ones."""
    own = [model for model in models if wanted(model)]
    return [sum(model.cleared_blind for model in own), len(own)]


def by_trigger(records: Sequence[Record], rule: LearnedRule) -> dict[str, list[int]]:
    """Counts of the clean models, and of the poisoned ones with either trigger."""
    models = scored(records, rule)
    return {"cleared": counted(models, lambda model: not model.poisoned)} | {
        f"lost with a {kind}": counted(models, lambda m, k=kind: m.poisoned and m.conditions["trigger"] == k)
        for kind in ("polygon", "filter")
    }


def filter_rounds_by_stamps(rule: LearnedRule) -> dict[str, list[int]]:
    """Rounds with filter triggers, of the sets that the rule was learned from; these were left out of the learning.

    They were looked at while it was made, so they are no test. The ninth set has no others.
    """
    unseen = [record for name in LEARNED for record in read_set(name) if has_filters(record)]
    return by_trigger([blind_to_filters(record) for record in unseen], rule)


def blind_to_copies(record: Record) -> Record:
    """The same evidence as if no copy of the network had been retrained."""
    evidence = record["evidence"]
    if not evidence.get("filter"):
        return record
    return {**record, "evidence": {**evidence, "filter": {**evidence["filter"], "unexplained": None}}}


def naive(records: Sequence[Record]) -> dict[str, list[int]]:
    """[no longer flagged after plain hardening, flagged before] of the clean and of the poisoned models."""
    flagged = [record for record in records if record["before"]["outcome"] == "flagged"]
    return {
        name: [sum(one["after"]["outcome"] == "clean" for one in own), len(own)]
        for name, poisoned in (("cleared", False), ("lost", True))
        for own in [[one for one in flagged if one["poisoned"] is poisoned]]
    }


def cost(records: Sequence[Record]) -> dict[str, float]:
    """Seconds of scan and evidence of a flagged model in those of its plain hardening."""
    ratios = [
        (record["before"]["seconds"] + record["evidence"]["seconds"]) / record["harden"]["seconds"]
        for record in records
        if "harden" in record
    ]
    return {"models": len(ratios), "median": statistics.median(ratios), "largest": max(ratios)}


def out_of_fold() -> dict[str, Any]:
    """Of the models it is learned from, each by a rule that has not seen it or its twin: all features, all but one."""
    rules = {"all features": learn()} | {
        f"without {name}": learn([other for other in FEATURES if other != name]) for name in FEATURES
    }
    return {name: to_dict(rule.metrics) for name, rule in rules.items()}


def main() -> None:
    """Print the counts, and save all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found = result()
    for row in found["tested"]["evaluation"]["rows"]:
        cleared, lost = row["false_positives_cleared"], row["true_positives_lost"]
        print(f"{row['name']}: {cleared['count']} of {cleared['total']} cleared, "
              f"{lost['count']} of {lost['total']} lost")  # fmt: skip
    if chosen.out:
        write_text(chosen.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
