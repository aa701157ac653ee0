"""How far ``distance --fast`` is from the paper's protocol, on the same pairs and images.

    python benchmarks/distance_fast.py --models FOLDER --out benchmarks/results/distance_fast.json

Both measure random directed pairs of made models on images that these were neither trained nor guarded with. --fast
does not change how many images there are, so neither does --images say anything about its error; it is small because
the paper's protocol takes 3000 passes over them for every pair. Beside it stand the paper's second and first seed
against each other, which says how much of the difference is chance. A killed run goes on where it stopped.
"""

import functools
from pathlib import Path
from typing import Any

from figures import agreement
from record import Record, parser
from subjects import Model, random_pairs, round_models

from trojai_moth.core.records import to_dict
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import FAST, DistanceSettings


def main() -> None:
    """Measure every model and write the record."""
    options = parser(__doc__)
    options.add_argument("--models", type=Path, required=True, help="folder of made rounds; what is missing is made")
    options.add_argument("--architectures", nargs="+", default=["squeezenetv1_1", "resnet18"])
    options.add_argument("--pairs", type=int, nargs="+", default=[10, 6], help="pairs per model of each architecture")
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--classes", type=int, default=5)
    options.add_argument("--count", type=int, default=2, help="models per architecture")
    options.add_argument("--images", type=int, default=10, help="images per pair at most")
    chosen = options.parse_args()
    sides = {
        "full": DistanceSettings(images_per_class=chosen.images),
        "fast": DistanceSettings(**{**FAST, "images_per_class": chosen.images}),
        "fast, all seeds": DistanceSettings(
            **{**FAST, "images_per_class": chosen.images, "seeds": DistanceSettings().seeds}
        ),
    }
    record = Record("distance_fast", chosen, **{name: to_dict(settings) for name, settings in sides.items()})
    for architecture, count in zip(chosen.architectures, chosen.pairs, strict=True):
        models = round_models(
            chosen.models, architecture, chosen.size, chosen.classes, chosen.count, chosen.seed, record.device
        )
        for model in models:
            for side, settings in sides.items():
                name = f"{architecture} {model.subject.model_id} {side}"
                record.part(name, functools.partial(measured, model, settings, count, chosen))
            record.finish(**summary(record.data["parts"]))
    print(record.data["summary"]["sentence"])


def measured(model: Model, settings: DistanceSettings, count: int, chosen: Any) -> dict[str, Any]:
    """Sizes by pair and seed."""
    pairs = random_pairs(model.subject.classes, count, chosen.seed)
    matrix = measure_distances(model.subject, model.fresh, settings, "fresh images", print, pairs=pairs)
    return {
        "seconds": matrix.seconds,
        "weights_sha256": matrix.weights_sha256,
        "images": matrix.pairs[0].images,
        "pairs": [(pair.victim, pair.target) for pair in matrix.pairs],
        "sizes": [pair.sizes for pair in matrix.pairs],
        "distances": [pair.distance for pair in matrix.pairs],
    }


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """What is known of the models of which all sides are measured."""
    names = [name.removesuffix(" fast, all seeds") for name in parts if name.endswith(" fast, all seeds")]
    full, fast, more = ([parts[f"{name} {side}"] for name in names] for side in ("full", "fast", "fast, all seeds"))
    found = agreement(_distances(fast), _distances(full))
    seeds = [[sizes[seed] for part in full for sizes in part["sizes"]] for seed in (1, 0)]
    text = "not enough pairs with a trigger"
    if found["pairs"] > 1:
        text = (
            f"over {found['pairs']} pairs of {len(names)} small models median |ln(fast/full)| "
            f"{found['median_abs_ln']:.3f}, bias {found['mean_ln']:+.3f}, Spearman {found['spearman']:.3f}"
        )
    return {
        "fast_against_full": found,
        "fast_with_all_seeds_against_full": agreement(_distances(more), _distances(full)),
        "second_seed_against_first": agreement(*seeds),
        "models": len(names),
        "times_faster": _seconds(full) / _seconds(fast),
        "times_faster_with_all_seeds": _seconds(full) / _seconds(more),
        "sentence": text,
    }


def _distances(models: list[dict[str, Any]]) -> list[float | None]:
    return [distance for part in models for distance in part["distances"]]


def _seconds(models: list[dict[str, Any]]) -> float:
    return sum(part["seconds"] for part in models)


if __name__ == "__main__":
    main()
