"""How hardening and measuring grow with the number of classes.

    python benchmarks/growth.py --out benchmarks/results/growth.json

Networks are fitted to random prototypes in seconds (subjects.py). Hardening is MOTH as it ships. What it did to a
sample of pairs stands beside its seconds, since it would be easy to be fast and do nothing. Distances are those of all
pairs with few steps and images: the exponent does not depend on how many, and every step of all of them is done. The
exponent is the slope of ln(seconds) over ln(classes); the number of pairs has about 2.
"""

import time
from typing import Any

from contest import accuracy
from figures import exponent
from record import Record, parser
from subjects import SMALL, Model, prototype_model, random_pairs

from trojai_moth.core.records import to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.eval.gain import size_gains
from trojai_moth.hardeners.moth import Moth
from trojai_moth.hardeners.moth_settings import MothSettings
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import DistanceSettings


def main() -> None:
    """Measure every class count and write the record."""
    options = parser(__doc__)
    options.add_argument("--classes", type=int, nargs="+", default=[5, 10, 20, 40])
    options.add_argument("--architecture", default=SMALL, help="small, or a TrojAI name")
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--images", type=int, default=8, help="images per class for distances")
    options.add_argument("--steps", type=int, default=20, help="inversion steps for distances")
    options.add_argument("--gain-pairs", type=int, default=20)
    options.add_argument("--gain-steps", type=int, default=200)
    chosen = options.parse_args()
    record = Record("growth", chosen, hardener=to_dict(MothSettings()))
    for classes in chosen.classes:
        record.part(str(classes), lambda count=classes: one_count(count, chosen, record))
        record.finish(**summary(record.data["parts"]))
    print(record.data["summary"])


def one_count(classes: int, chosen: Any, record: Record) -> dict[str, Any]:
    """Seconds of both for one class count."""
    model = prototype_model(chosen.architecture, classes, chosen.size, chosen.seed, record.device)
    gain = DistanceSettings(steps=chosen.gain_steps, seeds=(chosen.seed,), images_per_class=20)
    few = DistanceSettings(
        steps=chosen.steps, stall_steps=chosen.steps, seeds=(chosen.seed,), images_per_class=chosen.images
    )
    pairs = random_pairs(classes, chosen.gain_pairs, chosen.seed)
    before = sizes(model, model, gain, pairs)  # the engine's probes are over before a clock runs
    begun = time.perf_counter()
    hardened = Moth(MothSettings())(model.subject, model.samples, seed=derive_seed(chosen.seed, "growth"))
    seconds = time.perf_counter() - begun
    after = Model(hardened.subject, model.samples, model.fresh)
    begun = time.perf_counter()
    measure_distances(model.subject, model.fresh, few, "prototypes")
    distance_seconds = time.perf_counter() - begun
    return {
        "pairs": classes * (classes - 1),
        "hardening_seconds": seconds,
        "distance_seconds": distance_seconds,
        "rounds": len(hardened.trace.rounds),
        "stopped": hardened.trace.stopped,
        "gain": to_dict(size_gains(before, sizes(model, after, gain, pairs))),
        "accuracy": [accuracy(model, model.subject), accuracy(model, hardened.subject)],
    }


def sizes(model: Model, now: Model, settings: DistanceSettings, pairs: list[tuple[int, int]]) -> list[float | None]:
    """Of these pairs, on fresh images."""
    matrix = measure_distances(now.subject, model.fresh, settings, "prototypes", pairs=pairs)
    return [pair.distance for pair in matrix.pairs]


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """Exponents over the class counts so far."""
    counts = [float(name) for name in parts]
    return {
        "hardening_exponent": exponent(counts, [part["hardening_seconds"] for part in parts.values()]),
        "distance_exponent": exponent(counts, [part["distance_seconds"] for part in parts.values()]),
        "pairs_exponent": exponent(counts, [part["pairs"] for part in parts.values()]),
        "gain": {name: part["gain"] for name, part in parts.items()},
    }


if __name__ == "__main__":
    main()
