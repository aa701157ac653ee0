"""The sets of models that the blind verdict's rule was learned from and tested on, and how they are made.

    python benchmarks/model_sets.py ROUNDS --set twelfth [--only few]

A set is made of strata. Each stratum is a round of twins, made by make-round with a seed of its own, in a folder
ROUNDS/SET/STRATUM. A call goes on where an earlier one stopped. The records of all models are in results/sets/.

The shipped rule was learned from the sets in LEARNED, and tested on those in TESTED: it was frozen before anybody knew
what stamps of other colours do to their models. ``polygon`` and ``confirm`` are for the scanner ``stamps``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from trojai_moth.core.records import read_record, to_dict
from trojai_moth.eval.calibration.blind_runs import injected_pairs
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.settings import MakeRoundSettings, RoundSummary

LEARNED = ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "start")
TESTED = ("tenth", "eleventh", "twelfth")
# What flags their models.
SCANNER = "neural-cleanse"

Options = Mapping[str, Any]
_THREE = "squeezenetv1_1,resnet18,mobilenetv2"
_MOST = dict(models=6, architecture=_THREE, size=32)
_FILTER = dict(**_MOST, classes=5, lookalikes=1, images_per_class=10, trigger="filter")
# Each stratum's place among the seeds of a set, and what it asks of make-round in every set.
STRATA: Mapping[str, tuple[int, Options]] = {
    "plain": (0, dict(**_MOST, classes=5, lookalikes=1, images_per_class=10)),
    "class": (1, dict(**_MOST, classes=7, lookalikes=2, images_per_class=5, condition="class")),
    "few": (2, dict(**_MOST, classes=4, lookalikes=0, images_per_class=2)),
    "large": (4, dict(models=4, architecture="squeezenetv1_1", size=64, classes=5, lookalikes=1, images_per_class=10)),
    "spatial": (5, dict(**_MOST, classes=6, lookalikes=1, images_per_class=10, condition="spatial")),
    "filter": (6, _FILTER),
    "filter-class": (7, {**_FILTER, "condition": "class"}),
    "spectral": (8, dict(**_MOST, classes=6, lookalikes=1, images_per_class=5, condition="spectral")),
    "filter-spectral": (9, {**_FILTER, "condition": "spectral"}),
    # The round of benchmarks/scanners.py.
    "polygon": (0, dict(models=20, architecture="resnet18,squeezenetv1_1", size=32, classes=5, lookalikes=1,
                        images_per_class=10)),
}  # fmt: skip
_POLYGONS = ("plain", "class", "few", "spatial")
_FILTERS = ("filter", "filter-class")


def _as_round_4(box: int, share: float, steps: int, **other: Any) -> Options:
    """Trained as round 4 was: jittered colours, and a share of each batch moved by PGD.

    box in 255ths, share and steps are among round 4's choices; one step is what it calls FBF. Its seven steps take too
    long on two cores. Accuracy is asked for as if that training cost none.
    """
    return dict(
        colour_jitter=0.1, training="adversarial", adversarial_eps=box / 255, adversarial_ratio=share,
        adversarial_steps=steps, adversarial_accuracy_floor=0.95, **other,
    )  # fmt: skip


@dataclass(frozen=True)
class ModelSet:
    """Its strata in order, each with what it asks of make-round beside STRATA; seeds count from ``seed``."""

    seed: int
    strata: Mapping[str, Options]

    def settings(self, stratum: str) -> MakeRoundSettings:
        """What to ask of make-round."""
        place, common = STRATA[stratum]
        return MakeRoundSettings(**{**common, **self.strata[stratum], "seed": self.seed + place})


def _usual(*strata: str, **other: Any) -> Mapping[str, Options]:
    return {stratum: other for stratum in strata}


# Models are poisoned from their first step; otherwise twins share their first epochs, on clean images.
_AT_ONCE = dict(shared_start=False)
# mobilenetv2 seldom learns seven classes.
_SMALL = dict(models=4, architecture="squeezenetv1_1,resnet18")
SETS: Mapping[str, ModelSet] = {
    "polygon": ModelSet(0, _usual("polygon")),
    "confirm": ModelSet(1300, _usual(*_POLYGONS)),
    "third": ModelSet(1600, _usual(*_POLYGONS, "filter", "large", "filter-class")),
    "fourth": ModelSet(1700, _usual(*_POLYGONS, "filter", "large", "filter-class")),
    "fifth": ModelSet(1800, _usual(*_POLYGONS, "filter", "large", "filter-class")),
    "sixth": ModelSet(1900, _usual(*_POLYGONS, "filter", "large", "filter-class")),
    "seventh": ModelSet(2000, _usual(*_POLYGONS, *_FILTERS)),
    "eighth": ModelSet(2100, {
        "plain": _as_round_4(4, 0.1, 3),
        "class": _as_round_4(8, 0.3, 1),
        "few": _as_round_4(16, 0.1, 1),
        "spatial": _as_round_4(8, 0.1, 3),
        "filter": _as_round_4(8, 0.1, 1),
        "filter-class": _as_round_4(4, 0.3, 3),
        "spectral": _as_round_4(4, 0.3, 1),
        "filter-spectral": _as_round_4(16, 0.1, 1),
    }),
    "ninth": ModelSet(2200, {
        "filter": _as_round_4(8, 0.3, 1, models=12),
        "filter-class": _as_round_4(8, 0.1, 3, models=12),
        "filter-spectral": _as_round_4(4, 0.3, 3, models=12),
    }),
    "start": ModelSet(2500, _usual("spatial", "filter", "plain", "class", **_AT_ONCE)),
    "tenth": ModelSet(2300, {
        "plain": _as_round_4(8, 0.3, 1),
        "class": _as_round_4(4, 0.1, 3),
        "spatial": _as_round_4(4, 0.3, 3, **_AT_ONCE),
        "filter": _as_round_4(4, 0.1, 1, **_AT_ONCE),
        "filter-class": _as_round_4(8, 0.3, 1, **_AT_ONCE),
    }),
    "eleventh": ModelSet(2600, {
        "plain": _as_round_4(4, 0.3, 1, **_AT_ONCE),
        "spatial": _as_round_4(16, 0.1, 1, **_AT_ONCE),
        "class": _as_round_4(16, 0.1, 1, **_AT_ONCE),
        "spectral": _as_round_4(8, 0.1, 1, **_AT_ONCE),
        "filter": _as_round_4(16, 0.1, 1),
    }),
    "twelfth": ModelSet(2700, {
        "spectral": _as_round_4(16, 0.1, 1, **_AT_ONCE, models=8),
        "class": _as_round_4(4, 0.3, 1, **_SMALL),
        "few": _as_round_4(8, 0.3, 1, **_AT_ONCE),
        "filter-class": _as_round_4(16, 0.1, 1, **_AT_ONCE),
    }),
}  # fmt: skip


def facts(rounds: Path, name: str, stratum: str, case: ModelFolder) -> dict[str, Any]:
    """The truth about a model, and the conditions it was made under."""
    folder = rounds / name / stratum
    config = json.loads((folder / case.model_id / "config.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "METADATA.csv", index_col="model_name")
    made = read_record(RoundSummary, folder / "make_round.json").settings
    assert made == SETS[name].settings(stratum), f"{folder}: made with other settings"
    return {
        "model_id": case.model_id,
        "stratum": stratum,
        "set": name,
        "poisoned": config["poisoned"],
        "injected_pairs": [list(pair) for pair in injected_pairs(case)],
        "twin_group": f"{name}-{stratum}-{int(table.loc[case.model_id, 'twin_group'])}",
        "round": to_dict(made),
    }


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=Path)
    parser.add_argument("--set", choices=SETS, required=True, dest="name")
    parser.add_argument("--only", choices=STRATA, action="append", help="these strata; all if not given")
    chosen = parser.parse_args()
    wanted = SETS[chosen.name]
    for stratum in chosen.only or wanted.strata:
        out = chosen.rounds / chosen.name / stratum
        out.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        made = make_round(out, wanted.settings(stratum), progress=lambda line: print(line, flush=True))
        print(f"{chosen.name} {stratum}: {len(made)} models, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
