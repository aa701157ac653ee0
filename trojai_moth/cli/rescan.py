"""``trojai-moth rescan``: the main job."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import MothError
from .base import command
from .console import make_console
from .options import (
    allow_fitted_option,
    calibration_option,
    fleet_of,
    fleet_options,
    hardener_budget_option,
    left_to_round,
    model_budget_option,
    parse_assignments,
    round_data_option,
    scanner_budget_option,
    settings_so_far,
    shared_options,
    subset_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..eval.rescan import RescanResult


@command()
@click.argument("round_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Run directory; an unfinished one goes on.",
)
@click.option(
    "--harden",
    type=click.Choice(["flagged", "clean-only", "all"]),
    default="flagged",
    show_default=True,
    help="Which models to harden. clean-only is the paper's protocol and needs the round's labels.",
)
@click.option(
    "--verdict",
    type=click.Choice(["blind", "naive"]),
    show_default="blind; naive with --harden clean-only",
    help="blind: by evidence. Patches of one colour are tried on the model and on clean networks of the same classes, "
    "to tell natural triggers from injected ones. naive: cleared when the second scan is clean, as in the "
    "paper.",
)
@click.option(
    "--rule",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `trojai-moth calibrate-rule` learned, for --verdict blind. Without it the package's own rule decides "
    "where scanner, images and evidence settings are those it was learned with, else fixed bounds.",
)
@click.option("--labels/--no-labels", default=True, help="Join the round's labels to the results, where it has any.")
@subset_option
@scanner_budget_option
@hardener_budget_option
@model_budget_option
@fleet_options
@calibration_option
@allow_fitted_option
@partial(shared_options, data=round_data_option)
def rescan(
    round_dir: Path,
    out: Path,
    labels: bool,
    device: str,
    calibration: Path | None,
    allow_fitted: bool,
    rule: Path | None,
    subset: str | None,
    **choices: Any,
) -> None:
    """Scan every model of ROUND_DIR, harden the flagged ones with MOTH, and scan those again.

    A flagged model is cleared, kept, or not judged, which leaves it flagged. Writes results.csv, summary.json,
    report.md, the journal and the hardened weights to the run directory. Exit code 0: every model was judged and none
    is flagged in the end. Exit code 1: one is flagged. Exit code 2: error, or none is flagged but one was not judged.
    """
    fleet, leases, budget = fleet_of(choices)
    settings = settings_of(choices)
    from ..eval.rescan import rescan as run_rescan
    from .display import run_progress

    try:
        with run_progress() as progress:
            result = run_rescan(
                round_dir, out, subset=subset, calibration=calibration, rule=rule, allow_fitted=allow_fitted,
                labels=labels, fleet=fleet, leases=leases, round_budget=budget, device=device, progress=progress,
                handle_signals=True, **settings,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise MothError(f"interrupted; {out} is usable, and the same command goes on there") from None
    console = make_console()
    if fleet.shard.of > 1:
        console.print(f"Shard {fleet.shard.index} of {fleet.shard.of}; the files hold the whole run.", markup=False)
    _show(console, result)
    console.print(f"Results: {out / 'results.csv'}, {out / 'summary.json'}, {out / 'report.md'}", markup=False)
    raise SystemExit(1 if result.summary.flagged_after else 2 if result.summary.not_judged else 0)


def _show(console: Console, result: RescanResult) -> None:
    from ..eval.report.markdown import verdict_lines
    from .display import BLIND_LEGEND, LEGEND, reason_lines, verdict_table

    console.print(verdict_table(result.rows))
    blind = result.settings.verdict == "blind"
    reasons = reason_lines(result.rows, flagged=blind)
    reasons += [""] if reasons else []
    console.print("", BLIND_LEGEND if blind else LEGEND, "", *reasons, sep="\n", markup=False, highlight=False)
    for line in [*verdict_lines(result.summary), *result.remarks]:
        console.print(line, markup=False, highlight=False)


def settings_of(choices: dict[str, Any]) -> dict[str, Any]:
    """The run's settings from the command line's words; a source of images only where one was named."""
    choices = dict(choices)
    assignments, data, backgrounds = (choices.pop(name) for name in ("assignments", "data", "backgrounds"))
    groups = parse_assignments(assignments, ("scanner", "hardener", "data", "evidence"))
    images = {**settings_so_far(data, backgrounds), **groups["data"]}
    if left_to_round(data, assignments):
        del images["source"]
    return {
        **choices,
        "scanner_options": groups["scanner"],
        "hardener_options": groups["hardener"],
        "data": images,
        "evidence": groups["evidence"],
    }
