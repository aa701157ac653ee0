"""What class distances are measured with, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..core.errors import SettingsError
from ..core.records import Field, read_record, record, to_dict
from .precision import PrecisionChoice

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

CHANNELS = 3
"""One mask covers all colour channels; the paper counts each of them, so its figures are three times the pixels."""


@record
class DistanceSettings:
    """The paper's protocol: up to 100 images, 1000 steps, success >= 0.9, smallest of three seeds."""

    images_per_class: int = Field(default=100, gt=0, le=100_000, description="images of the victim class at most")
    steps: int = Field(default=1000, gt=0, le=1_000_000, description="inversion steps at most")
    initial_cost: float = Field(default=1e-3, ge=0, le=1e12, description="weight of the mask's size at the start")
    patience: int = Field(
        default=10, gt=0, le=1_000_000, description="successes or failures in a row before the weight moves"
    )
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a trigger must reach")
    seeds: tuple[int, ...] = Field(
        default=(1024, 557540351, 157301989), max_length=1000, description="random starts; smallest counts"
    )
    stall_steps: int = Field(
        default=1000,
        gt=0,
        le=1_000_000,
        description="stop a row that has not shrunk by 1 percent in so many steps (paper: never)",
    )
    precision: PrecisionChoice = Field(
        default="fp32",
        description="auto: bf16 where that is faster, what is found checked again in fp32; "
        "compiled: also through torch.compile, with CUDA graphs on a GPU, where that is faster",
    )
    batch_images: int = Field(default=0, ge=0, le=100_000, description="images per forward pass; 0: found by itself")
    rows_per_group: int = Field(
        default=192,
        gt=0,
        le=1_000_000,
        description="rows, pairs times seeds, whose triggers are in memory together at most",
    )


FAST: Mapping[str, Any] = MappingProxyType(
    {"steps": 250, "seeds": (1024,), "stall_steps": 60, "patience": 5, "precision": "auto"}
)
"""What ``--fast`` changes; benchmarks/distance_fast.py measures what that costs."""

FAST_ERROR = "over 32 pairs of 4 small models median |ln(fast/full)| 0.260, bias +0.311, Spearman 0.871"
"""What benchmarks/distance_fast.py found, in the words of its record's summary."""

# They change how fast a measurement is, not what it measures.
_SPEED = ("batch_images", "rows_per_group")


def protocol(settings: DistanceSettings) -> dict[str, Any]:
    """The settings that two measurements must share to be compared."""
    return {name: value for name, value in to_dict(settings).items() if name not in _SPEED}


def unconverged(settings: DistanceSettings) -> str | None:
    """What to say of sizes from a search that ends earlier than the paper's; None where it does not.

    >>> unconverged(DistanceSettings(steps=250))
    'searched for at most 250 steps (paper: 1000): distances come out too large'
    """
    paper = DistanceSettings().steps
    if min(settings.steps, settings.stall_steps) >= paper:
        return None
    stall = f", or {settings.stall_steps} without progress" if settings.stall_steps < settings.steps else ""
    return f"searched for at most {settings.steps} steps{stall} (paper: {paper}): distances come out too large"


def stranger(pairs: Iterable[tuple[int, int]], classes: int) -> str | None:
    """The first pair with a class that is none, in words."""
    odd = (pair for pair in pairs if not all(0 <= label < classes for label in pair))
    return next((f"pair {victim} to {target} is not of {classes} classes" for victim, target in odd), None)


@record
class PairDistance:
    """The distance from one class to another in pixels; sizes has one entry per seed, None where it is censored."""

    victim: int
    target: int
    images: int = Field(gt=0, description="images of the victim that it was inverted on")
    sizes: tuple[float | None, ...]
    distance: float | None = Field(description="the smallest size")
    l1: float | None = Field(description="the same over all channels, as the paper counts")
    spread: float | None = Field(description="standard deviation of ln(size) over the seeds")


@record
class DistanceMatrix:
    """distances[victim][target] in pixels (the paper's figure is 3 times that: it counts every channel).

    None on the diagonal, for censored pairs, and for those that are not in ``pairs`` because they were not measured.
    """

    model_id: str
    architecture: str
    classes: int
    channels: int = Field(default=CHANNELS, gt=0, description="of the model's input")
    source_sha256: str = Field(description="of the model file")
    weights_sha256: str = Field(description="of the weights that were measured, hardened or not")
    version: str
    torch: str
    device: str
    data: str
    settings: DistanceSettings
    images: tuple[int, ...] = Field(description="images inverted on, per class")
    image_sha256: tuple[tuple[str, ...], ...] = Field(description="these images, per class, as the model saw them")
    distances: tuple[tuple[float | None, ...], ...]
    pairs: tuple[PairDistance, ...]
    censored: int
    mean: float | None
    mean_l1: float | None
    geometric_mean: float | None
    minimum: float | None
    spread: float | None = Field(description="mean over pairs of the standard deviation of ln(size) over the seeds")
    warnings: tuple[str, ...]
    seconds: float

    @property
    def damage(self) -> str | None:
        """Why this is no measurement of so many classes, which a file may be that was changed; None for a sound one."""
        if {len(self.distances), *map(len, self.distances)} != {self.classes}:
            return f"distances are no square of {self.classes} classes"
        if not len(self.images) == len(self.image_sha256) == self.classes:
            return f"images are not those of {self.classes} classes"
        return stranger(((pair.victim, pair.target) for pair in self.pairs), self.classes)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances (K, K) in pixels by [victim, target], nan where there is none; and which are censored (K, K)."""
        import numpy as np

        values = np.full((self.classes, self.classes), math.nan)
        censored = np.zeros(values.shape, dtype=bool)
        for pair in self.pairs:
            censored[pair.victim, pair.target] = pair.distance is None
            if pair.distance is not None:
                values[pair.victim, pair.target] = pair.distance
        return values, censored

    def to_frame(self) -> pd.DataFrame:
        """A row per measured pair: victim, target, distance in pixels (nan: censored), L1, images, spread."""
        import pandas as pd

        columns = ["victim", "target", "distance", "l1", "images", "spread"]
        return pd.DataFrame([{name: getattr(pair, name) for name in columns} for pair in self.pairs], columns=columns)

    def plot(self, path: str | Path | None = None) -> Figure:
        """A heat map as a matplotlib figure, which a notebook shows; with a path also written there as a PNG."""
        from .heatmap import SIZES, Panel, draw, span, write

        values, censored = self.cells()
        low, high = span([values])
        figure = draw([Panel("", "pixels", values, censored, low, high, SIZES)], plot_title([self]))
        if path is not None:
            write(figure, Path(path))
        return figure

    def __repr__(self) -> str:
        """One line."""
        mean = "none" if self.mean is None else f"{self.mean:.1f} pixels"
        return f"<DistanceMatrix {self.model_id}: {len(self.pairs)} pairs, mean {mean}, {self.censored} censored>"

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False))


def read_matrix(path: Path) -> DistanceMatrix:
    """Distances that were saved; SettingsError for a file that holds none."""
    matrix = read_record(DistanceMatrix, path)
    if matrix.damage:
        raise SettingsError(f"{path}: {matrix.damage}; measure the distances anew")
    return matrix


def plot_title(matrices: Sequence[DistanceMatrix]) -> str:
    """What a heat map of one model's distances is called, before and after hardening where there are two."""
    first = matrices[0]
    settings = first.settings
    seeds = f"{len(settings.seeds)} seed{'s' if len(settings.seeds) > 1 else ''}"
    measured = f"success >= {settings.success_bound:g}, up to {max(first.images)} images, {seeds}"
    means = " -> ".join("none" if matrix.mean is None else f"{matrix.mean:.1f}" for matrix in matrices)
    return (
        f"Class distances of {first.model_id} ({first.architecture})\nmask size of the smallest trigger in pixels, "
        f"mean {means}\n{measured}"
    )


def plot_change(before: DistanceMatrix, after: DistanceMatrix, path: Path) -> None:
    """Write before, after and their ratio side by side as a PNG; the two must be comparable."""
    from .heatmap import change_panels, draw, write

    write(draw(change_panels(before.cells(), after.cells()), plot_title([before, after])), path)
