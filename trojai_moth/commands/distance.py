"""``distance``: the class distances of one model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..distance import DistanceSettings, measure_distances
from ..files import write_text
from ..records import from_dict, to_json
from .model import model_options, open_model, show_progress


@click.command()
@model_options
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON here instead of to standard output."
)
def distance(out: Path | None, **choices: Any) -> None:
    """Measure the class-distance matrix of one model directory, as JSON."""
    model = open_model("distance", **choices)
    settings = from_dict(DistanceSettings, model.groups["distance"], source="--set distance")
    samples = model.samples
    matrix = measure_distances(model.opened.subject, samples.train, settings, samples.description, show_progress)
    click.echo("", err=True)
    if out:
        write_text(out, to_json(matrix))
    click.echo(f"{out}: mean {matrix.mean} pixels, {matrix.censored} pairs censored" if out else to_json(matrix))
