"""The rule that ships, learned from the development half of the blind experiment.

    python benchmarks/blind_rule.py [--records benchmarks/results/blind/development] [--out FILE]

Only models that the scanner flagged are learned from. The features it chooses from are those that stood out of all on
this half, so what the file says of itself out of fold is too good; the scored half (blind_score.py) is what counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from blind import SCANNER
from blind_gates import RECORDS, Record, read_records
from blind_rounds import STRATA, settings_of

from trojai_moth import __version__
from trojai_moth.blind.features import BlindEvidence
from trojai_moth.blind.learned import RuleRound
from trojai_moth.blind.rule import SHIPPED
from trojai_moth.calibration import fingerprint
from trojai_moth.eval.blind_runs import LabelledModel
from trojai_moth.eval.fit_rule import RuleSettings, RuleSource, fit_rule
from trojai_moth.eval.rule_weights import WeightSettings
from trojai_moth.files import write_text
from trojai_moth.records import from_dict, to_json

FEATURES = ("burst_contrast", "rank_jump", "log_size", "transfer")
# Twins are few: ten parts leave more to learn from than five.
SETTINGS = RuleSettings(folds=10, weights=WeightSettings(features=FEATURES))


# Its examination ended after the rule was frozen, so it had no part in it.
LATE = ("spatial-id-00000004.json",)


def learned_from(folder: Path) -> list[Record]:
    """The development records that the rule was frozen with."""
    return read_records(folder, without=LATE)


def labelled(records: Sequence[Record]) -> list[LabelledModel]:
    """The flagged models of benchmarks/blind.py's records that have evidence."""
    found = []
    for record in records:
        if record["before"]["outcome"] != "flagged" or "evidence" not in record:
            continue
        name = f"{record['half']} {record['stratum']} {record['model_id']}"
        model = LabelledModel(
            model_id=name,
            sha256=record["sha256"],
            twin_group=record["twin_group"],
            poisoned=record["poisoned"],
            architecture=record["architecture"],
            evidence=from_dict(BlindEvidence, record["evidence"], source=name),
            injected_pairs=tuple((victim, target) for victim, target in record["injected_pairs"]),
        )
        found.append(model)
    return found


def source(half: str) -> RuleSource:
    """Which rounds the records of a half are of."""
    rounds = []
    for stratum in STRATA:
        made = settings_of(stratum, half)
        rounds.append(
            RuleRound(round=f"{half}/{stratum}", seed=made.seed, settings_sha256=fingerprint(made), version=__version__)
        )
    return RuleSource(scanner=SCANNER, data="composed", rounds=tuple(rounds))


def main() -> None:
    """Learn and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    rule = fit_rule(labelled(learned_from(arguments.records)), SETTINGS, source("development"))
    write_text(arguments.out, to_json(rule))
    for term in rule.terms:
        print(f"{term.feature}: middle {term.centre:.2f}, spread {term.scale:.2f}, weight {term.weight:+.2f}")
    print(f"kept from a score of {rule.threshold:.2f}; out of fold: {rule.metrics}")


if __name__ == "__main__":
    main()
