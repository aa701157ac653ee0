"""What a frozen rule makes of models it never saw, beside oracle, naive hardening, the fallback and the controls.

    python benchmarks/blind_score.py [--half scored] [--out FILE], likewise fresh, confirm, second, and so on to twelfth
    python benchmarks/blind_score.py --since shipped [--out FILE], likewise before

blind_tested.py says which rule a set is for. With --since one rule is asked about all sets that were first looked at
after it was frozen. What ``trojai-moth evaluate`` can not say of finished runs is said here: every feature alone and
left out, and every architecture left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blind import STAMP_RESULTS, as_shipped
from blind_gates import Record, gate_e0, gate_e1, naive, read_records
from blind_rule import (
    CANDIDATES,
    FEATURES,
    LEARNED,
    SETTINGS,
    STAMP_PARTS,
    STAMP_RULES,
    blind_to_copies,
    blind_to_filters,
    flagged_models,
    labelled,
    learned_from,
    settings_for,
    source,
    stamped_models,
)
from blind_tested import BEFORE, BOTH, CONFIRMING, DEVELOPMENT, RESULTS, SINCE

from trojai_moth.core.files import write_text
from trojai_moth.core.records import to_dict
from trojai_moth.eval.calibration.blind_runs import LabelledModel
from trojai_moth.eval.calibration.fit_rule import RuleSettings, RuleSource, fit_rule
from trojai_moth.eval.protocol_rows import Evaluation, ScoredModel, evaluate
from trojai_moth.verdict.judge import judge
from trojai_moth.verdict.learned_rule import LearnedRule, read_rule
from trojai_moth.verdict.records import BlindVerdict
from trojai_moth.verdict.threshold_rule import FEATURES_USED

RECORDS = RESULTS / "blind"
# What the gates look at.
GATED = ("withheld_residual", "burst_contrast")


def score(records: Sequence[Record], rule: LearnedRule | None) -> list[ScoredModel]:
    """The flagged models by ``rule``, or by the fallback's bounds without one."""
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
        cleared_naive=record["after"]["outcome"] == "clean" if "after" in record else None,
        cleared_blind=verdict.cleared,
        probability=verdict.probability,
        size=min((pair.size for pair in pairs if pair.size is not None), default=None),
        held_success=max((pair.held_success for pair in pairs if pair.held_success is not None), default=None),
        right_pair=bool(model.right_pairs),
        censored=model.evidence.censored,
        seconds=record["seconds"],
        conditions=conditions(record),
    )


def conditions(record: Record) -> dict[str, str]:
    """What the counts are split by."""
    made = record["round"]
    return {
        "trigger": made["trigger"], "architecture": record["architecture"], "classes": str(record["classes"]),
        "pixels": str(made["size"]), "trigger condition": made["condition"],
        "look-alike pairs asked for": str(made["lookalikes"]), "images per class": str(made["images_per_class"]),
    }  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """A set with the frozen rule for it, what that was learned from and how, and the sets of features to compare."""

    rule: Path
    learned: list[LabelledModel]
    settings: RuleSettings
    source: RuleSource
    features: Mapping[str, tuple[str, ...]]


def experiment(half: str, records: Path) -> Experiment:
    """Of the scored half, the fresh set or one of the confirming sets."""
    if half in CONFIRMING:
        rule, name = CONFIRMING[half]
        how = STAMP_RULES[name]
        models = stamped_models(STAMP_RESULTS, how.sets)
        return Experiment(rule, models, how.settings, source(*how.sets), parts_of(how.features))
    if half == "scored":
        sets = {f"{name} alone": (name,) for name in FEATURES}
        sets |= {f"without {name}": tuple(other for other in FEATURES if other != name) for name in FEATURES}
        models = labelled(learned_from(records / "development"))
        return Experiment(DEVELOPMENT, models, SETTINGS, source("development"), sets)
    settings = settings_for(read_rule(BOTH).features)
    return Experiment(BOTH, flagged_models(records, LEARNED), settings, source(*LEARNED), CANDIDATES)


def parts_of(used: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What a rule of stamps is compared with: each of its features alone, what they are made of, and sums of that."""
    alone = dict.fromkeys((*STAMP_PARTS, *(used if len(used) > 1 else ())))
    sets = {f"{name} alone": (name,) for name in alone} | {"their sum": STAMP_PARTS}
    return sets | {f"their sum without {name}": tuple(o for o in STAMP_PARTS if o != name) for name in STAMP_PARTS}


def ablation(made: Experiment, held: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Other sets of features, as each alone and left out: learned anew from the same models, counted on ``held``.

    Empty where only what the one rule asks for was gathered.
    """
    found: dict[str, dict[str, Any]] = {}
    if not gathered(held, {name for names in made.features.values() for name in names}):
        return found
    for name, features in made.features.items():
        rule = fit_rule(made.learned, settings_for(features), made.source)
        found[name] = _short(evaluate(score(held, rule)))
    return found


def gathered(held: Sequence[Record], features: Collection[str]) -> bool:
    """Whether these features were gathered of every flagged model; records can be older than some."""
    found = [record["evidence"] for record in held if "evidence" in record]
    return all(set(features) <= set(pair) - set(one["left_open"]) for one in found for pair in one["candidates"])


def cost(held: Sequence[Record]) -> dict[str, float] | None:
    """Seconds of scan and evidence of a flagged model beside those of its plain hardening; None where none was.

    Evidence of records that hold more than the rule asks for counts in full.
    """
    ratios = [
        (record["before"]["seconds"] + record["evidence"]["seconds"]) / record["harden"]["seconds"]
        for record in held
        if "harden" in record
    ]
    return {"models": len(ratios), "median": statistics.median(ratios), "largest": max(ratios)} if ratios else None


def filtered(held: Sequence[Record]) -> bool:
    """Whether known filters were tried on any."""
    return any(record.get("evidence", {}).get("filter") for record in held)


def since(folder: Path, name: str) -> dict[str, Any]:
    """What ships, or did, of all sets that it has not seen, with filters by the settings that ship (blind.py)."""
    held = [record for half in SINCE[name][1] for record in read_records(folder / half)]
    rule = read_rule(SINCE[name][0])
    models = score([as_shipped(record) if "evidence" in record else record for record in held], rule)
    if not complete(held):  # of sets that were hardened in part naive hardening says nothing
        models = [replace(model, cleared_naive=None) for model in models]
    by_set = {half: [m for m in models if m.model_id.split()[0] == half] for half in SINCE[name][1]}
    return {
        "rule_sha256": rule.identity,
        "models": len(held),
        "evaluation": to_dict(evaluate(models)),
        "by_set": {half: _short(evaluate(own)) for half, own in by_set.items()},
        "verdicts": [to_dict(model) for model in models],
    }


def without(held: Sequence[Record], rule: LearnedRule, less: Callable[[Record], Record]) -> dict[str, Any] | None:
    """What the rest of the evidence alone would say; None where no filter was tried."""
    return _short(evaluate(score(list(map(less, held)), rule))) if filtered(held) else None


def complete(held: Sequence[Record]) -> bool:
    """Whether every flagged model was also hardened plainly and scanned again."""
    return all("after" in record for record in held if record["before"]["outcome"] == "flagged")


def without_architecture(made: Experiment, held: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Learned without the models of an architecture, counted on the held models of it."""
    found = {}
    for architecture in sorted({record["architecture"] for record in held}):
        rest = [model for model in made.learned if model.architecture != architecture]
        own = [record for record in held if record["architecture"] == architecture]
        found[architecture] = _short(evaluate(score(own, fit_rule(rest, made.settings, made.source))))
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
    parser.add_argument("--records", type=Path, help="default: results/blind, or results/stamps for the confirming set")
    parser.add_argument("--half", choices=("scored", "fresh", *CONFIRMING), default="scored")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--since", choices=SINCE, help="what ships, or did before the tenth, of all sets since")
    arguments = parser.parse_args()
    if arguments.since:
        save(since(STAMP_RESULTS, arguments.since), arguments.out)
        return
    half = arguments.half
    records = arguments.records or (STAMP_RESULTS if half in CONFIRMING else RECORDS)
    made, held = experiment(half, records), read_records(records / half)
    rule = read_rule(made.rule)
    models, whole = score(held, rule), complete(held)
    result = {
        "rule_sha256": rule.identity,
        "models": len(held),
        "naive": naive(held) if whole else None,
        "evaluation": to_dict(evaluate(models)),
        "without_filters": without(held, rule, blind_to_filters),
        "without_copies": without(held, rule, blind_to_copies),
        "before": _short(evaluate(score(held, read_rule(BEFORE[half])))) if half in BEFORE else None,
        "bounds": _short(evaluate(score(held, None))) if gathered(held, FEATURES_USED) else None,
        "ablation": ablation(made, held),
        "leave_one_architecture_out": without_architecture(made, held),
        "e0": gate_e0(held) if whole and gathered(held, GATED) else None,
        "e1": gate_e1(held) if whole and gathered(held, GATED) else None,
        "cost": cost(held),
        "censored": statistics.mean(r["evidence"]["censored"] for r in held if "evidence" in r),
        "verdicts": [to_dict(model) for model in models],
    }
    save(result, arguments.out)


def save(result: Mapping[str, Any], out: Path | None) -> None:
    """Print it, and write it where a file is named."""
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if out:
        write_text(out, text)


if __name__ == "__main__":
    main()
