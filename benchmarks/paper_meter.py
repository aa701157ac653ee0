"""Class distances of the paper's own two networks beside the authors' published matrices.

    python benchmarks/paper_meter.py REAL --out benchmarks/results/paper_meter.json
    python benchmarks/paper_meter.py REAL --pairs 8 --steps 300 --images 50 --seeds 1 --out FILE

REAL is the folder with ``paper`` (benchmarks/paper_data.py). Images and protocol are the authors' own: up to 100 images
of a class, 1000 steps, success 0.9, the smallest of three seeds. The second line is a quick look at whether a change of
the engine moved the meter. A pair is a part of the record, so a killed run goes on where it stopped; pairs are measured
in a random order, so what is there of a run that has not ended is a sample of all.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from paper_data import NETWORKS, authors_images, network, published_distances
from record import Record, parser
from scipy.stats import bootstrap
from subjects import random_order

from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import to_dict
from trojai_moth.core.subject import Subject
from trojai_moth.rounds.model import wrap
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import DistanceSettings


def main() -> None:
    """Measure what is not there yet and compare."""
    usual = DistanceSettings()
    options = parser(__doc__)
    options.add_argument("real", type=Path)
    options.add_argument("--pairs", type=int, default=90, help="random directed pairs of each network")
    options.add_argument("--steps", type=int, default=usual.steps)
    options.add_argument("--images", type=int, default=usual.images_per_class, help="of a class at most")
    options.add_argument("--seeds", type=int, default=len(usual.seeds), help="the first of the paper's three")
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    chosen = options.parse_args()
    networks = vars(chosen).pop("networks")  # measured in one call or in several is the same record
    settings = DistanceSettings(
        steps=chosen.steps,
        stall_steps=chosen.steps,
        images_per_class=chosen.images,
        seeds=usual.seeds[: chosen.seeds],
    )
    record = Record("paper meter", chosen, dated=True, distance=to_dict(settings))
    images = authors_images(chosen.real)
    pairs = random_order(10, chosen.seed)[: chosen.pairs]
    for kind in networks:
        subject = wrap(network(chosen.real, kind), images.x, images.y, name=kind, device=str(record.device)).subject
        theirs = published_distances(chosen.real, kind)
        for pair in pairs:
            name = f"{kind} {pair[0]}->{pair[1]}"
            record.part(name, lambda s=subject, p=pair, d=theirs: {**measured(s, images, p, settings), "paper": d[p]})
        record.finish(**{one: beside(record.data["parts"], one) for one in NETWORKS})
    for kind in NETWORKS:
        print(kind, record.data["summary"][kind])


def measured(subject: Subject, images: ImagePool, pair: tuple[int, int], settings: DistanceSettings) -> dict[str, Any]:
    """One pair's L1 by seed, and the smallest; a seed that found no trigger is None."""
    matrix = measure_distances(subject, images, settings, "the authors' images", pairs=[pair], clean=images)
    found = matrix.pairs[0]
    sizes = [None if size is None else matrix.channels * size for size in found.sizes]
    return {"l1": found.l1, "sizes": sizes, "images": found.images, "seconds": round(matrix.seconds, 1)}


def beside(parts: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """How far our distances of a network are from the published ones; None without two of them."""
    own = [part for name, part in parts.items() if name.startswith(f"{kind} ") and part["l1"]]
    if len(own) < 2:
        return None
    ours, theirs = (np.array([part[name] for part in own]) for name in ("l1", "paper"))
    apart = np.log(ours / theirs)
    ends = bootstrap((apart,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return {
        "pairs": len(own),
        "median_ln": float(np.median(apart)),
        "median_abs_ln": float(np.median(np.abs(apart))),
        "correlation_of_logs": float(np.corrcoef(np.log(ours), np.log(theirs))[0, 1]),
        "mean": float(ours.mean()),
        "paper_mean": float(theirs.mean()),
        "ratio_of_means": float(ours.mean() / theirs.mean()),
        "geometric_ratio_95": [math.exp(end) for end in ends],
    }


if __name__ == "__main__":
    main()
