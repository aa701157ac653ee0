"""What triggers look like in the zoo's networks, and which rule tells the backdoored from the clean by their sizes.

    python benchmarks/zoo_triggers.py --data FOLDER --out benchmarks/results/zoo_triggers.json

FOLDER holds ``zoo`` and ``paper``. Of every network: a first look at the universal trigger of each target and at each
pair of classes, on few images, and then the smallest on more of them. The summary says what each of several rules makes
of them; all were looked at on these networks.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import Record, parser
from zoo_data import ENTRIES, Entry, open_entry
from zoo_rules import summary

from trojai_moth.core.device import prepare_process, resolve_device
from trojai_moth.core.seeding import derive_seed
from trojai_moth.core.standard_logits import standardised
from trojai_moth.core.subject import Subject
from trojai_moth.rounds.samples import Samples
from trojai_moth.triggers.inversion import InversionResult, invert, random_start
from trojai_moth.triggers.task import InversionSettings, make_task
from trojai_moth.triggers.trigger import AnyPair, stamp

# Images that a trigger is tried on that was found on others.
HELD = 300
UNIVERSAL_BOUND, PAIR_BOUND = 0.99, 0.9


def main() -> None:
    """Measure what is not there yet, print, and save."""
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, required=True, help="the folder that holds zoo and paper")
    options.add_argument("--only", nargs="*", help="names of networks; the others stay as they are in the record")
    options.add_argument("--few", type=int, default=3, help="images of a class in the first looks")
    options.add_argument("--steps", type=int, default=100, help="of the first look at universal triggers, and in full")
    options.add_argument("--pair-steps", type=int, default=60, help="of the first look at pairs")
    options.add_argument("--images", type=int, default=16, help="images of a class in full")
    chosen = options.parse_args()
    only, chosen.only = chosen.only, None
    record = Record("zoo_triggers", chosen)
    prepare_process(resolve_device(chosen.device))
    for entry in ENTRIES:
        if only is None or entry.name in only:
            record.part(entry.name, lambda entry=entry: measured(entry, chosen))
    record.finish(**summary(record.data["parts"]))
    for rule, found in record.data["summary"].items():
        print(f"{rule}: true target found {found['patches_found']}, clean flagged {found['clean_flagged']}")


def measured(entry: Entry, chosen: argparse.Namespace) -> dict[str, Any]:
    """Sizes by target, by pair as rows of victims with None on the diagonal; and the smallest in full."""
    model = open_entry(entry, chosen.data)
    subject, samples, classes = standardised(model.subject, model.samples.train), model.samples, range(model.classes)
    targets: list[AnyPair] = [(None, target) for target in classes]
    universal, pairs = (
        looked_at(subject, samples, kinds, bound, chosen, steps, keep)
        for kinds, bound, steps, keep in (
            (targets, UNIVERSAL_BOUND, chosen.steps, 2),
            ([(v, t) for v in classes for t in classes if v != t], PAIR_BOUND, chosen.pair_steps, 8),
        )
    )
    by_pair = iter(pairs["sizes"])
    return {
        "accuracy": model.accuracy,
        "clean": entry.clean,
        "patch": entry.patch,
        "targets": entry.targets,
        "universal": universal["sizes"],
        "universal_full": universal["full"],
        "pairs": [[None if victim == target else next(by_pair) for target in classes] for victim in classes],
        "pairs_full": pairs["full"],
        "seconds": {"universal": universal["seconds"], "pairs": pairs["seconds"]},
    }


def looked_at(
    subject: Subject,
    samples: Samples,
    kinds: Sequence[AnyPair],
    bound: float,
    chosen: argparse.Namespace,
    steps: int,
    keep: int,
) -> dict[str, Any]:
    """Triggers of all ``kinds`` on few images, and the ``keep`` smallest on more; no row stops before its last step."""
    started = time.perf_counter()
    few = samples.train.first_per_class(chosen.few)
    task = make_task(few.y, kinds)
    start = random_start(task, subject.shape, derive_seed(chosen.seed, "zoo"))
    settings = InversionSettings(steps=steps, success_bound=bound, stall_steps=steps)
    first = invert(subject, few.x, task, settings, start)
    found = sizes(first)
    kept = sorted(range(len(kinds)), key=lambda row: math.inf if found[row] is None else found[row])[:keep]
    more = samples.train.first_per_class(chosen.images)
    settings = InversionSettings(steps=chosen.steps, success_bound=bound, stall_steps=chosen.steps)
    full_task = make_task(more.y, [kinds[row] for row in kept])
    full = invert(subject, more.x, full_task, settings, (first.mask[kept], first.pattern[kept]))
    rows = [
        {
            "victim": kinds[row][0],
            "target": kinds[row][1],
            "size": size,
            "held_success": held_success(subject, samples, full, place),
        }
        for place, (row, size) in enumerate(zip(kept, sizes(full), strict=True))
    ]
    return {"sizes": found, "full": rows, "seconds": time.perf_counter() - started}


def held_success(subject: Subject, samples: Samples, result: InversionResult, row: int) -> float:
    """Share of at most HELD images held back that a trigger turns."""
    trigger = result.trigger(row)
    images = samples.held.x[samples.held.victims(trigger.victim, trigger.target)][:HELD]
    logits = subject.logits(stamp(images, trigger.mask, trigger.pattern))
    return float((logits.argmax(1) == trigger.target).float().mean())


def sizes(result: InversionResult) -> list[float | None]:
    """In pixels; None of triggers that never worked."""
    pairs = zip(result.size.tolist(), result.converged.tolist(), strict=True)
    return [size if works else None for size, works in pairs]


if __name__ == "__main__":
    main()
