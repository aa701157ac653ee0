"""A run as one HTML file that needs nothing else: no network, no folder beside it, no server.

Names and reasons of a round are hostile until proved otherwise. The template escapes all of them, the data for the
script is JSON in which no character can end the script, the script itself only ever sets text, and a policy in the page
lets nothing else run or load.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ... import __version__
from ...core.files import open_regular
from ...core.records import dotted, to_dict
from ..csv_text import csv_text
from ..summary import Rate
from .markdown import verdict_lines
from .run_view import BOUNDS, CANDIDATE, RunView
from .trigger_pictures import PARTS, trigger_pictures

# More pictures make a file that no browser likes; the page says how many were left out.
MOST_PICTURES = 60
_PICTURE_BYTES, _PNG = 16 << 20, b"\x89PNG\r\n\x1a\n"
_log = logging.getLogger(__name__)


def render_page(view: RunView) -> str:
    """The whole page."""
    chart = size_chart(view.rows)
    style, script = _part("report.css"), _part("report.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_part("report.html"))
    shown = dict(list(view.pictures.items())[:MOST_PICTURES])
    triggers, triggers_left_out = trigger_pictures(view.scans)
    return template.render(
        view=view,
        version=__version__,
        lines=verdict_lines(view.summary),
        settings=sorted((name, str(value)) for name, value in dotted(to_dict(view.identity)["settings"]).items()),
        rows=[_row(row) for row in view.rows.to_dict("records")],
        chart=chart,
        kinds=KINDS,
        data=_data(view, chart.counts if chart else None, shown, triggers),
        left_out=len(view.pictures) - len(shown),
        triggers_left_out=triggers_left_out,
        # Both are files of this package; everything else goes through the escaping.
        style=Markup(style),
        script=Markup(script),
        hashes={"style": _policy_hash(style), "script": _policy_hash(script)},
    )


def _part(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _policy_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _row(row: dict[Any, Any]) -> dict[str, Any]:
    """A line of the verdict table: what is shown, and what it is sorted by."""
    label = None if pd.isna(row["label"]) else "poisoned" if row["label"] else "clean"
    known = {name: None if pd.isna(value) else value for name, value in row.items()}
    return {**known, "label": label, "pair": _pair(known)}


def _pair(row: Mapping[str, Any]) -> str:
    return "" if row["pair_before"] is None else str(row["pair_before"]).replace("->", " to ")


def _data(
    view: RunView, counts: pd.DataFrame | None, pictures: Mapping[str, Path], triggers: Mapping[str, Any]
) -> dict[str, Any]:
    """What the script needs: the models' pages, and the CSV text of every figure and table."""
    protocol = pd.DataFrame(
        [
            {"row": row.name, **_counts("false_positives_cleared", row.false_positives_cleared)}
            | _counts("true_positives_lost", row.true_positives_lost)
            for row in view.protocol
        ]
    )
    return {
        "models": view.models,
        "pictures": _inlined(pictures),
        "triggers": triggers,
        "parts": PARTS,
        "candidate": CANDIDATE,
        "bounds": BOUNDS,
        "csv": {
            "results": csv_text(view.rows),
            "protocol": csv_text(protocol),
            "sizes": "" if counts is None else csv_text(counts),
        },
    }


def _counts(name: str, rate: Rate) -> dict[str, Any]:
    return {name: rate.count, f"{name}_of": rate.total, f"{name}_low": rate.low, f"{name}_high": rate.high}


def _inlined(pictures: Mapping[str, Path]) -> dict[str, str]:
    """By model id, a data URI; what is no picture of ours is left out with a warning."""
    found = {}
    for model_id, path in pictures.items():
        with open_regular(path) as file:
            content = file.read(_PICTURE_BYTES + 1)
        if content.startswith(_PNG) and len(content) <= _PICTURE_BYTES:
            found[model_id] = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        else:
            _log.warning("%s: no PNG of at most %d MiB; left out", path, _PICTURE_BYTES >> 20)
    return found


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
    sizes = {when: found.where(np.isfinite(found)) for when, found in sizes.items()}
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
