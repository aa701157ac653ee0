"""The paper's Tables II and III on the very networks they were made on: distance, accuracy and minutes by hardener.

    python benchmarks/paper_tables.py REAL --out benchmarks/results/paper_tables.json

REAL is the folder with ``paper`` (benchmarks/paper_data.py). Hardeners get the 2000 images that no distance and no
accuracy is measured on, and keep a part of them for their guards; the authors trained on 48,000. Accuracy, distances
and PGD's accuracy are of the authors' 2000 validation images. Distances are of the same random pairs before and after.
A method on a network is a part of the record, so a killed run goes on where it stopped.
"""

import time
from pathlib import Path
from typing import Any

from paper_data import NETWORKS, authors_images, free_images, network
from record import Record, parser
from subjects import random_pairs

import trojai_moth as tm
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import to_dict
from trojai_moth.core.subject import Subject
from trojai_moth.eval.comparison import Method, methods_of
from trojai_moth.eval.gain import size_gains
from trojai_moth.eval.report import markdown
from trojai_moth.synthesis.pgd import pgd_accuracy
from trojai_moth.synthesis.settings import PgdSettings
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import DistanceSettings

HARDENERS = ("moth", "pairwise", "universal", "nc-unlearn", "nad", "uap", "pgd", "seam", "i-bau", "ft-sam")


class Judge:
    """What is measured of every network, original and hardened, in the same way."""

    def __init__(self, images: ImagePool, distance: DistanceSettings, pairs: list[tuple[int, int]], seed: int) -> None:
        self.images, self.distance, self.pairs, self.seed = images, distance, pairs, seed

    def __call__(self, subject: Subject) -> dict[str, Any]:
        """Accuracy, accuracy under PGD, and sizes in pixels in the order of the pairs; None where no trigger works."""
        matrix = measure_distances(
            subject, self.images, self.distance, "the authors' images", pairs=self.pairs, clean=self.images
        )
        every = {(pair.victim, pair.target): pair.distance for pair in matrix.pairs}
        return {
            "accuracy": subject.accuracy(self.images.x, self.images.y),
            "pgd_accuracy": pgd_accuracy(subject, self.images, PgdSettings(), self.seed),
            "sizes": [every[pair] for pair in self.pairs],
        }


def main() -> None:
    """Measure what is not there yet."""
    usual = DistanceSettings()
    options = parser(__doc__)
    options.add_argument("real", type=Path)
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    options.add_argument("--hardeners", nargs="+", default=HARDENERS)
    options.add_argument("--ablation", action="store_true", help="MOTH without each of its parts, too")
    options.add_argument("--pairs", type=int, default=90, help="random directed pairs")
    options.add_argument("--steps", type=int, default=usual.steps)
    options.add_argument("--images", type=int, default=usual.images_per_class, help="of a class at most")
    options.add_argument("--seeds", type=int, default=len(usual.seeds), help="the first of the paper's three")
    chosen = options.parse_args()
    # What is measured in one call and in several is the same record.
    networks, names, ablation = (vars(chosen).pop(name) for name in ("networks", "hardeners", "ablation"))
    distance = DistanceSettings(
        steps=chosen.steps,
        stall_steps=chosen.steps,
        images_per_class=chosen.images,
        seeds=usual.seeds[: chosen.seeds],
    )
    record = Record("paper tables", chosen, dated=True, distance=to_dict(distance))
    judge = Judge(authors_images(chosen.real), distance, random_pairs(10, chosen.pairs, chosen.seed), chosen.seed)
    free = free_images(chosen.real)
    for kind in networks:
        model = tm.wrap(
            network(chosen.real, kind), free.x, free.y, name=kind, device=str(record.device), seed=chosen.seed
        )
        record.part(f"{kind} original", lambda m=model: judge(m.subject))
        for method in methods_of(names, ablation):
            record.part(f"{kind} {method.label}", lambda m=model, way=method: hardened(m, way, judge))
        record.finish(**table(record.data["parts"]))
    print(text(record.data["summary"]))


def hardened(model: tm.Model, method: Method, judge: Judge) -> dict[str, Any]:
    """What one hardener makes of a network, and what it took."""
    started = time.perf_counter()
    done = tm.harden(model, method.hardener, settings={"without": list(method.without)} if method.without else None)
    minutes = (time.perf_counter() - started) / 60
    return {**judge(done.subject), "minutes": minutes, "settings": done.trace.settings, "stopped": done.trace.stopped}


def table(parts: dict[str, Any]) -> dict[str, Any]:
    """The changes by network and method."""
    found: dict[str, Any] = {}
    for name, part in parts.items():
        before = parts[f"{name.split()[0]} original"]
        gain = size_gains(before["sizes"], part["sizes"])
        found[name] = {
            **to_dict(gain),
            "accuracy": part["accuracy"],
            "accuracy_change": part["accuracy"] - before["accuracy"],
            "pgd_accuracy": part["pgd_accuracy"],
            "minutes": part.get("minutes"),
        }
    return found


def text(rows: dict[str, Any]) -> str:
    """The same as Markdown."""
    head = ["network, method", "mean distance", "geometric mean", "smallest", "accuracy", "PGD", "minutes"]
    return markdown.table(head, [cells(name, row) for name, row in rows.items()])


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """A line of it."""
    changes = [
        f"{row[way]['after']:.1f} ({row[way]['change']:+.0%}; {row[way]['low']:+.0%} to {row[way]['high']:+.0%})"
        if row[way] and row[way]["low"] is not None
        else ""
        for way in ("mean", "geometric", "smallest")
    ]
    minutes = "" if row["minutes"] is None else f"{row['minutes']:.1f}"
    accuracy = f"{row['accuracy']:.2%} ({100 * row['accuracy_change']:+.2f})"
    return [name, *changes, accuracy, f"{row['pgd_accuracy']:.1%}", minutes]


if __name__ == "__main__":
    main()
