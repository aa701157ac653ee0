"""``distance``: the class distances of one model, and what became of them after hardening."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import SettingsError
from ..core.files import write_text
from ..core.records import from_dict, to_json
from ..triggers.distance_records import (
    FAST,
    FAST_ERROR,
    DistanceMatrix,
    DistanceSettings,
    plot_change,
    read_matrix,
)  # fmt: skip
from .base import command
from .console import shown_progress
from .model import given_settings, open_model
from .options import (
    architecture_option,
    data_option,
    device_option,
    images_options,
    seed_option,
    set_option,
    trust_pickle_option,
)

if TYPE_CHECKING:
    from ..core.images import ImagePool
    from ..eval.gain import DistanceChange
    from ..rounds.model import FolderModel, On
    from ..rounds.samples import ImageCounts
    from ..triggers.trigger import Pair

_log = logging.getLogger(__name__)
# Longer lists are in the JSON.
_LISTED = 12
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        device_option,
        seed_option,
        set_option,
        images_options,
        data_option,
        architecture_option,
        trust_pickle_option,
        click.option(
            "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also draw a heat map, a .png file."
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            help="Write the JSON here instead of to standard output; with --compare the folder for JSON and heat map.",
        ),
        click.option("--weights", type=_FILE, help="Measure the model with these hardened weights (.safetensors)."),
        click.option(
            "--on",
            type=click.Choice(["held", "train"]),
            default="held",
            show_default=True,
            help="Images to invert on: those that `harden` holds back from training, or those that it trains on.",
        ),
        click.option("--pairs", metavar="V->T,...|NUMBER", help="Only these directed pairs, or so many random ones."),
        click.option("--fast", is_flag=True, help=f"Fewer steps and one seed: {FAST_ERROR}."),
        click.option(
            "--compare", type=_FILE, nargs=2, metavar="BEFORE AFTER", help="Compare two measurements instead."
        ),
        click.argument(
            "model_path", metavar="[MODEL]", type=click.Path(exists=True, path_type=Path), required=False, default=None
        ),
    ):
        command = option(command)
    return command


@command()
@_options
def distance(compare: tuple[Path, Path] | None, out: Path | None, plot: Path | None, **choices: Any) -> None:
    """Measure the class-distance matrix of one model, as JSON, or compare two such files.

    With --out an interrupted measurement is taken up where it stopped by the same command.
    """
    if plot and plot.suffix != ".png":
        raise SettingsError(f"--plot {plot}: must end in .png")
    if compare:
        for name in ("model_path", "pairs", "fast", "weights"):
            if choices[name]:
                raise SettingsError(f"--compare: takes two finished measurements and nothing to measure ({name})")
        _compare(compare, out, plot)
    elif choices["model_path"] is None:
        raise SettingsError("distance: give a model to measure, or --compare with two measurements")
    else:
        _measure(out, plot, **choices)


def _measure(out: Path | None, plot: Path | None, fast: bool, pairs: str | None, **choices: Any) -> None:
    given = given_settings("distance", **choices)["distance"]
    settings = from_dict(DistanceSettings, {**(FAST if fast else {}), **given}, source="--set distance")
    if out and out.is_dir():
        raise SettingsError(f"--out {out}: is a folder; name the JSON file")
    from ..runs.hardened_weights import load_named_weights
    from ..triggers.distance import choose_pairs, measure_distances

    partial = out.with_suffix(".partial.json") if out else None
    weights = choices.pop("weights")
    chosen: list[Pair] = []
    lacking: list[str] = []

    def victims(counts: ImageCounts) -> set[int]:
        """Images of other classes than these are not needed, and with a thousand classes would not fit."""
        chosen.extend(choose_pairs(counts.of(choices["on"]), pairs, choices["seed"]))
        lacking.extend(counts.lacking(choices["on"]))
        return {victim for victim, _ in chosen}

    model, images, data = open_to_measure(settings, only=victims, **choices)
    subject = load_named_weights(weights, model.subject) if weights else model.subject
    with shown_progress() as progress:
        matrix = measure_distances(
            subject,
            images,
            settings,
            data,
            progress,
            pairs=chosen,
            originals=model.originals(choices["on"]),
            lacking=lacking,
            clean=model.of_all_classes,
            partial=partial,
        )
    if out and partial:
        write_text(out, to_json(matrix))
        partial.unlink(missing_ok=True)
    _show(matrix, out, model.class_names, [*([f"--fast: {FAST_ERROR}"] if fast else []), *matrix.warnings])
    if plot:
        matrix.plot(plot)


def open_to_measure(
    settings: DistanceSettings, names: tuple[str, ...] = ("distance",), *, on: On, **choices: Any
) -> tuple[FolderModel, ImagePool, str]:
    """The model, the images that its distances are measured on, and what these are in words; ``on``: held or train."""
    if on == "held":  # as many as are wanted, and of the others none that have to be made
        wanted = (f"data.held_per_class={settings.images_per_class}", "data.train_per_class=1")
        choices["assignments"] = (*wanted, *choices["assignments"])
    model = open_model(*names, **choices)
    return model, model.images_to_measure(on), model.measured_words(on)


def _show(matrix: DistanceMatrix, out: Path | None, names: Sequence[str] | None, notes: list[str]) -> None:
    click.echo(f"{out}: {_summary(matrix, names)}" if out else to_json(matrix))
    for note in notes:
        _log.warning("%s", note)


def _summary(matrix: DistanceMatrix, names: Sequence[str] | None) -> str:
    from ..triggers.trigger import pair_words

    text = ", ".join(
        f"{name} {_pixels(value, matrix.channels)}"
        for name, value in (("mean", matrix.mean), ("geometric mean", matrix.geometric_mean))
    )
    found = [pair for pair in matrix.pairs if pair.distance is not None]
    if found:
        least = min(found, key=lambda pair: pair.distance or 0.0)
        pair = pair_words(least.victim, least.target, names)
        text += f", smallest {pair} {_pixels(least.distance, matrix.channels)}"
    if matrix.spread is not None:
        text += f", spread over seeds {matrix.spread:.3f}"
    text += f"; {matrix.censored} of {len(matrix.pairs)} pairs censored"
    none = [f"{pair.victim}->{pair.target}" for pair in matrix.pairs if pair.distance is None]
    if none:
        text += f" ({', '.join(none[:_LISTED])}{', ...' if len(none) > _LISTED else ''})"
    return text


def _pixels(size: float | None, channels: int) -> str:
    return "none" if size is None else f"{size:.1f} pixels (L1 {channels * size:.1f})"


def _compare(files: tuple[Path, Path], out: Path | None, plot: Path | None) -> None:
    if out and out.is_file():
        raise SettingsError(f"--out {out}: is a file; with --compare it is the folder for JSON and heat map")
    from ..eval.gain import compare_distances

    before, after = (read_matrix(file) for file in files)
    change = compare_distances(before, after, names=(str(files[0]), str(files[1])))
    for line in _change_text(change, before.channels):
        click.echo(line)
    if out:
        write_text(out / "comparison.json", to_json(change))
    for picture in filter(None, (plot, out and out / "comparison.png")):
        plot_change(before, after, picture)


def _change_text(change: DistanceChange, channels: int) -> list[str]:
    gain = change.gain
    lines = [f"{change.model_id}: {gain.pairs} pairs with a distance before and after; 95 % intervals over pairs"]
    for name, figure in gain.changes:
        sizes = f"{_pixels(figure.before, channels)} -> {_pixels(figure.after, channels)}"
        lines.append(f"{name} distance: {figure.words}, {sizes}")
    if gain.pairs:
        lines.append(f"pairs that shrank: {gain.shrunk}")
    lines.append(f"censored: {gain.censored_before} before, {gain.censored_after} after; in none of these figures")
    lines.append("smallest before:")
    for pair in change.smallest_pairs:
        sizes = " -> ".join("censored" if size is None else f"{size:.1f}" for size in (pair.before, pair.after))
        lines.append(f"  {pair.victim}->{pair.target}: {sizes} pixels")
    return [*lines, *(f"note: {note}" for note in change.notes)]
