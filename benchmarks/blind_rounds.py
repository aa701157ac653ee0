"""The rounds of the blind experiment: 34 pairs of twins in two halves, and sixteen later sets.

    python benchmarks/blind_rounds.py ROUNDS --half development
    python benchmarks/blind_rounds.py ROUNDS --half scored
    python benchmarks/blind_rounds.py ROUNDS --half fresh
    python benchmarks/blind_rounds.py ROUNDS --half polygon
    python benchmarks/blind_rounds.py ROUNDS --half confirm
    python benchmarks/blind_rounds.py ROUNDS --half second
    python benchmarks/blind_rounds.py ROUNDS --half third
    python benchmarks/blind_rounds.py ROUNDS --half anew
    python benchmarks/blind_rounds.py ROUNDS --half fourth
    python benchmarks/blind_rounds.py ROUNDS --half fifth
    python benchmarks/blind_rounds.py ROUNDS --half sixth
    python benchmarks/blind_rounds.py ROUNDS --half seventh
    python benchmarks/blind_rounds.py ROUNDS --half eighth
    python benchmarks/blind_rounds.py ROUNDS --half ninth
    python benchmarks/blind_rounds.py ROUNDS --half tenth
    python benchmarks/blind_rounds.py ROUNDS --half start
    python benchmarks/blind_rounds.py ROUNDS --half eleventh
    python benchmarks/blind_rounds.py ROUNDS --half twelfth

Both halves hold the same strata with different signs, triggers and weights. The development half is for gates, features
and calibration; the scored half is looked at once, after the rule is frozen. Then both are spent, a safer rule may be
learned from them together, and a third, fresh set tests that one: more pairs of twins of the smallest network in four
of the strata, whose models cost the least. That set is spent, too, and the next rule, of plain stamps, is learned
from it and from the polygon round of benchmarks/scanners.py. The confirming set tests it: all three networks in those
four strata. The second confirming set tests the same rule again, with what was added since: those strata once more, and
two of triggers that are photo filters and of larger images. The third one has the second's strata and one of filters
that work on one class only, and tests what was learned from all the others. The set called anew is the second one, made
on another processor, where the same seeds train other weights. The fourth has the third one's strata, and tests what
these two taught; so have the fifth and the sixth, each of which tests what the one before it taught. The seventh does,
too, and has no larger images. The eighth tests what ships on models that are trained as round 4's were: with colours
jittered by 0.1 and every one adversarially (train_model.py and round_config.py of the feb2021 generator; a stratum has
one of its boxes, shares and step counts), and has two strata more, of round 4's spectral condition. The ninth has the
strata of filters alone, twice as large and in other boxes, and tests copies relearned from clean images; the tenth
has five of the eighth's strata in other boxes, for what comes after that. Up to the ninth set twins share a clean
start, and only then is one poisoned; the set called start, from which that was learned, and three of the tenth's
strata hold models poisoned from their first step. The eleventh has five of the eighth's strata in other boxes, with one
step each, four of them poisoned from the first step, and tests whether it counts that stamps of other colours do it; in
one of them these were taught to do nothing. The twelfth asks the same of what the eleventh left off, two images a class
and triggers of one class, and of more models taught to ignore other colours; most are poisoned from the first step.
Each call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from trojai_moth.core.records import read_record, to_dict
from trojai_moth.eval.calibration.blind_runs import injected_pairs
from trojai_moth.rounds.model_folder import Case
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.settings import MakeRoundSettings, RoundSummary

HALVES = (
    "development",
    "scored",
    "fresh",
    "confirm",
    "polygon",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "anew",
    "start",
    "eleventh",
    "twelfth",
)
_THREE = "squeezenetv1_1,resnet18,mobilenetv2"
_FILTER = dict(models=6, architecture=_THREE, classes=5, lookalikes=1, images_per_class=10, trigger="filter")
STRATA: Mapping[str, Mapping[str, Any]] = {
    "plain": dict(models=6, architecture=_THREE, classes=5, lookalikes=1, images_per_class=10),
    "class": dict(models=6, architecture=_THREE, classes=7, lookalikes=2, images_per_class=5, condition="class"),
    "few": dict(models=6, architecture=_THREE, classes=4, lookalikes=0, images_per_class=2),
    "many": dict(models=6, architecture=_THREE, classes=10, lookalikes=3, images_per_class=5, condition="class"),
    "large": dict(models=4, architecture="squeezenetv1_1", classes=5, lookalikes=1, images_per_class=10, size=64),
    "spatial": dict(models=6, architecture=_THREE, classes=6, lookalikes=1, images_per_class=10, condition="spatial"),
    "filter": _FILTER,
    "filter-class": {**_FILTER, "condition": "class"},
    "spectral": dict(models=6, architecture=_THREE, classes=6, lookalikes=1, images_per_class=5, condition="spectral"),
    "filter-spectral": {**_FILTER, "condition": "spectral"},
}
# The round that scanners are measured on.
POLYGON = MakeRoundSettings(
    models=20, classes=5, size=32, architecture="resnet18,squeezenetv1_1", images_per_class=10, lookalikes=1, seed=0
)
# The strata of both halves, of the fresh and confirming sets, and of the two after it; what differs in the fresh one.
BOTH = ("plain", "class", "few", "many", "large", "spatial")
FRESH = ("plain", "class", "few", "spatial")
SECOND = (*FRESH, "filter", "large")
THIRD = (*SECOND, "filter-class")
SEVENTH = (*FRESH, "filter", "filter-class")
EIGHTH = (*SEVENTH, "spectral", "filter-spectral")
NINTH = ("filter", "filter-class", "filter-spectral")
TENTH = ("plain", "class", "spatial", "filter", "filter-class")
LATER: Mapping[str, tuple[str, ...]] = {
    "polygon": ("polygon",),
    **dict.fromkeys(("fresh", "confirm"), FRESH),
    **dict.fromkeys(("second", "anew"), SECOND),
    **dict.fromkeys(("third", "fourth", "fifth", "sixth"), THIRD),
    "seventh": SEVENTH,
    "eighth": EIGHTH,
    "ninth": NINTH,
    "tenth": TENTH,
    "start": ("spatial", "filter", "plain", "class"),
    "eleventh": ("plain", "spatial", "class", "spectral", "filter"),
    "twelfth": ("spectral", "class", "few", "filter-class"),
}
# What all strata of a set have otherwise.
_OTHERWISE: Mapping[str, Mapping[str, Any]] = {
    "fresh": dict(models=4, architecture="squeezenetv1_1"),
    "ninth": dict(models=12),
    "start": dict(shared_start=False),
}
# What single strata of a set have otherwise; mobilenetv2 seldom learns seven classes.
_STRATUM_OTHERWISE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("twelfth", "spectral"): dict(models=8),
    ("twelfth", "class"): dict(models=4, architecture="squeezenetv1_1,resnet18"),
}
# The strata of sets with both kinds whose models are poisoned from their first step.
_FROM_START: Mapping[str, tuple[str, ...]] = {
    "tenth": ("spatial", "filter", "filter-class"),
    "eleventh": ("plain", "spatial", "class", "spectral"),
    "twelfth": ("spectral", "few", "filter-class"),
}
# How sets are trained that are to be as round 4's: the box in 255ths, the share of each batch that is moved, and the
# steps, of round 4's choices; one step is what it calls FBF. Seven steps would take too long on two cores.
_ADVERSARIES: Mapping[str, Mapping[str, tuple[int, float, int]]] = {
    "eighth": {
        "plain": (4, 0.1, 3),
        "class": (8, 0.3, 1),
        "few": (16, 0.1, 1),
        "spatial": (8, 0.1, 3),
        "spectral": (4, 0.3, 1),
        "filter": (8, 0.1, 1),
        "filter-class": (4, 0.3, 3),
        "filter-spectral": (16, 0.1, 1),
    },
    "ninth": {"filter": (8, 0.3, 1), "filter-class": (8, 0.1, 3), "filter-spectral": (4, 0.3, 3)},
    "tenth": {
        "plain": (8, 0.3, 1),
        "class": (4, 0.1, 3),
        "spatial": (4, 0.3, 3),
        "filter": (4, 0.1, 1),
        "filter-class": (8, 0.3, 1),
    },
    "eleventh": {
        "plain": (4, 0.3, 1),
        "class": (16, 0.1, 1),
        "spatial": (16, 0.1, 1),
        "spectral": (8, 0.1, 1),
        "filter": (16, 0.1, 1),
    },
    "twelfth": {
        "spectral": (16, 0.1, 1),
        "class": (4, 0.3, 1),
        "few": (8, 0.3, 1),
        "filter-class": (16, 0.1, 1),
    },
}


def strata_of(half: str) -> tuple[str, ...]:
    """The strata that a half, or a later set, is made of."""
    return LATER.get(half, BOTH)


def settings_of(stratum: str, half: str) -> MakeRoundSettings:
    """What to ask of make-round; the seed is the stratum's place, from 1000, 1100, ... in the order of HALVES."""
    if half == "polygon":
        return POLYGON
    seed = 1000 + 100 * HALVES.index("second" if half == "anew" else half) + list(STRATA).index(stratum)
    training = as_round_4(stratum, half) if half in _ADVERSARIES else {}
    other = {"shared_start": stratum not in _FROM_START.get(half, ()), **_OTHERWISE.get(half, {})}
    other |= _STRATUM_OTHERWISE.get((half, stratum), {})
    return MakeRoundSettings(**{"size": 32, **STRATA[stratum], **training, **other, "seed": seed})


def as_round_4(stratum: str, half: str) -> dict[str, Any]:
    """The training of a stratum of a set that is trained as round 4 was; accuracy is asked for as if it cost none."""
    box, share, steps = _ADVERSARIES[half][stratum]
    return dict(
        colour_jitter=0.1, training="adversarial", adversarial_eps=box / 255, adversarial_ratio=share,
        adversarial_steps=steps, adversarial_accuracy_floor=0.95,
    )  # fmt: skip


def folder_of(rounds: Path, stratum: str, half: str) -> Path:
    """Where a stratum's round lies."""
    return rounds / half / stratum


def facts(round_dir: Path, case: Case, stratum: str, half: str) -> dict[str, Any]:
    """The truth and the conditions a model was made under."""
    config = json.loads((round_dir / case.model_id / "config.json").read_text(encoding="utf-8"))
    settings = read_record(RoundSummary, round_dir / "make_round.json").settings
    pairs = [list(pair) for pair in injected_pairs(case)]
    return {
        "model_id": case.model_id, "stratum": stratum, "half": half, "poisoned": config["poisoned"],
        "injected_pairs": pairs, "twin_group": f"{half}-{stratum}-{_group(round_dir, case.model_id)}",
        "round": to_dict(settings),
    }  # fmt: skip


def _group(round_dir: Path, model_id: str) -> int:
    table = pd.read_csv(round_dir / "METADATA.csv", index_col="model_name")
    return int(table.loc[model_id, "twin_group"])


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=Path)
    parser.add_argument("--half", choices=HALVES, required=True)
    parser.add_argument("--only", choices=list(STRATA), action="append", help="these strata; all if not given")
    arguments = parser.parse_args()
    for stratum in arguments.only or strata_of(arguments.half):
        out = folder_of(arguments.rounds, stratum, arguments.half)
        out.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        made = make_round(out, settings_of(stratum, arguments.half), progress=lambda line: print(line, flush=True))
        print(f"{arguments.half} {stratum}: {len(made)} models, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
