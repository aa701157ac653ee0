"""Whether the fast engine and the published algorithm find the same distances, and harden as much.

    python benchmarks/agreement.py --models FOLDER --out benchmarks/results/agreement.json

Distances: directed pairs of every model, the same images and starts for both, --steps passes (the published protocol:
1000); beside it the reference against itself with another seed, which says how much of the difference is chance. With
32 images or fewer both make one update per pass. Gains: both hardeners on every model, the reference for as many
training steps as --sgd-steps says, and all sizes by the reference's inversion on fresh images of the same pairs.
"""

from pathlib import Path
from typing import Any

from contest import Meter, accuracy, ours, theirs
from figures import agreement, gain_ratio
from record import Record, parser
from reference.inversion import Search
from reference.meter import measure
from reference.moth import Published
from subjects import Model, random_pairs, round_models

from trojai_moth.core.records import to_dict
from trojai_moth.eval.gain import size_gains
from trojai_moth.hardeners.moth_settings import MothSettings
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import DistanceSettings

ARCHITECTURES = ("squeezenetv1_1", "resnet18")
OTHER_SEED = 1


def main() -> None:
    """Measure every model and write the record."""
    options = parser(__doc__)
    options.add_argument("--models", type=Path, required=True, help="folder of made rounds; what is missing is made")
    options.add_argument("--architectures", nargs="+", default=ARCHITECTURES)
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--classes", type=int, default=5)
    options.add_argument("--count", type=int, default=2, help="models per architecture")
    options.add_argument("--pairs", type=int, default=10, help="directed pairs per model, for distances")
    options.add_argument("--images", type=int, default=30, help="images per pair")
    options.add_argument("--steps", type=int, default=1000, help="inversion steps for distances")
    options.add_argument("--gain-pairs", type=int, default=16, help="directed pairs per model, for gains")
    options.add_argument("--gain-steps", type=int, default=300, help="inversion steps for gains")
    options.add_argument("--sgd-steps", type=int, default=35, help="training steps of the reference, warm-up included")
    options.add_argument("--only", choices=("distances", "gains"), help="one half of it; the other is left out")
    chosen = options.parse_args()
    record = Record("agreement", chosen, hardener=to_dict(MothSettings()))
    for architecture in chosen.architectures if chosen.only != "gains" else ():
        models = round_models(
            chosen.models, architecture, chosen.size, chosen.classes, chosen.count, chosen.seed, record.device
        )
        for model in models:
            distances(record, f"{architecture} {model.subject.model_id}", model, chosen)
            record.finish(**summary(record.data["parts"]))
    for architecture in chosen.architectures if chosen.only != "distances" else ():
        models = round_models(
            chosen.models, architecture, chosen.size, chosen.classes, chosen.count, chosen.seed, record.device
        )
        for model in models:
            gains(record, f"{architecture} {model.subject.model_id}", model, chosen)
            record.finish(**summary(record.data["parts"]))
    print(record.data["summary"])


def distances(record: Record, name: str, model: Model, chosen: Any) -> None:
    """The same pairs by the engine, by the reference and by the reference again."""
    pairs = random_pairs(model.subject.classes, chosen.pairs, chosen.seed)
    search = Search(steps=chosen.steps, weight_gradients=False)

    def fast() -> dict[str, Any]:
        settings = DistanceSettings(steps=chosen.steps, seeds=(chosen.seed,), images_per_class=chosen.images)
        matrix = measure_distances(model.subject, model.fresh, settings, "fresh images", pairs=pairs)
        sizes = {(pair.victim, pair.target): pair.distance for pair in matrix.pairs}
        return {"seconds": matrix.seconds, "pairs": pairs, "sizes": [sizes[pair] for pair in pairs]}

    def reference(seed: int) -> dict[str, Any]:
        return {"sizes": measure(model.subject, model.fresh, pairs, search, seed, chosen.images)}

    record.part(f"{name} distance, ours", fast)
    record.part(f"{name} distance, reference", lambda: reference(chosen.seed))
    record.part(f"{name} distance, reference again", lambda: reference(chosen.seed + OTHER_SEED))


def gains(record: Record, name: str, model: Model, chosen: Any) -> None:
    """Both hardeners, measured by the reference."""
    meter = Meter(chosen.gain_pairs, chosen.images, chosen.gain_steps, chosen.seed)
    before = record.part(
        f"{name} gain, before",
        lambda: {
            "pairs": meter.pair_list(model),
            "sizes": meter.sizes(model, model.subject),
            "accuracy": accuracy(model, model.subject),
        },
    )
    record.part(f"{name} gain, ours", lambda: ours(model, meter, MothSettings(), chosen.seed))
    settings = Published(sgd_steps=chosen.sgd_steps)
    record.part(
        f"{name} gain, reference",
        lambda: theirs(model, meter, settings, chosen.seed, before["sizes"], None, float("inf")),
    )


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """All figures that follow from the parts so far."""
    measured = [name.removesuffix(" distance, reference again") for name in parts if name.endswith("reference again")]
    three = [
        [size for name in measured for size in parts[f"{name} distance, {side}"]["sizes"]]
        for side in ("ours", "reference", "reference again")
    ]
    hardened = [name.removesuffix(" gain, reference") for name in parts if name.endswith(" gain, reference")]
    sides = {name: _sides(parts, name) for name in hardened}
    drops = {
        name: {side: parts[f"{name} gain, before"]["accuracy"] - values["accuracy"] for side, values in both.items()}
        for name, both in sides.items()
    }
    gains_by_model = {
        name: {
            side: to_dict(size_gains(parts[f"{name} gain, before"]["sizes"], values["sizes"]))
            for side, values in both.items()
        }
        for name, both in sides.items()
    }
    groups = [(both["ours"]["sizes"], both["reference"]["sizes"]) for both in sides.values()]
    return {
        "distance": agreement(three[0], three[1]),
        "reference_against_itself": agreement(three[2], three[1]),
        "gain": gains_by_model,
        "gain_ratio": gain_ratio(groups),
        "accuracy_drop": drops,
        "largest_extra_drop": max((drop["ours"] - drop["reference"] for drop in drops.values()), default=None),
    }


def _sides(parts: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    return {
        "ours": parts[f"{name} gain, ours"],
        "reference": parts[f"{name} gain, reference"]["checkpoints"][-1],
    }


if __name__ == "__main__":
    main()
