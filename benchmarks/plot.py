"""Charts of the committed results: benchmarks/results/*.json -> docs/benchmark-*.png.

    python benchmarks/plot.py [--results FOLDER] [--out FOLDER]

A result that is not there, or is not finished, has no chart.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from record import ROOT

OURS, THEIRS = "tab:blue", "tab:orange"


def main() -> None:
    """Draw what there is."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options.add_argument("--out", type=Path, default=ROOT / "docs")
    chosen = options.parse_args()
    for name, draw in CHARTS.items():
        file = chosen.results / f"{name}.json"
        if not file.exists():
            continue
        record = json.loads(file.read_text(encoding="utf-8"))
        figure = draw(record) if "summary" in record else None
        if figure is not None:
            figure.get_layout_engine().set(rect=(0, 0.05, 1, 0.95))  # the caption's own strip
            figure.text(0.99, 0.01, caption(record), ha="right", fontsize=6, color="grey")
            chosen.out.mkdir(parents=True, exist_ok=True)
            figure.savefig(chosen.out / f"benchmark-{name}.png", dpi=110)
            print(chosen.out / f"benchmark-{name}.png")


def caption(record: dict[str, Any]) -> str:
    """What it was measured on."""
    versions = record["versions"]
    on = f"{record['device']}, {record['cores']} cores, {record['threads']} threads"
    return f"{on}, torch {versions['torch']}, trojai-moth {versions['trojai-moth']} ({versions['commit']})"


def timing(record: dict[str, Any]) -> Figure | None:
    """Gain over seconds: a curve for the reference, a point for MOTH here; one panel per model."""
    parts = record["parts"]
    names = [name.removesuffix(" verdict") for name in parts if name.endswith(" verdict")]
    if not names:
        return None
    figure, panels = grid(len(names))
    for name, axes in zip(names, panels, strict=False):
        seen = [point for point in parts[f"{name} theirs"]["checkpoints"] if point["gain"] is not None]
        seconds, gains = [0.0, *(point["seconds"] for point in seen)], [1.0, *(point["gain"] for point in seen)]
        axes.plot(seconds, gains, "o-", color=THEIRS, markersize=3, label="as published")
        verdict = parts[f"{name} verdict"]
        if verdict["gain"] is not None:
            axes.plot([verdict["seconds"]], [verdict["gain"]], "*", color=OURS, markersize=12, label="here")
        bound = "at least " if verdict["time_ratio_is_lower_bound"] else ""
        ratio = verdict["time_ratio"]
        axes.set_title(f"{name}: no gain" if ratio is None else f"{name}: {bound}{ratio:.1f} times", fontsize=8)
        axes.set_xlabel("seconds")
        axes.set_ylabel("geometric mean gain")
        axes.legend(fontsize=7)
    return figure


def agreement(record: dict[str, Any]) -> Figure:
    """Sizes of all pairs by both inversions, beside those of the reference with two seeds."""
    figure, (left, right) = grid(2)
    parts = record["parts"]
    both = (
        ("ours", "fast engine", "distance"),
        ("reference again", "reference, other seed", "reference_against_itself"),
    )
    for axes, (side, label, key) in zip((left, right), both, strict=True):
        for name in [name for name in parts if name.endswith(" distance, reference")]:
            one, other = parts[name]["sizes"], parts[name.replace(", reference", f", {side}")]["sizes"]
            points = [(a, b) for a, b in zip(one, other, strict=True) if a and b]
            axes.plot(*zip(*points, strict=True), ".", label=name.removesuffix(" distance, reference"))
        axes.axline((1, 1), (10, 10), color="grey", linewidth=0.7)
        axes.set(xscale="log", yscale="log", xlabel="reference: pixels", ylabel=f"{label}: pixels")
        axes.set_title(f"median |ln ratio| {record['summary'][key]['median_abs_ln']:.3f}", fontsize=8)
    left.legend(fontsize=6)
    return figure


def growth(record: dict[str, Any]) -> Figure:
    """Seconds over classes."""
    figure, (axes,) = grid(1)
    counts = [int(name) for name in record["parts"]]
    for key, color in (("hardening", OURS), ("distance", THEIRS)):
        seconds = [part[f"{key}_seconds"] for part in record["parts"].values()]
        slope = record["summary"][f"{key}_exponent"]
        axes.plot(counts, seconds, "o-", color=color, label=f"{key}: exponent {slope:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="seconds", xticks=counts, xticklabels=counts)
    axes.minorticks_off()
    axes.legend(fontsize=7)
    return figure


def memory(record: dict[str, Any]) -> Figure:
    """Peak memory over pairs and over images."""
    figure, panels = grid(2)
    summary = record["summary"]
    slopes = {
        "pairs": f"{summary['bytes_per_pair'] / 1e6:.2f} MB per pair",
        "images": f"{summary['bytes_per_image_in_a_forward_pass'] / 1e6:.2f} MB per image in a forward pass",
    }
    for axes, (kind, title) in zip(panels, slopes.items(), strict=True):
        points = [(p["count"], p["peak_bytes"] / 2**30) for n, p in record["parts"].items() if n.endswith(kind)]
        axes.plot(*zip(*points, strict=True), "o-", color=OURS)
        axes.set(xlabel=kind, ylabel="peak GiB", ylim=(0, None))
        axes.set_title(title, fontsize=8)
    return figure


def grid(count: int) -> tuple[Figure, list[Axes]]:
    """Panels, two in a row."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.2), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)[:count]


CHARTS: dict[str, Callable[[dict[str, Any]], Figure | None]] = {
    "timing": timing,
    "agreement": agreement,
    "growth": growth,
    "memory": memory,
}


if __name__ == "__main__":
    main()
