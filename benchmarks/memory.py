"""Peak memory of an inversion per pair and per image, and of hardening a model of 45 classes at 64 pixels.

    python benchmarks/memory.py --out benchmarks/results/memory.json

Every figure is the largest resident set of a process of its own. Inversions differ in the number of pairs, with one
image each, or of images of one pair: few, which all are in one forward pass, or many, which are only held; the slope of
a straight line is what one more costs. Hardening is MOTH as it ships, or with --steps 2 only as long as it takes to
need all its memory; images, weights and torch itself are included.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from record import Record, parser
from subjects import prototype_images, prototype_model, random_pairs

from trojai_moth.core.device import prepare_process, resolve_device
from trojai_moth.hardeners.moth import Moth
from trojai_moth.hardeners.moth_settings import MothSettings
from trojai_moth.triggers.inversion import invert, random_start
from trojai_moth.triggers.task import InversionSettings, make_task

# Enough pairs for a full forward pass in every case, or its activations would count as the pairs'.
PAIRS = (96, 192, 380)
FORWARD, HELD = (8, 16, 32), (256, 512, 1024)
GIB = 2**30
LIMIT_GIB = 8.0


def main() -> None:
    """Start the processes and write the record; with ``--work`` be one of them."""
    options = parser(__doc__)
    options.add_argument("--architecture", default="squeezenetv1_1")
    options.add_argument("--size", type=int, default=64)
    options.add_argument("--classes", type=int, default=45, help="of the model that is hardened")
    options.add_argument("--steps", type=int, default=0, help="inversion and training steps at most (0: as it ships)")
    options.add_argument("--work", help="what the started process does; not for you")
    chosen = options.parse_args()
    if chosen.work:
        work(chosen)
        return
    record = Record("memory", chosen)
    started(chosen, "images 1")  # the engine's probe, which takes more memory than what it finds out, is over now
    for count in PAIRS:
        record.part(f"{count} pairs", lambda count=count: started(chosen, f"pairs {count}"))
    for count in (*FORWARD, *HELD):
        record.part(f"{count} images", lambda count=count: started(chosen, f"images {count}"))
    record.part("hardening", lambda: started(chosen, "harden 0"))
    record.finish(**summary(record.data["parts"]))
    print(record.data["summary"])


def started(chosen: Any, what: str) -> dict[str, Any]:
    """What a process of its own says about itself."""
    words = [
        f"--{name}={getattr(chosen, name)}" for name in ("seed", "device", "architecture", "size", "classes", "steps")
    ]
    command = [sys.executable, str(Path(__file__).resolve()), f"--work={what}", "--out=-", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def work(chosen: Any) -> None:
    """Do one thing and print the process's peak."""
    prepare_process(resolve_device(chosen.device))
    kind, count = chosen.work.split()
    found = harden(chosen) if kind == "harden" else inversion(chosen, kind, int(count))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({**found, "peak_bytes": peak}))


def inversion(chosen: Any, kind: str, count: int) -> dict[str, Any]:
    """A short inversion of so many pairs, or on so many images of one pair."""
    device, classes = resolve_device(chosen.device), 20
    per_class = 1 if kind == "pairs" else count
    model = prototype_model(chosen.architecture, classes, chosen.size, chosen.seed, device, per_class=4, epochs=0)
    images = prototype_images(classes if kind == "pairs" else 1, chosen.size, per_class, chosen.seed, 0)
    pairs = random_pairs(classes, count, chosen.seed) if kind == "pairs" else [(0, 1)]
    task = make_task(images.y, pairs)
    settings = InversionSettings(steps=2)
    invert(model.subject, images.x, task, settings, random_start(task, (3, chosen.size, chosen.size), chosen.seed))
    return {"count": count if kind == "images" else len(pairs)}


def harden(chosen: Any) -> dict[str, Any]:
    """A model of many classes."""
    model = prototype_model(
        chosen.architecture, chosen.classes, chosen.size, chosen.seed, resolve_device(chosen.device), epochs=2
    )
    few = dict.fromkeys(("first_steps", "later_steps", "warmup_steps", "sgd_steps", "rounds"), chosen.steps)
    settings = MothSettings(**few) if chosen.steps else MothSettings()
    hardened = Moth(settings)(model.subject, model.samples, seed=chosen.seed)
    return {
        "classes": chosen.classes,
        "images": len(model.samples.train) + len(model.samples.held),
        "rounds": len(hardened.trace.rounds),
        "stopped": hardened.trace.stopped,
        "settings": hardened.trace.settings,
    }


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """Slopes, and whether hardening keeps within the limit."""
    peak = parts["hardening"]["peak_bytes"] / GIB
    return {
        "bytes_per_pair": slope(parts, "pairs", PAIRS),
        "bytes_per_image_in_a_forward_pass": slope(parts, "images", FORWARD),
        "bytes_per_image_held": slope(parts, "images", HELD),
        "hardening_gib": peak,
        "limit_gib": LIMIT_GIB,
        "within_limit": peak <= LIMIT_GIB,
    }


def slope(parts: dict[str, Any], kind: str, counts: tuple[int, ...]) -> float:
    """Bytes for one more."""
    peaks = [parts[f"{count} {kind}"]["peak_bytes"] for count in counts]
    return float(np.polyfit(counts, peaks, 1)[0])


if __name__ == "__main__":
    main()
