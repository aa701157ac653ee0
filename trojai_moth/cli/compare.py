"""``trojai-moth compare``: hardening methods side by side on one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import MothError, SettingsError
from .base import command
from .console import make_console, shown_progress
from .model import given_settings, model_options, open_model
from .options import record_fields

if TYPE_CHECKING:
    from rich.table import Table

    from ..eval.comparison import Comparison, ComparisonSettings, Method, Row
    from ..hardeners.base import Hardener
    from ..rounds.model import FolderModel

_COLUMNS = (
    *("method", "accuracy", "robust", "minutes", "px", "L1", "pairs", "mean", "geo.", "smallest"),
    *("loss", "attack", "injected"),
)


@command()
@model_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the results; an unfinished comparison goes on there.  [default: MODEL-comparison]",
)
@click.option(
    "--methods",
    metavar="NAME,NAME,...",
    help="Hardeners to compare; `trojai-moth hardeners` lists them.  [default: all that are installed]",
)
@click.option(
    "--ablation", is_flag=True, help="Add four rows: MOTH without symmetric, dynamic, warmup and scheduler in turn."
)
def compare(model_path: Path, out: Path | None, methods: str | None, ablation: bool, **choices: Any) -> None:
    """Harden one model with several methods and put what each gains and costs side by side.

    The first row is the model as it is. Distances are measured roughly by default, alike for every row; --set
    distance.steps=1000 and the like change that. Give --set hardener.NAME=VALUE for all methods that have such a
    setting, --set METHOD.NAME=VALUE for one. Poisoned example images, where there are any, are shown to no method; how
    many still get their trigger's target is printed and saved per method. The folder gets comparison.json, .csv and
    .png, and the hardened weights. Every row is saved as it comes; the same command goes on where it stopped, and tries
    again what failed.
    """
    from ..eval.comparison import legend, methods_of

    entered = methods_of(_names(methods), ablation)
    own = tuple(dict.fromkeys(method.hardener for method in entered))
    names = ("distance", "judge", "robustness", "hardener", *own)
    groups = given_settings(*names, **choices)
    model = open_model(*names, model_path=model_path, **choices)
    entrants = [(method, _hardener(method, groups, entered)) for method in entered]
    out = out or Path(f"{model.name}-comparison")
    comparison = _run(model, _settings(model, groups, choices["seed"]), out, entrants)
    console = make_console()
    console.print(comparison_table(comparison.table))
    notes = [f"{row.method} failed: {row.failure}" for row in comparison.table if row.failure is not None]
    files = ", ".join(str(out / f"comparison.{kind}") for kind in ("json", "csv", "png"))
    console.print("", *notes, legend(comparison), "", f"Results: {files}", sep="\n", markup=False, highlight=False)


def _run(
    model: FolderModel, settings: ComparisonSettings, out: Path, entrants: Sequence[tuple[Method, Hardener]]
) -> Comparison:
    from ..eval.comparison import write_chart
    from ..eval.contest import Contest
    from ..rounds.poisoned_examples import read_poisoned
    from ..runs.workers.stopping import SIGNALS, Stopping

    stopping = Stopping()
    poisoned = read_poisoned(model.folder, model.subject)
    try:
        with stopping.listening(*SIGNALS):
            with shown_progress() as shown:

                def progress(text: str) -> None:
                    stopping.check()
                    shown(text)

                contest = Contest(model.folder, model.opened, model.samples, poisoned, settings, out, progress)
                comparison = contest.run(entrants)
            stopping.check()
            write_chart(comparison, out / "comparison.png")
    except KeyboardInterrupt:
        raise MothError(f"interrupted; {out} is usable, and the same command goes on there") from None
    return comparison


def _names(methods: str | None) -> list[str]:
    """The hardeners of --methods; else all that are installed, rivals before MOTH, as in the paper."""
    from ..hardeners.registry import hardeners

    if methods is None:
        return sorted(hardeners(), key=lambda name: (name == "moth", name))
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise SettingsError(f"--methods {methods}: names no hardener; `trojai-moth hardeners` lists them")
    return names


def _settings(model: FolderModel, groups: Mapping[str, Mapping[str, Any]], seed: int) -> ComparisonSettings:
    from ..core.records import from_dict, to_dict
    from ..eval.comparison import FAST_METER, ComparisonSettings

    return from_dict(
        ComparisonSettings,
        {
            "data": to_dict(model.data),
            "judge": groups["judge"],
            "distance": {**to_dict(FAST_METER), **groups["distance"]},
            "robustness": groups["robustness"],
            "seed": seed,
        },
        source="--set",
    )


def _hardener(method: Method, groups: Mapping[str, Mapping[str, Any]], entered: tuple[Method, ...]) -> Hardener:
    """The method's hardener; a setting for all goes to those that have it, and must be one that some method has."""
    from ..hardeners.registry import hardeners, make_hardener

    known = hardeners()
    shared = groups["hardener"]
    has = {name: set(record_fields(known[name].settings_type)) for name in {m.hardener for m in entered} & set(known)}
    for key in shared:
        if not any(key in names for names in has.values()):
            raise SettingsError(f"--set hardener.{key}: none of the compared methods has a setting of this name")
    options = {key: value for key, value in shared.items() if key in has.get(method.hardener, ())}
    options |= groups[method.hardener]
    return make_hardener(method.hardener, options | ({"without": list(method.without)} if method.without else {}))


def comparison_table(rows: tuple[Row, ...]) -> Table:
    """The rows for the console; columns that no row has anything for are left out."""
    cells = [_cells(row) for row in rows]
    shown = [place for place in range(len(_COLUMNS)) if any(line[place] for line in cells)]
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for place in shown:
        table.add_column(_COLUMNS[place], justify="left" if place == 0 else "right", no_wrap=place == 0)
    for row, line in zip(rows, cells, strict=True):
        if row.failure is None:
            table.add_row(*(line[place] for place in shown))
        else:
            table.add_row(line[0], "failed", style="yellow")
    return table


def _cells(row: Row) -> list[str]:
    attack = [f"{value:.0%}" for value in (row.attack_before, row.attack_after) if value is not None]
    sizes = (row.injected_before_pixels, row.injected_after_pixels)[: len(attack)]
    injected = [_number(size) or "none" for size in sizes]  # that no trigger is found any more is worth a word
    return [
        row.method,
        _percent(row.accuracy),
        _percent(row.robustness),
        _number(row.minutes),
        _number(row.distance_pixels),
        _number(row.distance_l1, ".0f"),
        "" if row.pairs is None else f"{row.pairs}/{row.pairs_tried}",
        *("" if change is None else change.words for change in (row.mean, row.geometric, row.smallest)),
        _number(None if row.accuracy_loss is None else 100 * row.accuracy_loss, ".2f"),
        " -> ".join(attack),
        " -> ".join(injected),
    ]


def _number(value: float | None, form: str = ".1f") -> str:
    return "" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
