"""``bounds``: what limits the class distances of one model from outside, and which pairs stay at risk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.files import write_text
from .base import command
from .console import make_console, make_table, shown_progress
from .model import given_settings, model_options, open_model

if TYPE_CHECKING:
    from rich.table import Table

    from ..core.messages import Progress
    from ..eval.distance_bounds.bounds import BoundSettings, ClassBounds, PairBounds
    from ..rounds.model import FolderModel

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# The rest is in the JSON.
_LISTED = 20


def distance_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Finished measurements, hardened weights and the surrogate, which ``bounds`` and ``card`` share."""
    for option in (
        click.option("--surrogate", is_flag=True, help="Also the distances in a clean surrogate, trained in minutes."),
        click.option("--weights", type=_FILE, help="The hardened weights (.safetensors) that --after was measured on."),
        click.option("--after", type=_FILE, help="Distances of the hardened model, as `distance --weights` made them."),
    ):
        command = option(command)
    return command


@command()
@model_options
@distance_options
@click.option(
    "--before", type=_FILE, required=True, help="Distances of the model, as `trojai-moth distance` made them."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write everything here, a .json file.")
def bounds(
    before: Path, after: Path | None, weights: Path | None, surrogate: bool, out: Path | None, **choices: Any
) -> None:
    """Set the class distances of MODEL beside what real images and the likeness of the classes allow."""
    groups = given_settings("bounds", **choices)
    from ..core.records import from_dict, to_json
    from ..eval.distance_bounds.bounds import BoundSettings

    model = open_model("bounds", **choices)
    settings = from_dict(BoundSettings, groups["bounds"], source="--set bounds")
    with shown_progress() as progress:
        found = bounds_of(model, before, after, weights, settings, progress, surrogate=surrogate)
    if out:
        write_text(out, to_json(found))
    console = make_console()
    console.print(bounds_table(found, model.class_names))
    for line in bounds_text(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def bounds_of(
    model: FolderModel,
    before: Path,
    after: Path | None,
    weights: Path | None,
    settings: BoundSettings,
    progress: Progress,
    *,
    surrogate: bool,
) -> ClassBounds:
    """The bounds of an opened model from finished measurements."""
    from ..core.seeding import derive_seed
    from ..eval.distance_bounds.measures import measure_bounds
    from ..runs.hardened_weights import load_named_weights
    from ..triggers.distance_records import read_matrix

    matrices = [read_matrix(path) if path else None for path in (before, after)]
    assert matrices[0] is not None
    subject = load_named_weights(weights, model.subject) if weights else model.subject
    return measure_bounds(
        subject,
        model.samples,
        matrices[0],
        matrices[1],
        settings,
        seed=derive_seed(model.seed, "bounds"),
        foregrounds=model.signs,
        backgrounds=Path(model.data.backgrounds) if model.data.backgrounds else None,
        surrogate=surrogate,
        progress=progress,
    )


def bounds_table(found: ClassBounds, names: Sequence[str] | None = None) -> Table:
    """The pairs with the smallest distances, sizes in pixels; names: of the classes."""
    from ..triggers.trigger import pair_words

    columns = ("pair", "before", "after", "pasted", "sign", "surrogate", "similarity", "leakage", "at risk")
    table = make_table(*columns, right=True)
    for pair in found.pairs[:_LISTED]:
        sizes = (_pixels(pair, name) for name in ("before", "after", "pasted", "sign_pixels", "surrogate"))
        shares = (_share(pair, name) for name in ("similarity", "leakage"))
        table.add_row(pair_words(pair.victim, pair.target, names), *sizes, *shares, "at risk" if pair.at_risk else "")
    return table


def bounds_text(found: ClassBounds) -> list[str]:
    """What the table means."""
    hidden = len(found.pairs) - _LISTED
    return [
        *([f"... and {hidden} pairs more; --out writes all."] if hidden > 0 else []),
        f"At risk: {len(found.at_risk)} of {len(found.pairs)} pairs, whose last distance is below the "
        f"{found.risk_bound:.1f} pixels that the scanner takes for injected.",
        "Every size is the smallest that was found, so the true one may be smaller: see definitions in the JSON.",
        *(f"note: {note}" for note in found.notes),
    ]


def _pixels(pair: PairBounds, name: str) -> str:
    value = getattr(pair, name)
    return "-" if value is None else f"{value:.1f}"


def _share(pair: PairBounds, name: str) -> str:
    value = getattr(pair, name)
    return "-" if value is None else f"{value:.2f}"
