"""Learn what the rule of plain stamps is followed by: what relearned copies and clean networks leave unexplained.

    python benchmarks/blind_next.py [--out FILE]

The first rule is that of results/blind_rule_four.json, unchanged. The second is asked about what it keeps, and learned
from the models of the later sets that it keeps, whose records say how far the stamp convinces a relearned copy
(benchmarks/blind.py --stamps --relearned). It has one feature, and its threshold room below the lowest poisoned model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from blind import STAMP_RESULTS
from blind_gates import read_records
from blind_rule import labelled, settings_for, source

from trojai_moth.blind.learned import LearnedRule, read_rule
from trojai_moth.blind.rule import SHIPPED
from trojai_moth.eval.fit_next import fit_next
from trojai_moth.files import write_text
from trojai_moth.records import to_json

FIRST = Path(__file__).parent / "results" / "blind_rule_four.json"
FEATURES = ("unexplained_conviction",)
# All that were looked at when it was learned: those that the first rule has not seen, and models poisoned otherwise.
SETS = ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "start")
# The threshold is asked to lie below all but this share of true positives, if their scores are normal.
TAIL_LOSS = 0.05


def both_rules(records: Path = STAMP_RESULTS) -> LearnedRule:
    """The first rule with the second, learned from these records."""
    models = [model for half in SETS for model in labelled(read_records(records / half))]
    return fit_next(read_rule(FIRST), models, settings_for(FEATURES, TAIL_LOSS), source(*SETS))


def main() -> None:
    """Learn and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    rule = both_rules()
    write_text(arguments.out, to_json(rule))
    assert rule.then is not None
    (term,) = rule.then.terms
    bound = term.centre + (rule.then.threshold - rule.then.intercept) * term.scale / term.weight
    print(f"kept from {bound:.3f} on; out of fold: {rule.then.metrics}")


if __name__ == "__main__":
    main()
