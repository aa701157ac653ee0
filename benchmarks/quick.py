"""A short version of the benchmarks on one small network, ending in one line of figures.

    python benchmarks/quick.py --models FOLDER --out FILE

At most a quarter of an hour on two idle cores; the models are made on the first call, which takes some minutes more.
The long versions (agreement.py, timing.py, growth.py, memory.py) are what is quoted; this one shows that they hold.
"""

import time
from pathlib import Path
from typing import Any

import agreement
import growth
from contest import Meter, accuracy, ours, theirs, verdict
from figures import gain_ratio
from record import Record, parser
from reference.moth import Published
from subjects import SMALL, Model, round_models
from throughput import throughput

from trojai_moth.core.records import to_dict
from trojai_moth.hardeners.moth_settings import MothSettings

CLASSES = [5, 10, 20]


def main() -> None:
    """All parts, then the line."""
    options = parser(__doc__)
    options.add_argument("--models", type=Path, required=True, help="folder of made rounds; what is missing is made")
    options.add_argument("--architecture", default="squeezenetv1_1")
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--classes", type=int, default=5)
    options.add_argument("--pairs", type=int, default=15, help="directed pairs of each of two models")
    options.add_argument("--images", type=int, default=12, help="images per pair")
    options.add_argument("--steps", type=int, default=300, help="inversion steps of the distances and the meter")
    options.add_argument("--sgd-steps", type=int, default=35, help="training steps of the reference, warm-up included")
    options.add_argument("--cap", type=float, default=300, help="seconds after which the reference is stopped")
    options.add_argument("--growth", type=int, nargs="+", default=CLASSES, help="class counts")
    chosen = options.parse_args()
    record = Record("quick", chosen, hardener=to_dict(MothSettings()))
    models = round_models(
        chosen.models, chosen.architecture, chosen.size, chosen.classes, 2, chosen.seed, record.device
    )
    begun = time.perf_counter()
    for model in models:
        agreement.distances(record, model.subject.model_id, model, chosen)
    contest(record, models[0], chosen)
    record.part("throughput", lambda: throughput(models[0].subject, models[0].samples.train))
    chosen.gain_pairs, chosen.gain_steps, chosen.architecture = chosen.pairs, chosen.steps, SMALL
    for count in chosen.growth:
        few = {**vars(chosen), "steps": 20, "images": 8}
        record.part(
            f"growth {count}",
            lambda count=count, few=few: growth.one_count(count, type(chosen)(**few), record),
        )
    figures = summary(record.data["parts"])
    record.finish(**figures, seconds_of_this_call=time.perf_counter() - begun)
    print(line(figures))


def contest(record: Record, model: Model, chosen: Any) -> None:
    """One model hardened by both; the reference runs its steps, whatever gain it has by then."""
    meter = Meter(chosen.pairs, chosen.images, chosen.steps, chosen.seed)
    before = record.part(
        "before", lambda: {"pairs": meter.pair_list(model), "sizes": meter.sizes(model, model.subject)}
    )
    record.part("accuracy before", lambda: accuracy(model, model.subject))
    record.part("ours", lambda: ours(model, meter, MothSettings(), chosen.seed))
    settings = Published(sgd_steps=chosen.sgd_steps, cap_seconds=chosen.cap)
    record.part("reference", lambda: theirs(model, meter, settings, chosen.seed, before["sizes"], None, chosen.cap / 6))


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """Everything the line says."""
    of_agreement = agreement.summary(parts)
    rival = parts["reference"]
    grown = {name.removeprefix("growth "): part for name, part in parts.items() if name.startswith("growth ")}
    return {
        "contest": verdict(parts["before"]["sizes"], parts["ours"], rival),
        "accuracy_before": parts["accuracy before"],
        "gain_ratio": gain_ratio([(parts["ours"]["sizes"], rival["checkpoints"][-1]["sizes"])]),
        "distance": of_agreement["distance"],
        "reference_against_itself": of_agreement["reference_against_itself"],
        "throughput_share": parts["throughput"]["share"],
        "throughput_share_of_best": parts["throughput"]["share_of_best"],
        "growth": growth.summary(grown),
    }


def line(figures: dict[str, Any]) -> str:
    """One line; unknown figures are dashes."""
    race, ratio, apart = figures["contest"], figures["gain_ratio"], figures["distance"]
    itself = figures["reference_against_itself"]
    at_least = "at least " if race["time_ratio_is_lower_bound"] else ""
    return "; ".join(
        (
            f"time ratio {at_least}{number(race['time_ratio'], '.1f')}",
            f"gain ratio {number(ratio['ratio'])} (lower 95 % bound {number(ratio['lower_95'])}, "
            f"{ratio['pairs']} pairs)",
            f"median |ln d ratio| {number(apart.get('median_abs_ln'), '.3f')} ({apart['pairs']} pairs; "
            f"the reference against itself {number(itself.get('median_abs_ln'), '.3f')})",
            f"throughput {number(figures['throughput_share'], '.0%')} of the bare network",
            f"hardening grows with classes to the {number(figures['growth']['hardening_exponent'])}",
        )
    )


def number(value: float | None, form: str = ".2f") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main()
