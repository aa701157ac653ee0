"""How far triggers reach that were searched on a few images: size, and success on other images of the class.

    python benchmarks/trigger_reach.py REAL --out benchmarks/results/trigger_reach.json

REAL is the folder with ``paper`` (benchmarks/paper_data.py). Triggers of random pairs of the paper's network are
searched for a few steps, as MOTH searches them, on 4 and on more images of the victim, with the mask's size weighing
little and more at the start; what they do is then asked of images of the same class that the search did not see.
"""

from pathlib import Path
from typing import Any

import torch
from paper_data import NETWORKS, free_images, network
from record import Record, parser
from subjects import random_pairs

import trojai_moth as tm
from trojai_moth.core.images import ImagePool
from trojai_moth.core.standard_logits import standardised
from trojai_moth.core.subject import Subject
from trojai_moth.triggers.inversion import invert, random_start
from trojai_moth.triggers.task import InversionSettings, make_task
from trojai_moth.triggers.trigger import stamp

_OTHERS = 60


def main() -> None:
    """One part per number of images and weight."""
    options = parser(__doc__)
    options.add_argument("real", type=Path)
    options.add_argument("--network", choices=NETWORKS, default="nat")
    options.add_argument("--pairs", type=int, default=12)
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--images", type=int, nargs="+", default=[4, 12])
    options.add_argument("--costs", type=float, nargs="+", default=[1e-3, 1e-2, 3e-2])
    chosen = options.parse_args()
    record = Record("trigger reach", chosen)
    pool = free_images(chosen.real)
    given = tm.wrap(network(chosen.real, chosen.network), pool.x, pool.y, device=str(record.device)).subject
    subject, pairs = standardised(given, pool), random_pairs(10, chosen.pairs, chosen.seed)
    for count in chosen.images:
        for cost in chosen.costs:
            settings = InversionSettings(steps=chosen.steps, stall_steps=chosen.steps, initial_cost=cost)
            record.part(
                f"{count} images, cost {cost:g}",
                lambda n=count, s=settings: reach(subject, pool, pairs, n, s, chosen.seed),
            )
    record.finish()
    for name, part in record.data["parts"].items():
        print(f"{name}: {part['size']:.1f} pixels, success {part['success']:.0%}, on other images {part['others']:.0%}")


def reach(
    subject: Subject,
    pool: ImagePool,
    pairs: list[tuple[int, int]],
    count: int,
    settings: InversionSettings,
    seed: int,
) -> dict[str, Any]:
    """Means over the pairs: size in pixels, success on the ``count`` images searched on, and on others."""
    few = pool.first_per_class(count)
    task = make_task(few.y, pairs)
    found = invert(subject, few.x, task, settings, random_start(task, subject.shape, seed))
    others = []
    for row, (victim, target) in enumerate(pairs):
        unseen = pool.x[pool.positions(victim)[count : count + _OTHERS]]
        answers = subject.logits(stamp(unseen, found.mask[row], found.pattern[row])).argmax(1)
        others.append((answers == target).float().mean())
    return {
        "size": float(found.size.mean()),
        "success": float(found.success.mean()),
        "others": float(torch.stack(others).mean()),
        "converged": int(found.converged.sum()),
    }


if __name__ == "__main__":
    main()
