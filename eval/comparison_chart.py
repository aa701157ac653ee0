"""A comparison as a picture: what every method gained, beside the minutes it took."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..core.files import write_atomically
from .comparison import Comparison, Row

# Colours that stay apart for the colour-blind.
_GAIN, _MINUTES, _LOSS, _QUIET = "#0072b2", "#e69f00", "#cc79a7", "#555555"


def write_chart(comparison: Comparison, path: Path) -> None:
    """Write a PNG with a bar per method: geometric gain with its interval, minutes, and accuracy lost."""
    rows = [row for row in comparison.table[1:] if row.failure is None]
    figure = Figure(figsize=(11, 1.6 + 0.42 * max(len(rows), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    gain, minutes, loss = figure.subplots(1, 3, sharey=True, width_ratios=(5, 3, 3))
    _bars(gain, [100 * (row.geometric_gain or 0) for row in rows], _GAIN, "gain of distance, geometric mean (%)")
    _bars(minutes, [row.minutes or 0 for row in rows], _MINUTES, "minutes of hardening")
    _bars(loss, [100 * (row.accuracy_loss or 0) for row in rows], _LOSS, "accuracy lost (points)")
    for place, row in enumerate(rows):
        _gain_text(gain, place, row)
    for axes, form in ((minutes, "%.1f"), (loss, "%.2f")):
        axes.bar_label(axes.containers[0], fmt=form, padding=3, fontsize=8, color=_QUIET)  # type: ignore[arg-type]
    gain.set_yticks(range(len(rows)), [row.method for row in rows])
    gain.invert_yaxis()
    figure.suptitle(f"{comparison.model_id} ({comparison.architecture}, {comparison.classes} classes)")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))


def _bars(axes: Axes, values: list[float], colour: str, label: str) -> None:
    axes.barh(range(len(values)), values, color=colour, height=0.6)
    axes.axvline(0, color=_QUIET, linewidth=0.8)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.25)


def _gain_text(axes: Axes, place: int, row: Row) -> None:
    """The interval as a line over the bar, and the figure beyond whatever reaches furthest right."""
    if row.geometric_gain is None:
        axes.text(0, place, " no pair measured", va="center", fontsize=8, color=_QUIET)
        return
    low, high = (row.geometric_gain if end is None else end for end in (row.geometric_low, row.geometric_high))
    axes.plot([100 * low, 100 * high], [place, place], color="black", linewidth=1.2)
    axes.text(100 * max(high, 0), place, f" {row.geometric_gain:+.0%}", va="center", fontsize=8, color=_QUIET)
