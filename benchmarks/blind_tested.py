"""Which frozen rule each set of the blind experiment tests.

The scored half is for the rule of the development half (results/blind_rule_development.json), the fresh set for the
rule of both halves (results/blind_rule_both.json), both confirming sets for the first rule of plain stamps
(results/blind_rule_stamps.json), the second also for the known filters that keep a flag (verdict/filter_check.py) and
were added after the first was scored, the third for the same rule learned from four sets (results/blind_rule_four.json)
and for filters with conviction, the fourth for the rule with conviction gaps (results/blind_rule_conviction.json),
the fifth for the same learned from the fourth as well (results/blind_rule_conviction_three.json) and another weight
of conviction, the sixth for the same learned from the fifth, too, with more room below what it learned from
(results/blind_rule_conviction_four.json), and for filters of which two count more, the seventh for the same learned
from the sixth, too (results/blind_rule_conviction_five.json), and for filters compared pair by pair. The eighth is
for the third's rule again; so is the ninth, of filters alone, with copies relearned from clean images beside the
clean networks. The tenth to the twelfth are for what ships, which asks whether stamps of other colours do it, too
(results/blind_rule_breadth.json); the third's rule is scored beside it. Each was frozen by commit before a model of
its set was examined (of the tenth: before it was known what other colours do), and refuses the models it was learned
from.
"""

from pathlib import Path

from blind_rule import BROAD

RESULTS = Path(__file__).parent / "results"
DEVELOPMENT = RESULTS / "blind_rule_development.json"
BOTH = RESULTS / "blind_rule_both.json"
STAMPS = RESULTS / "blind_rule_stamps.json"
FOUR = RESULTS / "blind_rule_four.json"
BREADTH = RESULTS / "blind_rule_breadth.json"
CONVICTION = RESULTS / "blind_rule_conviction.json"
CONVICTION_THREE = RESULTS / "blind_rule_conviction_three.json"
CONVICTION_FOUR = RESULTS / "blind_rule_conviction_four.json"
CONVICTION_FIVE = RESULTS / "blind_rule_conviction_five.json"
# Each confirming set with the rule that it tests, and which sets and features that is learned from.
CONFIRMING = {
    "confirm": (STAMPS, "first-stamps"),
    "second": (STAMPS, "first-stamps"),
    "third": (FOUR, "four-stamps"),
    "fourth": (CONVICTION, "first-conviction"),
    "fifth": (CONVICTION_THREE, "second-conviction"),
    "sixth": (CONVICTION_FOUR, "third-conviction"),
    "seventh": (CONVICTION_FIVE, "conviction"),
    "eighth": (FOUR, "four-stamps"),
    "ninth": (FOUR, "four-stamps"),
    "tenth": (BREADTH, "breadth"),
    "eleventh": (BREADTH, "breadth"),
    "twelfth": (BREADTH, "breadth"),
}
# What shipped until a set tested its successor.
BEFORE = dict.fromkeys(("tenth", "eleventh", "twelfth"), FOUR)
# What ships and what did, each with the sets that its stamps were frozen before.
SINCE = {
    "shipped": (BREADTH, ("tenth", "eleventh", "twelfth")),
    "before": (FOUR, tuple(half for half in BROAD if half != "start")),
}
