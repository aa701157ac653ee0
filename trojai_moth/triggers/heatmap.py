"""Matrices over class pairs as pictures that can be read at 5 classes and at 45."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..core.files import write_atomically
from .trigger import SIZE_FLOOR

# Both are colour-blind safe: viridis is even in lightness and nowhere grey, as censored cells are; purple and orange
# differ for every kind of vision.
SIZES, RATIOS = "viridis", "PuOr"
CENSORED, UNMEASURED = "0.80", "0.89"
# Beyond so many classes numbers in the cells cannot be read.
_VALUES_UP_TO = 12
_TICKS = 23
_RATIO_SPAN = 1.25


@dataclass(frozen=True)
class Panel:
    """values (N, N), nan where there is nothing to show; state (N, N) bool says which of these are censored."""

    title: str
    unit: str
    values: np.ndarray
    censored: np.ndarray
    low: float
    high: float
    colours: str


def span(matrices: Sequence[np.ndarray]) -> tuple[float, float]:
    """The smallest and largest value of all, apart from each other and no smaller than SIZE_FLOOR."""
    found = np.concatenate([values[np.isfinite(values)] for values in matrices])
    if len(found) == 0:
        return 1.0, 10.0
    low, high = max(SIZE_FLOOR, float(found.min())), max(SIZE_FLOOR, float(found.max()))
    # A scale without length has no colours.
    return (low, high) if high > 1.02 * low else (low / 1.1, high * 1.1)


def change_panels(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> tuple[Panel, Panel, Panel]:
    """Before, after and their ratio, each given as (values, censored); sizes share a scale, ratios centre on 1."""
    (old, old_censored), (new, new_censored) = before, after
    low, high = span([old, new])
    ratio = np.maximum(new, SIZE_FLOOR) / np.maximum(old, SIZE_FLOOR)
    found = ratio[np.isfinite(ratio)]
    widest = max(_RATIO_SPAN, float(np.exp(np.abs(np.log(found)).max()))) if len(found) else _RATIO_SPAN
    return (
        Panel("before", "pixels", old, old_censored, low, high, SIZES),
        Panel("after", "pixels", new, new_censored, low, high, SIZES),
        Panel("after / before", "ratio", ratio, old_censored | new_censored, 1 / widest, widest, RATIOS),
    )


def write(figure: Figure, path: Path) -> None:
    """As a PNG."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))


def draw(panels: Sequence[Panel], title: str) -> Figure:
    """The panels side by side, with the values in the cells where there is room for them."""
    classes = len(panels[0].values)
    side = 4.2 if classes <= _VALUES_UP_TO else 5.8
    figure = Figure(figsize=(side * 1.2 * len(panels) + 0.4, side + 1.3), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(figure, axis, panel)
    figure.suptitle(title, fontsize=10)
    handles = _legend(panels)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _legend(panels: Sequence[Panel]) -> list[Patch]:
    off = ~np.eye(len(panels[0].values), dtype=bool)
    handles = []
    if any(panel.censored.any() for panel in panels):
        handles.append(Patch(facecolor=CENSORED, edgecolor="0.45", hatch="////", label="censored: no trigger found"))
    if any((np.isnan(panel.values) & ~panel.censored & off).any() for panel in panels):
        handles.append(Patch(facecolor=UNMEASURED, edgecolor="0.6", label="not measured"))
    return handles


def _draw_panel(figure: Figure, axis: Axes, panel: Panel) -> None:
    classes = len(panel.values)
    norm = LogNorm(panel.low, panel.high, clip=True)
    shown = np.ma.masked_invalid(np.maximum(panel.values, panel.low))
    image = axis.imshow(shown, norm=norm, cmap=colormaps[panel.colours], interpolation="nearest")
    hatch = "////" if classes <= _VALUES_UP_TO else "///////"
    for row, column in np.argwhere(panel.censored):  # one by one, because a picture cannot be hatched
        _fill(axis, row, column, facecolor=CENSORED, edgecolor="0.45", hatch=hatch)
    for label in range(classes):
        _fill(axis, label, label, facecolor="white")
    axis.set_facecolor(UNMEASURED)
    step = math.ceil(classes / _TICKS)
    ticks = range(0, classes, step)
    axis.set_xticks(ticks, labels=map(str, ticks))
    axis.set_yticks(ticks, labels=map(str, ticks))
    axis.tick_params(labelsize=9 if classes <= _VALUES_UP_TO else 7, length=2)
    axis.set_xlabel("target class")
    axis.set_ylabel("victim class")
    axis.set_title(panel.title, fontsize=11)
    if classes <= _VALUES_UP_TO:
        _write_values(axis, panel, norm)
    bar = figure.colorbar(image, ax=axis, shrink=0.85, pad=0.02)
    _label_bar(bar, panel)


def _fill(axis: Axes, row: int, column: int, **look: Any) -> None:
    axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, linewidth=0, **look))


def _write_values(axis: Axes, panel: Panel, norm: LogNorm) -> None:
    size = 9 if len(panel.values) <= 8 else 7
    for row, column in np.argwhere(np.isfinite(panel.values)):
        value = float(panel.values[row, column])
        red, green, blue, _ = colormaps[panel.colours](float(norm(value)))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        text = _number(value)
        axis.text(column, row, text, ha="center", va="center", fontsize=size, color="black" if light else "white")


def _number(value: float) -> str:
    """As many digits as fit and mean something.

    >>> _number(0.514), _number(2.04), _number(17.26), _number(1842.4)
    ('0.51', '2.0', '17', '1842')
    """
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _label_bar(bar: Any, panel: Panel) -> None:
    decades = math.log10(panel.high / panel.low)
    numbers = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    # Decades have too few numbers for a scale that is shorter than half of one.
    bar.locator = LogLocator(subs=numbers) if decades > 0.5 else MaxNLocator(5)
    bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
    bar.minorlocator = LogLocator(subs=())
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.update_ticks()
    bar.set_label(panel.unit)
