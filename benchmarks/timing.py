"""Seconds to the same gain: MOTH as it ships against the published algorithm, on the same machine and images.

    python benchmarks/timing.py --models FOLDER --out benchmarks/results/timing.json

The gain is the geometric mean of sizes after / before, measured with the published inversion on fresh images of the
same pairs. The reference is measured at checkpoints (its clock stands still meanwhile) until it has our gain, or until
--cap seconds, when the ratio is a lower bound. Then: images per second of the inversion beside those of the bare
network.
Run it on a machine that does nothing else.
"""

from pathlib import Path
from typing import Any

import torch
from contest import Meter, accuracy, ours, theirs, verdict
from record import Record, parser
from reference.moth import Published
from subjects import Model, round_models
from throughput import throughput

from trojai_moth.core.records import to_dict
from trojai_moth.hardeners.moth_settings import MothSettings

CASES = (("squeezenetv1_1", 64), ("resnet18", 32))
ENDLESS = 1_000_000


def main() -> None:
    """Measure every case and write the record."""
    options = parser(__doc__)
    options.add_argument("--models", type=Path, required=True, help="folder of made rounds; what is missing is made")
    options.add_argument("--classes", type=int, default=5)
    options.add_argument("--count", type=int, default=2, help="models per architecture")
    options.add_argument("--pairs", type=int, default=12, help="directed pairs that gains are measured on")
    options.add_argument("--images", type=int, default=30, help="images per pair")
    options.add_argument("--steps", type=int, default=300, help="inversion steps of the meter")
    options.add_argument("--cap", type=float, default=1800, help="seconds after which the reference is stopped")
    options.add_argument("--checks", type=int, default=20, help="checkpoints of the reference up to the cap")
    chosen = options.parse_args()
    record = Record("timing", chosen, hardener=to_dict(MothSettings()))
    torch.manual_seed(chosen.seed)
    for architecture, size in CASES:
        models = round_models(
            chosen.models, architecture, size, chosen.classes, chosen.count, chosen.seed, record.device
        )
        for model in models:
            one_model(record, f"{architecture} {size} {model.subject.model_id}", model, chosen)
        name = f"{architecture} {size} throughput"
        record.part(name, lambda model=models[0]: throughput(model.subject, model.samples.train))
        record.finish(**summary(record.data["parts"]))
    print(record.data["summary"])


def one_model(record: Record, name: str, model: Model, chosen: Any) -> dict[str, Any]:
    """Before, ours, theirs and the verdict as parts of the record."""
    meter = Meter(chosen.pairs, chosen.images, chosen.steps, chosen.seed)
    before = record.part(
        f"{name} before",
        lambda: {
            "pairs": meter.pair_list(model),
            "sizes": meter.sizes(model, model.subject),
            "accuracy": accuracy(model, model.subject),
        },
    )
    mine = record.part(f"{name} ours", lambda: ours(model, meter, MothSettings(), chosen.seed))
    wanted = verdict(before["sizes"], mine, _nothing())["gain"]
    settings = Published(sgd_steps=ENDLESS, cap_seconds=chosen.cap)
    every, unfinished = chosen.cap / chosen.checks, f"{name} theirs, unfinished"

    def save(state: dict[str, Any]) -> None:
        record.data["parts"][unfinished] = state
        record.write()

    rival = record.part(
        f"{name} theirs", lambda: theirs(model, meter, settings, chosen.seed, before["sizes"], wanted, every, save)
    )
    record.data["parts"].pop(unfinished, None)
    return record.part(f"{name} verdict", lambda: verdict(before["sizes"], mine, rival))


def _nothing() -> dict[str, Any]:
    return {"seconds": 0.0, "checkpoints": [{"seconds": 0.0, "gain": None, "accuracy": None}]}


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """The ratios of all models, and the smallest."""
    verdicts = {name.removesuffix(" verdict"): part for name, part in parts.items() if name.endswith(" verdict")}
    shares = {name: part["share"] for name, part in parts.items() if name.endswith(" throughput")}
    best = {name: part["share_of_best"] for name, part in parts.items() if name.endswith(" throughput")}
    ratios = {name: part["time_ratio"] for name, part in verdicts.items()}
    return {
        "time_ratio": ratios,
        "smallest_time_ratio": min((ratio for ratio in ratios.values() if ratio is not None), default=None),
        "lower_bounds": [name for name, part in verdicts.items() if part["time_ratio_is_lower_bound"]],
        "throughput_share": shares,
        "throughput_share_of_best": best,
    }


if __name__ == "__main__":
    main()
