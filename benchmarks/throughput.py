"""Images per second of the inversion beside the bare network's forward pass and input gradient.

    python benchmarks/throughput.py --out FILE [--architecture NAME] [--size PIXELS]

The bare network is given its best: the fastest of both memory layouts, several batch sizes around ours and, where the
engine uses bf16, that precision. Both are run in turns, so that what else happens to the machine happens to both.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from record import Record, parser
from subjects import prototype_model, random_pairs

from trojai_moth.device import describe_device
from trojai_moth.images import ImagePool
from trojai_moth.inversion import InversionSettings, invert, make_task, random_start
from trojai_moth.subject import Subject

REPEATS = 7


@dataclass(frozen=True)
class Way:
    """How the bare network is run."""

    batch: int
    channels_last: bool
    bf16: bool

    @property
    def layout(self) -> torch.memory_format:
        """Torch's word for it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def throughput(
    subject: Subject, images: ImagePool, *, rows: int = 12, per_row: int = 16, steps: int = 6, repeats: int = REPEATS,
    batches: tuple[int, ...] = (16, 32, 64, 128, 192),
) -> dict[str, Any]:  # fmt: skip
    """Median images per second of both, and the median over turns of ours / bare.

    Rows are repeated pairs; 192 images at once in all, which the engine may cut as it likes.
    """
    pairs = random_pairs(subject.classes, rows, 0)
    pairs = [pairs[i % len(pairs)] for i in range(rows)]
    pool = images.take(torch.cat([images.positions(c)[:per_row] for c in range(subject.classes)]))
    task = make_task(pool.y.cpu(), pairs)
    start, x = random_start(task, subject.size, 0), pool.x.to(subject.device)
    settings = InversionSettings(steps=steps, stall_steps=steps, patience=steps + 1)
    count = int((task.weight > 0).sum()) * steps

    def ours() -> None:
        invert(subject, x, task, settings, start)

    ours()  # probes, folds and warms up
    ways = [Way(batch, last, half) for batch in batches for last in (False, True) for half in _precisions(subject)]
    rates = {way: _rate(subject, bare(subject, way, way.batch), way.batch) for way in ways}
    best = max(rates, key=lambda way: rates[way])
    rival = bare(subject, best, count)
    seconds: list[tuple[float, float]] = []
    for _ in range(repeats):
        seconds.append((_time(subject, ours), _time(subject, rival)))
    return {
        "architecture": subject.architecture,
        "size": subject.size,
        "device": describe_device(subject.device),
        "images": count,
        "bare": {"batch": best.batch, "channels_last": best.channels_last, "bf16": best.bf16},
        "images_per_second": count / statistics.median(own for own, _ in seconds),
        "bare_images_per_second": count / statistics.median(other for _, other in seconds),
        "share": statistics.median(other / own for own, other in seconds),
        "shares": sorted(other / own for own, other in seconds),
    }


def bare(subject: Subject, way: Way, count: int) -> Callable[[], None]:
    """Forward and input gradient of ``count`` images in batches, with nothing around it."""
    shape = (way.batch, 3, subject.size, subject.size)
    x = torch.rand(shape, device=subject.device).contiguous(memory_format=way.layout).requires_grad_()
    y = torch.zeros(way.batch, dtype=torch.int64, device=subject.device)
    module = subject.clone().module.to(memory_format=way.layout).eval().requires_grad_(False)

    def run() -> None:
        for begin in range(0, count, way.batch):
            part = x[: min(way.batch, count - begin)]
            with torch.autocast(subject.device.type, torch.bfloat16, enabled=way.bf16):
                logits = module(part)
            torch.autograd.grad(F.cross_entropy(logits.float(), y[: len(part)]), x)

    return run


def _precisions(subject: Subject) -> tuple[bool, ...]:
    return (False,) if subject.device.type == "cpu" else (False, True)


def _rate(subject: Subject, run: Callable[[], None], count: int) -> float:
    run()
    return max(count / _time(subject, run) for _ in range(3))


def _time(subject: Subject, run: Callable[[], None]) -> float:
    _wait(subject)
    begun = time.perf_counter()
    run()
    _wait(subject)
    return time.perf_counter() - begun


def _wait(subject: Subject) -> None:
    if subject.device.type != "cpu":
        torch.accelerator.synchronize(subject.device)


def main() -> None:
    """One network, fitted to prototypes."""
    options = parser(__doc__)
    options.add_argument("--architecture", default="squeezenetv1_1")
    options.add_argument("--size", type=int, default=64)
    options.add_argument("--classes", type=int, default=5)
    chosen = options.parse_args()
    record = Record("throughput", chosen)
    model = prototype_model(chosen.architecture, chosen.classes, chosen.size, chosen.seed, record.device, epochs=1)
    found = record.part(chosen.architecture, lambda: throughput(model.subject, model.samples.train))
    record.finish(throughput_share=found["share"])
    print(record.data["summary"])


if __name__ == "__main__":
    main()
