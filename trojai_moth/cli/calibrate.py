"""``trojai-moth calibrate``: learn from a labelled round what a scanner's scores mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import MothError
from ..core.files import write_text
from ..rounds.data_settings import source_settings
from .base import command
from .console import make_console
from .options import (
    data_option,
    device_option,
    images_options,
    parse_assignments,
    scanner_option,
    seed_option,
    set_option,
    subset_option,
    trust_pickle_option,
)

if TYPE_CHECKING:
    from ..core.messages import Progress
    from ..eval.calibration.scans import Scans
    from ..scanners.calibration import Calibration, LeftOut

_LISTED = 20


@command()
@click.argument("round_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="What was learned, a .json file for scan and rescan --calibration.",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the scans; an unfinished one goes on. Default: beside --out, its name with .work at the end.",
)
@click.option(
    "--seeds", "seed_count", type=click.IntRange(min=1), default=3, show_default=True,
    help="Scans of each model, with the seed of --seed and those that follow it.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(["logistic", "monotone"]), default="logistic", show_default=True,
    help="Curve from score to probability. logistic needs fewer models; monotone follows any rising shape.",
)  # fmt: skip
@click.option(
    "--max-false-positive-rate", type=float,
    help="Flag as many models as this rate of false positives allows. Default: the best balanced accuracy.",
)  # fmt: skip
@subset_option
@scanner_option
@data_option
@images_options
@set_option
@seed_option
@device_option
@trust_pickle_option
def calibrate(round_dir: Path, out: Path, work: Path | None, subset: str | None, device: str, **choices: Any) -> None:
    """Learn from ROUND_DIR's labelled models a probability and a threshold for a scanner's scores.

    Scans every labelled model once per seed, then fits on all of them what goes to --out. How good that is, is measured
    on models that were not learned from. For that the fit is repeated without one part of the round after the other;
    twins stay together. Models that cannot be judged are listed and left out. Use --calibration on other rounds.
    """
    if work is None:
        work = out.with_suffix(".work")
    given = _given(choices)
    import numpy as np

    from ..core.device import prepare_process, resolve_device
    from ..core.records import from_dict, to_dict, to_json
    from ..eval.calibration.learn import LearnSettings, Source, learn, require_both
    from ..eval.calibration.scans import Scans, labelled, read_groups
    from ..eval.labels import read_labels
    from ..rounds.reading import read_round
    from ..rounds.subset import choose
    from ..runs.run import RescanSettings
    from ..scanners.registry import make_scanner, split_names

    settings = from_dict(RescanSettings, {**given, "scanner": ",".join(split_names(given["scanner"]))})
    seeds = tuple(range(choices["seed"], choices["seed"] + choices["seed_count"]))
    learning = from_dict(
        LearnSettings, {key: choices[key] for key in ("method", "max_false_positive_rate")}, source="calibrate"
    )
    scanner, target = make_scanner(settings.scanner, settings.scanner_options), resolve_device(device)
    labels, groups = read_labels(round_dir), read_groups(round_dir)
    cases, unlabelled = labelled(choose(read_round(round_dir), subset, round_dir), labels)
    require_both(np.array([labels[case.model_id] for case in cases], dtype=bool))
    prepare_process(target)
    scans = _scanned(partial(Scans, cases, settings, seeds, work, target), work)
    models, broken = scans.collect(labels, groups)
    left_out = [*unlabelled, *(_without_folder(model, round_dir) for model in broken)]
    source = Source(round_dir.resolve().name, seeds, settings.scanner, to_dict(scanner.settings), settings.data)
    learned = learn(models, left_out, source, learning)
    write_text(out, to_json(learned))
    _show(learned, left_out, out)


def _scanned(make: Callable[[Progress, Callable[[], None]], Scans], work: Path) -> Scans:
    """All scans, which Ctrl-C and a scheduler's signal end in good order."""
    from ..runs.workers.stopping import SIGNALS, Stopping
    from .display import run_progress

    stopping = Stopping()
    with run_progress() as progress:
        scans = make(progress, stopping.check)
        try:
            with stopping.listening(*SIGNALS):
                scans.execute()
                stopping.check()
        except KeyboardInterrupt:
            raise MothError(f"interrupted; {work} is usable, and the same command goes on there") from None
    return scans


def _show(learned: Calibration, left_out: list[LeftOut], out: Path) -> None:
    from .display import calibration_table

    console = make_console()
    for line in _left_out_lines(left_out):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(calibration_table(learned.metrics))
    for line in _summary_lines(learned, out):
        console.print(line, markup=False, highlight=False)


def _given(choices: dict[str, Any]) -> dict[str, Any]:
    """The settings of the scans, from the command line's words."""
    groups = parse_assignments(choices["assignments"], ("scanner", "data"))
    data = {**source_settings(choices["data"], choices["backgrounds"]), **groups["data"]}
    return {
        "scanner": choices["scanner"],
        "scanner_options": groups["scanner"],
        "data": data,
        "seed": choices["seed"],
    }


def _without_folder(model: LeftOut, round_dir: Path) -> LeftOut:
    """The file that is handed on says nothing of where the round lay."""
    from ..scanners.calibration import LeftOut

    return LeftOut(model_id=model.model_id, reason=model.reason.replace(f"{round_dir}{os.sep}", ""))


def _left_out_lines(left_out: list[LeftOut]) -> list[str]:
    lines = [f"left out: {model.model_id}: {model.reason}" for model in left_out[:_LISTED]]
    rest = len(left_out) - _LISTED
    return [*lines, f"left out: {rest} more, listed in the file"] if rest > 0 else lines


def _summary_lines(learned: Calibration, out: Path) -> list[str]:
    made, limit = learned.provenance, learned.max_false_positive_rate
    lines = [
        f"Learned from {made.clean} clean and {made.poisoned} poisoned models, "
        f"{len({model.group for model in made.models})} groups in {made.folds} parts, {len(made.seeds)} scans of each.",
        f"Flagged above a score of {learned.threshold:.3f}; the scanner's own bound is 0.",
    ]
    bound = learned.false_positive_bound
    if limit is not None and bound is not None and bound > limit:
        lines.append(
            f"{made.clean} clean models are too few to promise a false positive rate of {limit:g}: the threshold lies "
            f"at the highest clean score, which promises {bound:.3f}."
        )
    return [*lines, f"Written: {out}"]
