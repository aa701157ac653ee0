"""``card``: class distances in a model card; ``card diff`` and ``card verify`` for those who read one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import MissingDependencyError, SettingsError
from ..core.records import from_dict
from ..triggers.distance_records import FAST, FAST_ERROR, DistanceMatrix, DistanceSettings, read_matrix
from .base import MESSAGE_OPTIONS, Group
from .console import make_console, make_table, shown_progress
from .distance import open_to_measure
from .model import given_settings, model_options
from .options import architecture_option, device_option

if TYPE_CHECKING:
    from ..core.messages import Progress
    from ..core.subject import Subject
    from ..eval.cards.card import CardRecord
    from ..rounds.model import FolderModel, On

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class _CardGroup(Group):
    """``card MODEL`` is ``card make MODEL``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((word for word in args if word not in MESSAGE_OPTIONS), "--help")
        if first not in {*self.commands, "-h", "--help"}:
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_CardGroup)
def card() -> None:
    """Write class distances into a model card: `card MODEL`; `card diff A B` and `card verify README MODEL`."""


def _require_hub() -> None:
    """MissingDependencyError before any work where the library that reads and writes cards is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise MissingDependencyError("card: needs huggingface_hub; pip install 'trojai-moth[card]'") from None


@card.command("make")
@model_options
@click.option(
    "--into", type=click.Path(dir_okay=False, path_type=Path), help="The card; README.md of MODEL if not given."
)
@click.option("--before", type=_FILE, help="Distances of the model, as `trojai-moth distance` made them.")
@click.option("--after", type=_FILE, help="Distances of the hardened model, as `distance --weights` made them.")
@click.option("--weights", type=_FILE, help="Hardened weights (.safetensors); the card is then that of this model.")
@click.option(
    "--labels",
    type=_FILE,
    help="Names of the classes: one per line, a JSON list, or a JSON object from numbers to names.  [default: those of "
    "model.json, of the images' folders, or of foregrounds/*.png]",
)
@click.option("--run", "run_dir", type=_FOLDER, help="A rescan of the model: its weights, accuracies and verdict.")
@click.option(
    "--on", type=click.Choice(["held", "train"]), default="held", show_default=True, help="As for `distance`."
)
@click.option("--surrogate", is_flag=True, help="Also the distances in a clean surrogate, trained in minutes.")
@click.option(
    "--fast", is_flag=True, help=f"Where distances have to be measured: fewer steps, one seed ({FAST_ERROR})."
)
def make_card(
    into: Path | None,
    before: Path | None,
    after: Path | None,
    weights: Path | None,
    labels: Path | None,
    run_dir: Path | None,
    surrogate: bool,
    fast: bool,
    **choices: Any,
) -> None:
    """Write the class distances of MODEL into its model card; what others wrote there stays as it is.

    Distances that are not given are measured with the settings of --before, or as `distance` would. Beside the card lie
    class_distances.json and two pictures.
    """
    _require_hub()
    weights = weights or _weights_of(run_dir, choices["model_path"])
    if after and not weights:
        raise SettingsError("--after: needs the hardened weights too; add --weights or --run")
    given = {"before": before, "after": after}
    matrices = {when: read_matrix(path) for when, path in given.items() if path}
    groups = given_settings("distance", "bounds", **choices)
    settings = _settings(matrices, fast, groups["distance"])
    from ..eval.cards.card import Origin, make_record, run_outcome
    from ..eval.cards.text import SIDE_FILE
    from ..eval.distance_bounds.bounds import BoundSettings
    from ..rounds.class_names import class_names
    from ..runs.hardened_weights import load_named_weights
    from .card_parts import accuracy_outcome, card_bounds, publish

    model, images, data = open_to_measure(settings, ("distance", "bounds"), **choices)
    subject = model.subject
    names = class_names(model.folder, subject.classes, labels, model.class_names)
    hardened = load_named_weights(weights, subject) if weights else None
    path = into or (run_dir / "cards" / subject.model_id if run_dir else _home(choices["model_path"])) / "README.md"
    with shown_progress() as progress:
        measure = _measurer(model, path, settings, images, data, choices["on"], progress)
        first = matrices.get("before") or measure("before", subject, None)
        last = (matrices.get("after") or measure("after", hardened, first)) if hardened else None
        limits = from_dict(BoundSettings, groups["bounds"], source="--set bounds")
        bounds = card_bounds(model, hardened or subject, images, first, last, limits, progress, surrogate=surrogate)
    outcome = (run_outcome(run_dir, subject.model_id) if run_dir else None) or accuracy_outcome(model, hardened)
    origin = Origin(data=model.data, on=choices["on"], seed=choices["seed"])
    made = make_record(first, last, bounds, outcome, origin, subject.shape[1:], names)
    publish(made, path, hardened or subject, images)
    for name in ("before", "after"):
        _partial(path, name).unlink(missing_ok=True)
    click.echo(
        f"{path}: {len(bounds.at_risk)} of {len(bounds.pairs)} class pairs at risk; {path.parent / SIDE_FILE} holds all"
    )


def _weights_of(run_dir: Path | None, model_path: Path) -> Path | None:
    """What a rescan kept of the model that a folder or a weights file holds."""
    name = model_path.stem if model_path.is_file() else model_path.resolve().name
    found = run_dir / "weights" / f"{name}.safetensors" if run_dir else None
    return found if found and found.exists() else None


def _home(model_path: Path) -> Path:
    """The folder of a model, in which its card lies."""
    return model_path.parent if model_path.is_file() else model_path


def _settings(matrices: dict[str, DistanceMatrix], fast: bool, given: dict[str, Any]) -> DistanceSettings:
    """Those of a measurement that was given, so that the other one can be compared with it."""
    if matrices:
        return next(iter(matrices.values())).settings
    return from_dict(DistanceSettings, {**(FAST if fast else {}), **given}, source="--set distance")


def _partial(path: Path, when: str) -> Path:
    return path.parent / f"class_distances.{when}.partial.json"


def _measurer(
    model: FolderModel, path: Path, settings: DistanceSettings, images: Any, data: str, on: On, progress: Progress
) -> Callable[[str, Subject, DistanceMatrix | None], DistanceMatrix]:
    from ..triggers.distance import measure_distances

    def measure(when: str, subject: Subject, like: DistanceMatrix | None) -> DistanceMatrix:
        pairs = [(pair.victim, pair.target) for pair in like.pairs] if like else None
        return measure_distances(
            subject, images, settings, data, progress, pairs=pairs, originals=model.originals(on),
            clean=model.of_all_classes, partial=_partial(path, when),
        )  # fmt: skip

    return measure


@card.command("diff")
@click.argument("first", metavar="A", type=_FILE)
@click.argument("second", metavar="B", type=_FILE)
def diff_cards(first: Path, second: Path) -> None:
    """Show what card B says otherwise than card A; each a README.md or its class_distances.json."""
    _require_hub()
    from ..eval.cards.check import difference, read_card

    found = difference(read_card(first), read_card(second), (str(first), str(second)))
    table = make_table("", "A", "B")
    for name, one, other in found.scalars:
        table.add_row(name, _value(one), _value(other))
    for victim, target, old, new in found.pairs:
        table.add_row(f"{victim}->{target}, pixels", _value(old), _value(new))
    console = make_console()
    console.print(table)
    changes = ", ".join(f"{name} {change.words}" for name, change in found.gain.changes)
    lines = [
        f"Change of the distances over {found.gain.pairs} pairs, with 95 % intervals: {changes or 'none'}",
        _risk("At risk in B only", found.now_at_risk),
    ]
    lines += [_risk("At risk in A only", found.no_longer_at_risk), *(f"note: {note}" for note in found.notes)]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _risk(words: str, pairs: tuple[tuple[int, int], ...]) -> str:
    return f"{words}: {', '.join(f'{victim}->{target}' for victim, target in pairs) or 'none'}"


def _value(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"


@card.command("verify")
@click.argument("path", metavar="README", type=_FILE)
@click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", type=_FILE, help="The hardened weights, where the card is that of a hardened model.")
@click.option("--pairs", default=3, show_default=True, type=click.IntRange(0), help="Random pairs to measure again.")
@click.option("--pick", type=click.IntRange(0), help="Seed of the choice of pairs; random if not given.")
@click.option(
    "--tolerance",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0),
    help="Largest |ln ratio| of two distances.",
)
@architecture_option
@device_option
def verify_card(
    path: Path, model_path: Path, weights: Path | None, pairs: int, pick: int | None, tolerance: float, device: str
) -> None:
    """Check the card's files against its hashes, and measure some random pairs again. Exit code 1: it does not hold."""
    _require_hub()
    from ..eval.cards.check import Finding, check_files, compare_pairs, read_card

    findings = check_files(path)
    if all(finding.ok for finding in findings) and pairs:
        known = read_card(path)
        again, problem = _measure_again(known, model_path, weights, pairs, pick, device)
        findings += [Finding(ok=False, text=problem)] if again is None else compare_pairs(known.last, again, tolerance)
    for finding in findings:
        click.echo(f"{'ok' if finding.ok else 'WRONG'}: {finding.text}")
    raise SystemExit(0 if all(finding.ok for finding in findings) else 1)


def _measure_again(
    known: CardRecord, model_path: Path, weights: Path | None, count: int, pick: int | None, device: str
) -> tuple[DistanceMatrix | None, str]:
    """The new measurement, or None and what stands against it."""
    import numpy as np

    from ..core.seeding import derive_seed
    from ..runs.hardened_weights import load_named_weights
    from ..triggers.distance import measure_distances
    from .card_parts import data_assignments

    settings, last = known.last.settings, known.last
    seed = pick if pick is not None else int(np.random.default_rng().integers(2**31))
    every = [(pair.victim, pair.target) for pair in last.pairs]
    chosen = [every[i] for i in np.random.default_rng(derive_seed(seed, "verify")).permutation(len(every))[:count]]
    victims = {victim for victim, _ in chosen}
    model, images, data = open_to_measure(
        settings, on=known.origin.on, model_path=model_path, data=known.origin.data.source,
        backgrounds=known.origin.data.backgrounds,
        assignments=data_assignments(known.origin.data), seed=known.origin.seed, device=device, only=lambda _: victims,
    )  # fmt: skip
    subject = load_named_weights(weights, model.subject) if weights else model.subject
    if subject.source_sha256 != last.source_sha256:
        return None, f"{model_path}: is not the model file that the card was made from"
    if known.after is not None and weights is None:
        raise SettingsError("the card is that of a hardened model; give its --weights")
    with shown_progress() as progress:
        again = measure_distances(subject, images, settings, data, progress, pairs=chosen, clean=model.of_all_classes)
    if again.weights_sha256 != last.weights_sha256:
        return None, "the weights are not those that the card was made from"
    if any(again.image_sha256[victim] != last.image_sha256[victim] for victim in victims):
        return (
            None,
            "the images cannot be made again as they were: other example images, or another trojai or torchvision",
        )
    return again, ""
