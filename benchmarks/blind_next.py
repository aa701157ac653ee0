"""Learn what the rule of plain stamps is followed by: what relearned copies and clean networks leave unexplained.

    python benchmarks/blind_next.py [--out FILE]

Both together are what ships, and what the tenth set tested (results/blind_rule_next.json).

The first rule is that of results/blind_rule_four.json with a lower threshold: a stamp may be as far outside of its
bounds as LOWEST says. Models that are poisoned from their first step obey stamps less (two of six that were looked
at come to -0.24 and -0.56), and the second rule may clear what that lets through. It is asked about what the first
keeps, and learned from the models of the later sets that it keeps (their records: benchmarks/blind.py --stamps
--relearned). Its three features say how far a stamp convinces the network itself, clean networks and a relearned copy,
and its threshold has room below the lowest poisoned model. Not all records of these sets have them: of the clean models
that the first rule of stamps kept nearly all, of those that it had cleared and of the poisoned ones some, drawn at
random.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from blind import STAMP_RESULTS
from blind_gates import read_records
from blind_rule import labelled, settings_for, source
from blind_score import FOUR

from trojai_moth.blind.learned import LearnedRule, read_rule
from trojai_moth.blind.rule import SHIPPED
from trojai_moth.eval.fit_next import fit_next
from trojai_moth.files import write_text
from trojai_moth.records import to_json

# Above FAR_OUTSIDE, beyond which no copy is asked.
LOWEST = -1.0
FEATURES = ("stamp_peak", "clean_conviction", "copy_conviction")
# All that were looked at when it was learned: those that the first rule has not seen, and models poisoned otherwise.
SETS = ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "start")


def first_rule() -> LearnedRule:
    """That of stamps alone, which keeps what is no further outside of its bounds than LOWEST."""
    rule = read_rule(FOUR)
    (term,) = rule.terms
    lower = rule.intercept + term.weight * term.standardised(LOWEST)
    return replace(rule, retention=replace(rule.retention, threshold=min(lower, rule.threshold)))


def both_rules(records: Path = STAMP_RESULTS) -> LearnedRule:
    """The first rule with the second, learned from those of these records that say what is left unexplained."""
    models = [model for half in SETS for model in labelled(read_records(records / half))]
    known = [model for model in models if any(pair.stamp_peak is not None for pair in model.evidence.candidates)]
    return fit_next(first_rule(), known, settings_for(FEATURES), source(*SETS))


def main() -> None:
    """Learn and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    rule = both_rules()
    write_text(arguments.out, to_json(rule))
    assert rule.then is not None
    for term in rule.then.terms:
        print(f"{term.feature}: middle {term.centre:.2f}, spread {term.scale:.2f}, weight {term.weight:+.2f}")
    print(f"kept from a score of {rule.then.threshold:.2f}; out of fold: {rule.then.metrics}")


if __name__ == "__main__":
    main()
