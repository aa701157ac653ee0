"""Images per second of the inversion beside the bare network's forward pass and input gradient.

    python benchmarks/throughput.py --out FILE [--architecture NAME] [--size PIXELS]

The bare network is run in the way that the inversion was seen to run it (batch, memory layout, precision, threads), and
in the fastest of several ways. All are run in turns, so that what else happens to the machine happens to all.
"""

import collections
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from record import Record, parser
from subjects import prototype_model, random_pairs
from torch import Tensor, nn

from trojai_moth.core.device import describe_device
from trojai_moth.core.images import ImagePool
from trojai_moth.core.subject import Subject
from trojai_moth.triggers.inversion import invert, random_start
from trojai_moth.triggers.precision import PrecisionChoice
from trojai_moth.triggers.task import InversionSettings, make_task

REPEATS = 7


@dataclass(frozen=True)
class Way:
    """How a network is run."""

    batch: int
    channels_last: bool
    bf16: bool
    threads: int

    @property
    def layout(self) -> torch.memory_format:
        """Torch's word for it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


class Spy(nn.Module):
    """Notes how it is run, in copies of itself too."""

    def __init__(self, module: nn.Module, seen: list[Way]) -> None:
        super().__init__()
        self.module, self.seen = module, seen

    def forward(self, x: Tensor) -> Tensor:
        """Hand on."""
        if isinstance(x, Tensor):  # not when it is only traced
            last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
            self.seen.append(Way(len(x), last, torch.is_autocast_enabled(x.device.type), torch.get_num_threads()))
        return self.module(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Spy":
        return Spy(copy.deepcopy(self.module, memo), self.seen)


def throughput(
    subject: Subject, images: ImagePool, *, rows: int = 12, per_row: int = 16, steps: int = 6, repeats: int = REPEATS,
    batches: tuple[int, ...] = (16, 32, 64, 128, 192), precision: PrecisionChoice = "fp32",
) -> dict[str, Any]:  # fmt: skip
    """Median images per second of all, and the medians over turns of ours / bare.

    Rows are repeated pairs; by default 192 images at once in all, which the engine may cut as it likes.
    """
    pairs = random_pairs(subject.classes, rows, 0)
    pairs = [pairs[i % len(pairs)] for i in range(rows)]
    pool = images.take(torch.cat([images.positions(c)[:per_row] for c in range(subject.classes)]))
    task = make_task(pool.y.cpu(), pairs)
    start, x = random_start(task, subject.shape, 0), pool.x.to(subject.device)
    settings = InversionSettings(steps=steps, stall_steps=steps, patience=steps + 1, precision=precision)
    count = int((task.weight > 0).sum()) * steps
    seen: list[Way] = []
    invert(subject, x, task, settings, start)  # probes, which are not to be spied on, and warms up
    invert(replace(subject, module=Spy(subject.module, seen)), x, task, settings, start)
    own = collections.Counter(seen).most_common(1)[0][0]
    best = fastest_way(subject, {replace(own, batch=batch) for batch in batches} | {own})
    runs = {
        "ours": lambda: invert(subject, x, task, settings, start),
        "bare": bare(subject, own, count),
        "best": bare(subject, best, count),
    }
    turns = [{name: _time(subject, run) for name, run in runs.items()} for _ in range(repeats)]
    return {
        "architecture": subject.architecture,
        "size": subject.size,
        "device": describe_device(subject.device),
        "images": count,
        "own_way": asdict(own),
        "best_way": asdict(best),
        "images_per_second": {name: count / statistics.median(turn[name] for turn in turns) for name in runs},
        "share": statistics.median(turn["bare"] / turn["ours"] for turn in turns),
        "share_of_best": statistics.median(turn["best"] / turn["ours"] for turn in turns),
        "turns": turns,
    }


def fastest_way(subject: Subject, ways: set[Way]) -> Way:
    """The fastest of these, in both memory layouts."""
    both = sorted(
        {replace(way, channels_last=last) for way in ways for last in (False, True)}, key=lambda way: str(asdict(way))
    )
    rates = {way: _rate(subject, bare(subject, way, way.batch), way.batch) for way in both}
    return max(both, key=lambda way: rates[way])


def bare(subject: Subject, way: Way, count: int) -> Callable[[], None]:
    """Forward and input gradient of ``count`` images in batches, with nothing around it."""
    shape = (way.batch, *subject.shape)
    x = torch.rand(shape, device=subject.device).contiguous(memory_format=way.layout).requires_grad_()
    y = torch.zeros(way.batch, dtype=torch.int64, device=subject.device)
    module = subject.clone().module.to(memory_format=way.layout).eval().requires_grad_(False)

    def run() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(way.threads)
        for begin in range(0, count, way.batch):
            part = x[: min(way.batch, count - begin)]
            with torch.autocast(subject.device.type, torch.bfloat16, enabled=way.bf16):
                logits = module(part)
            torch.autograd.grad(F.cross_entropy(logits.float(), y[: len(part)]), x)
        torch.set_num_threads(before)

    return run


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
    record.finish(throughput_share=found["share"], throughput_share_of_best=found["share_of_best"])
    print(record.data["summary"])


if __name__ == "__main__":
    main()
