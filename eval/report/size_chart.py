"""How the smallest triggers of a round are spread before and after hardening, as rectangles for an SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

BINS, WIDTH, HEIGHT, MARGIN = 24, 720.0, 150.0, 30.0
KINDS = ("clean", "poisoned", "unlabelled")


@dataclass(frozen=True)
class Bar:
    """A rectangle in SVG units with what it stands for."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    words: str


@dataclass(frozen=True)
class Panel:
    """One histogram: its name, bars, and the count at the top of its axis."""

    name: str
    bars: tuple[Bar, ...]
    most: int


@dataclass(frozen=True)
class SizeChart:
    """Both histograms on one logarithmic axis; ticks are (x, label). counts: the figures behind it, for a CSV."""

    panels: tuple[Panel, ...]
    ticks: tuple[tuple[float, str], ...]
    counts: pd.DataFrame


def size_chart(rows: pd.DataFrame) -> SizeChart | None:
    """From ``size_before``, ``size_after`` (pixels) and ``label``; None where no trigger was found at all."""
    sizes = {when: rows[f"size_{when}"].astype(float).clip(lower=0.1) for when in ("before", "after")}
    every = pd.concat(list(sizes.values())).dropna()
    if not len(every):
        return None
    low, high = math.log10(every.min()) - 0.02, math.log10(every.max()) + 0.02
    edges = np.logspace(low, high, BINS + 1)
    kinds = rows["label"].map({True: "poisoned", False: "clean"}).fillna("unlabelled")
    counted = {
        when: {kind: np.histogram(found[kinds == kind].dropna(), edges)[0] for kind in KINDS}
        for when, found in sizes.items()
    }
    most = max(int(np.sum(list(parts.values()), axis=0).max()) for parts in counted.values())
    panels = tuple(_panel(when, parts, edges, most) for when, parts in counted.items())
    return SizeChart(panels, _ticks(low, high), _table(counted, edges))


def _panel(when: str, counts: dict[str, np.ndarray], edges: np.ndarray, most: int) -> Panel:
    step, bars = WIDTH / BINS, []
    for position in range(BINS):
        top = HEIGHT
        for kind in KINDS:
            count = int(counts[kind][position])
            if count:
                tall = (HEIGHT - 10) * count / most
                top -= tall
                words = f"{when}: {count} {kind}, {edges[position]:.3g} to {edges[position + 1]:.3g} pixels"
                bars.append(Bar(MARGIN + position * step, top, step - 1, tall, kind, words))
    return Panel(when, tuple(bars), most)


def _ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    numbers: Sequence[float] = [m * 10.0**e for e in range(-2, 7) for m in (1, 2, 5)]
    inside = [number for number in numbers if low <= math.log10(number) <= high]
    return tuple((MARGIN + WIDTH * (math.log10(n) - low) / (high - low), f"{n:g}") for n in inside)


def _table(counted: dict[str, dict[str, np.ndarray]], edges: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "when": when,
                "from_pixels": edges[i],
                "to_pixels": edges[i + 1],
                **{k: int(v[i]) for k, v in parts.items()},
            }
            for when, parts in counted.items()
            for i in range(BINS)
        ]
    )
