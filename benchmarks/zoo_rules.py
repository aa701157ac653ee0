"""Rules on the sizes of triggers, and what they make of the networks of a record of zoo_triggers.py."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from trojai_moth.core.statistics import anomaly_indices

# Anomaly index of an outlier: of Neural Cleanse, and of Iglewicz and Hoaglin (1993) for the same index, which one of
# 20 samples of ten or ninety normal values goes beyond.
NC_BOUND, MODIFIED_Z = 2.0, 3.5
Part = Mapping[str, Any]
# A backdoor turns most images that its trigger was not made for.
HELD_OUT = 0.5
Verdict = tuple[float, int] | None
"""How far the smallest lies below the others, in deviations, and its target; None where that was not measured."""


def summary(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Each rule's index and target for every network, and its counts."""
    return {rule: _counts(parts, judge, bound) for rule, (judge, bound) in RULES.items()}


def _counts(parts: Mapping[str, Part], judge: Callable[[Part], Verdict], bound: float) -> dict[str, Any]:
    networks, patches, clean = {}, [], []
    for name, part in parts.items():
        verdict = judge(part)
        if verdict is None:
            continue
        index, target = verdict
        flagged = index > bound
        true = not part["clean"] and flagged and target in part["targets"]
        networks[name] = {"index": round(index, 2), "target": target, "flagged": flagged}
        if part["clean"]:
            clean.append(flagged)
        elif part["patch"]:
            patches.append(true)
    return {
        "bound": bound,
        "patches_found": [sum(patches), len(patches)],
        "clean_flagged": [sum(clean), len(clean)],
        "networks": networks,
    }


def _universal(logarithms: bool, in_full: bool) -> Callable[[Part], Verdict]:
    def judge(part: Part) -> Verdict:
        sizes = dict(enumerate(part["universal"]))
        return _lowest(sizes, {one["target"]: one["size"] for one in part["universal_full"]}, logarithms, in_full)

    return judge


def _pairs(in_full: bool, held_out: float = 0.0) -> Callable[[Part], Verdict]:
    def judge(part: Part) -> Verdict:
        rows = enumerate(part["pairs"])
        sizes = {(victim, target): size for victim, row in rows for target, size in enumerate(row)}
        kept = [one for one in part["pairs_full"] if one["held_success"] >= held_out]
        full = {(one["victim"], one["target"]): one["size"] for one in kept}
        if in_full and part["pairs_full"] and not full:
            return 0.0, -1
        return _lowest(sizes, full, True, in_full)

    return judge


def _lowest(sizes: Mapping[Any, float | None], full: Mapping[Any, float | None], log: bool, in_full: bool) -> Verdict:
    """Of the first look, or the smallest of those that were searched in full, among the first look's others."""
    scale = math.log if log else float
    looked = {key: scale(size) for key, size in sizes.items() if size is not None}
    tried = {key: scale(size) for key, size in full.items() if size is not None and key in looked}
    candidates = tried if in_full else looked
    if not candidates:
        return None
    smallest = min(candidates, key=lambda key: candidates[key])
    among = [candidates[smallest], *(size for key, size in looked.items() if key != smallest)]
    indices = anomaly_indices(among)
    return (0.0 if indices is None else indices[0]), smallest[1] if isinstance(smallest, tuple) else smallest


def _larger(*rules: Callable[[Part], Verdict]) -> Callable[[Part], Verdict]:
    def judge(part: Part) -> Verdict:
        known = [verdict for verdict in (rule(part) for rule in rules) if verdict is not None]
        return max(known, key=lambda verdict: verdict[0]) if len(known) == len(rules) else None

    return judge


RULES: dict[str, tuple[Callable[[Part], Verdict], float]] = {
    "universal, sizes, 2 (Neural Cleanse)": (_universal(False, False), NC_BOUND),
    "universal, ln sizes, 2": (_universal(True, False), NC_BOUND),
    "universal, ln sizes, 3.5": (_universal(True, False), MODIFIED_Z),
    "universal, ln sizes, smallest in full, 3.5": (_universal(True, True), MODIFIED_Z),
    "pairs, ln sizes, 2": (_pairs(False), NC_BOUND),
    "pairs, ln sizes, 3.5": (_pairs(False), MODIFIED_Z),
    "pairs, ln sizes, smallest in full, 3.5": (_pairs(True), MODIFIED_Z),
    "pairs, ln sizes, smallest in full that works held out, 3.5": (_pairs(True, HELD_OUT), MODIFIED_Z),
    "universal sizes or pairs ln sizes, 2": (_larger(_universal(False, False), _pairs(False)), NC_BOUND),
    "universal or pairs, ln sizes, smallest in full that works held out, 3.5": (
        _larger(_universal(True, True), _pairs(True, HELD_OUT)),
        MODIFIED_Z,
    ),
}
