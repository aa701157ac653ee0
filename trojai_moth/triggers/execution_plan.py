"""How a network is run fastest on this machine: memory layout, precision, threads, batch; found by a short probe."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import SettingsError
from ..core.files import cache_folder, publish_text, write_text
from ..core.records import Field, read_record, record, to_json
from .precision import Precision

# A way of running must beat the plain one by this factor, or noise would choose.
_CLEARLY = 1.15
_REPEATS = 3
_log = logging.getLogger(__name__)


@record
class Plan:
    """One way of running a network; results differ between plans by rounding, and by bf16's where that is chosen."""

    channels_last: bool = Field(default=False, description="store images and activations with the colours innermost")
    precision: Precision = Field(default="fp32", description="of convolutions and products; everything else is fp32")
    threads: int = Field(default=1, gt=0, le=4096, description="threads of a CPU")
    batch: int = Field(default=64, gt=0, le=1_000_000, description="images per forward pass")
    compiled: bool = Field(default=False, description="by torch.compile, and on a GPU replayed as a CUDA graph")

    def laid_out(self, images: Tensor) -> Tensor:
        """The images in the plan's memory layout."""
        return images.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def lay_out(self, module: nn.Module) -> None:
        """Store the weights of convolutions so that images in the plan's layout need no copies."""
        module.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The plan's precision inside."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")


@record
class _Shelf:
    """The file in which plans are remembered."""

    plans: dict[str, Plan] = Field(default_factory=dict)


class PlanBook:
    """Plans by network and machine, remembered on disk so that the next process runs, and rounds, the same way."""

    def __init__(self, path: Path | None) -> None:
        """A book in this file, or in memory alone; a file that cannot be read counts as empty, which is said."""
        self.path, self._plans = path, dict[str, Plan]()
        self._read()

    def get(self, key: str, probe: Callable[[], Plan]) -> Plan:
        """The plan for this key; the probe's if there is none yet.

        Of several processes that probe at the same time all take the plan of the first, else they would round in
        different ways.
        """
        if key not in self._plans:
            self._read()
        if key not in self._plans:
            self.put(key, self._of_the_first(key, probe()))
        return self._plans[key]

    def _read(self) -> None:
        """Take in what is on disk and not known yet."""
        with _usable():
            if self.path is not None:
                self._plans = {**read_record(_Shelf, self.path).plans, **self._plans}

    def _of_the_first(self, key: str, plan: Plan) -> Plan:
        """The plan that a process was the first to publish for this key; this one where none was."""
        with _usable():
            if self.path is not None:
                name = hashlib.sha256(key.encode()).hexdigest()[:32]
                first = self.path.with_suffix(".first") / f"{name}.json"
                publish_text(first, to_json(plan))
                return read_record(Plan, first)
        return plan

    def put(self, key: str, plan: Plan) -> None:
        """Remember; a place that cannot be written to costs the next process a probe and nothing else."""
        self._read()
        self._plans[key] = plan
        with suppress(OSError):
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_text(self.path, to_json(_Shelf(plans=self._plans)))


@contextmanager
def _usable() -> Iterator[None]:
    """What cannot be read or written costs a probe and nothing else; a file that holds no plans is told of."""
    try:
        yield
    except OSError:
        pass
    except SettingsError as error:
        _tell(str(error))


@cache
def _tell(text: str) -> None:
    """Once for a process, however often the file is looked into."""
    _log.warning("%s; not used, and probed anew; delete this file", text)


@cache
def default_book() -> PlanBook:
    """The user's book, in the cache folder if there is one; one for the whole process."""
    folder = cache_folder()
    return PlanBook(folder and folder / "plans.json")


def fastest(plans: Iterable[Plan], run: Callable[[Plan], None]) -> Plan:
    """The first plan, unless another beats it clearly: best of a few interleaved runs of each, after one to warm up."""
    candidates = list(plans)
    if len(candidates) == 1:
        return candidates[0]
    best = [float("inf")] * len(candidates)
    for repeat in range(_REPEATS + 1):
        for number, plan in enumerate(candidates):
            started = time.perf_counter()
            run(plan)
            if repeat:
                best[number] = min(best[number], (time.perf_counter() - started) / plan.batch)
    winner = min(range(len(candidates)), key=best.__getitem__)
    return candidates[winner if best[0] > _CLEARLY * best[winner] else 0]
