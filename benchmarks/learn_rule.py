"""The rule that ships, learned again from the committed records.

    python benchmarks/learn_rule.py [--out FILE]

Models of rounds whose triggers are photo filters are left out, and what filters do is not looked at: that is a check of
its own (trojai_moth/verdict/judge.py). check_rule.py compares the result with the rule in the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from model_sets import LEARNED, SCANNER, SETS
from set_records import Record, read_set

from trojai_moth import __version__
from trojai_moth.core.files import write_text
from trojai_moth.core.records import fingerprint, from_dict, to_dict, to_json
from trojai_moth.eval.calibration.blind_runs import LabelledModel
from trojai_moth.eval.calibration.fit_rule import RuleSettings, RuleSource, fit_rule
from trojai_moth.eval.calibration.rule_weights import WeightSettings
from trojai_moth.verdict.features import BlindEvidence
from trojai_moth.verdict.filter_evidence import FILTERS
from trojai_moth.verdict.learned_rule import LearnedRule, RuleRound

# How far a stamp convinces the network and clean ones, how much its colour counts, and what a detail explains.
FEATURES = ("stamp_peak", "clean_conviction", "stamp_breadth", "removal_success")
# The threshold lies where a normal distribution of the poisoned scores has this share below.
TAIL_LOSS = 0.01
# Settings of make-round that came after the rounds that are learned from, all of which have their defaults.
_LATER = {"signs", "lookalike_distance_min", "lookalike_distance_max", "trigger_colours", "noise_share"}
# Twins are few: ten parts leave more to learn from than five.
FOLDS = 10


def learn(features: Sequence[str] = FEATURES) -> LearnedRule:
    """The rule over these features."""
    settings = RuleSettings(tail_loss=TAIL_LOSS, folds=FOLDS, weights=WeightSettings(features=tuple(features)))
    return fit_rule(models(), settings, source())


def models() -> list[LabelledModel]:
    """The flagged models that the rule is learned from."""
    records = [record for name in LEARNED for record in read_set(name) if not has_filters(record)]
    return labelled([blind_to_filters(record) for record in records])


def source() -> RuleSource:
    """The rounds of these models."""
    rounds = []
    for name in LEARNED:
        for stratum in SETS[name].strata:
            made = SETS[name].settings(stratum)
            # As the rounds' own records have it, which are of before these settings.
            sha256 = fingerprint({name: value for name, value in to_dict(made).items() if name not in _LATER})
            rounds.append(
                RuleRound(round=f"{name}/{stratum}", seed=made.seed, settings_sha256=sha256, version=__version__)
            )
    return RuleSource(scanner=SCANNER, data="composed", rounds=tuple(rounds))


def labelled(records: Sequence[Record]) -> list[LabelledModel]:
    """The flagged models of these records."""
    return [
        LabelledModel(
            model_id=name_of(record),
            sha256=record["sha256"],
            twin_group=record["twin_group"],
            poisoned=record["poisoned"],
            architecture=record["architecture"],
            evidence=from_dict(BlindEvidence, record["evidence"], source=name_of(record)),
            injected_pairs=tuple((victim, target) for victim, target in record["injected_pairs"]),
        )
        for record in records
        if record["before"]["outcome"] == "flagged"
    ]


def name_of(record: Record) -> str:
    """A model's name among all sets."""
    return f"{record['set']} {record['stratum']} {record['model_id']}"


def has_filters(record: Record) -> bool:
    """Whether its round's triggers are filters."""
    return bool(record["round"]["trigger"] == "filter")


def blind_to_filters(record: Record) -> Record:
    """The same evidence as if no filter had been tried."""
    evidence = record["evidence"]
    skipped = {name: reason for name, reason in evidence["skipped"].items() if name != FILTERS}
    return {**record, "evidence": {**evidence, "filter": None, "skipped": skipped}}


def main() -> None:
    """Learn, write and say what was learned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    rule = learn()
    if chosen.out:
        write_text(chosen.out, to_json(rule))
    for term in rule.terms:
        print(f"{term.feature}: middle {term.centre:.2f}, spread {term.scale:.2f}, weight {term.weight:+.2f}")
    print(f"kept from a score of {rule.threshold:.2f}; out of fold: {rule.metrics}")


if __name__ == "__main__":
    main()
