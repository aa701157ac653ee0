"""How long rescan may take on this machine: the work that its settings ask for, times what a piece of it takes here."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional

from ..core.classifier import as_classifier, find_output
from ..core.device import default_batch, wait_for
from ..core.records import record
from ..core.subject import Preprocessing
from ..loading.networks import find_builder
from ..rounds.data_settings import DataSettings
from ..rounds.samples import augment
from ..synthesis.compose import compose_stored
from .workload import Work

_RUNS = 3
# Images that are made to see how long that takes.
_MADE = 20
_SIGN_SIDE = 100


Kind = tuple[str, int, tuple[int, int, int]]
"""Architecture, classes, and the shape (C, H, W) of the input."""


@record
class Estimate:
    """Seconds for a round: ``least`` if nothing is flagged, ``most`` if everything is, hardened and scanned again.

    making: the part of ``most`` that composing and augmenting images takes.
    """

    least: float
    most: float
    models: int
    making: float = 0.0


def seconds_per_image(architecture: str, classes: int, shape: tuple[int, int, int], device: torch.device) -> float:
    """Seconds for one image (C, H, W) through the network and back to its pixels, the best of a few runs of a batch.

    The network has random weights: how long it takes does not depend on them.
    """
    network = find_builder(architecture).settled().build(classes, shape[0])
    count = min(default_batch(device, shape[1] * shape[2]), 32)
    x = torch.rand(count, *shape, device=device, requires_grad=True)
    output = find_output(network, x.detach().cpu(), classes)
    module = as_classifier(network, output=output).to(device).requires_grad_(False)
    y = torch.zeros(count, dtype=torch.long, device=device)

    def there_and_back() -> None:
        wait_for(device)
        torch.autograd.grad(functional.cross_entropy(module(x), y), x)
        wait_for(device)

    there_and_back()
    return _best(there_and_back) / count


def seconds_per_made_image(sources: tuple[str, ...], size: int) -> float:
    """Seconds to make one of the images that a scan works on, on average over the sources.

    Composed ones are put together from signs; of all others augmented copies are made.
    """
    reading = Preprocessing(stored_size=size, size=size)
    raw = torch.randint(256, (_MADE, 3, size, size), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        sign = Path(folder) / "0.png"
        Image.new("RGBA", (_SIGN_SIDE, _SIGN_SIDE), (200, 30, 30, 255)).save(sign)
        ways: dict[str, Callable[[], object]] = {
            "composed": lambda: compose_stored([sign], per_class=_MADE, stored_size=size, generator=0)
        }
        return statistics.mean(_best(ways.get(source, lambda: augment(raw, reading, 0))) for source in sources) / _MADE


def _best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def estimate(
    kinds: Mapping[Kind, int], works: Mapping[int, Work], device: torch.device, data: DataSettings
) -> Estimate:
    """For so many models of each kind, with the work per number of classes."""
    speed: dict[tuple[str, tuple[int, int, int]], float] = {}
    making: dict[int, float] = {}
    least = most = made = 0.0
    for (architecture, classes, shape), count in kinds.items():
        size = max(shape[1:])
        if (architecture, shape) not in speed:
            speed[architecture, shape] = seconds_per_image(architecture, classes, shape, device)
        if size not in making:
            making[size] = seconds_per_made_image(data.sources, size)
        unit, per_image, task = speed[architecture, shape] * count, making[size] * count, works[classes]
        made += per_image * (task.made + task.made_to_harden)
        least += unit * task.scan + per_image * task.made
        most += unit * (2 * task.scan + task.harden + task.evidence)
    return Estimate(least=least, most=most + made, models=sum(kinds.values()), making=made)
