"""``trojai-moth calibrate-rule``: learn from finished runs what tells injected backdoors from natural ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import SettingsError
from ..core.files import write_text
from .base import command
from .console import make_console, make_table

if TYPE_CHECKING:
    from rich.table import Table

    from ..eval.calibration.blind_runs import BlindRun
    from ..scanners.calibration import Estimate
    from ..verdict.learned_rule import LearnedRule

_LISTED = 20


@command("calibrate-rule")
@click.argument(
    "run_dirs", metavar="RUN...", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--truth", "rounds", metavar="ROUND", multiple=True, required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The labelled round of a run; once for each RUN, in their order, or once for all.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="What was learned, a .json file."
)
@click.option(
    "--tolerate-loss", type=float, show_default="0.02",
    help="Share of the poisoned models whose flag may be taken back.",
)  # fmt: skip
@click.option(
    "--tail-loss", type=float,
    help="Share of the poisoned models below the threshold if their scores are normal; asks more of few models.",
)  # fmt: skip
def calibrate_rule(run_dirs: tuple[Path, ...], rounds: tuple[Path, ...], out: Path, **limits: float | None) -> None:
    """Learn from the evidence of finished RUNs a rule that clears natural backdoors and keeps injected ones.

    Only flagged models have evidence, so a rule speaks of these alone. Make the runs with --set evidence.complete=true,
    or they hold only what the rule in use asked for. What is printed of it is measured by learning it
    again without one part of the models after the other; twins stay together. The file lists the models learned from,
    and on these the rule must not be judged.
    """
    if len(rounds) not in (1, len(run_dirs)):
        raise SettingsError(
            f"calibrate-rule: {len(run_dirs)} runs and {len(rounds)} --truth; give one for each run, or one for all"
        )
    from ..core.records import from_dict, to_json
    from ..eval.calibration.blind_runs import open_blind_run
    from ..eval.calibration.fit_rule import RuleSettings, learn_rule

    asked = {name: value for name, value in limits.items() if value is not None}
    settings = from_dict(RuleSettings, asked, source="calibrate-rule")
    truths = rounds if len(rounds) == len(run_dirs) else rounds * len(run_dirs)
    runs: list[BlindRun] = [open_blind_run(*pair) for pair in zip(run_dirs, truths, strict=True)]
    rule = learn_rule(runs, settings)
    write_text(out, to_json(rule))
    console = make_console()
    console.print(terms_table(rule))
    for line in _summary_lines(rule, out):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def terms_table(rule: LearnedRule) -> Table:
    """What a rule weighs, the heaviest first."""
    table = make_table("feature", "middle", "spread", "weight", right=True)
    for term in sorted(rule.terms, key=lambda term: -abs(term.weight)):
        table.add_row(term.feature, f"{term.centre:.2f}", f"{term.scale:.2f}", f"{term.weight:+.2f}")
    return table


def _summary_lines(rule: LearnedRule, out: Path) -> list[str]:
    made, kept, metrics = rule.provenance, rule.retention, rule.metrics
    left_out = [f"left out: {model.model_id}: {model.reason}" for model in made.left_out]
    more = len(left_out) - _LISTED
    lines = [*left_out[:_LISTED], *([f"left out: {more} more, listed in the file"] if more > 0 else [])]
    if not rule.terms:
        lines.append("No feature tells injected from natural in these models, so the rule keeps every flag.")
    lines += [
        f"Learned from {made.clean} clean and {made.poisoned} poisoned flagged models in {made.folds} parts; "
        f"{made.right_pairs} of the poisoned have their injected pair among the candidates.",
        f"Cleared below a score of {kept.threshold:.3f}, which loses at most {kept.bound:.3f} of poisoned models like "
        "these on average.",
    ]
    if kept.bound > kept.tolerate_loss:
        lines.append(
            f"{kept.true_positives} poisoned models are too few to promise {kept.tolerate_loss:g}: the threshold lies "
            "at their lowest score."
        )
    area = "-" if metrics.roc_auc is None else f"{metrics.roc_auc:.3f}"
    entropy = "-" if metrics.cross_entropy is None else f"{metrics.cross_entropy:.3f}"
    lines.append(
        f"Out of fold: {_share(metrics.cleared)} of the clean cleared, {_share(metrics.lost)} of the poisoned lost, "
        f"{metrics.unjudged} not judged, ROC-AUC {area}, cross-entropy {entropy}."
    )
    return [*lines, f"Written: {out}"]


def _share(figure: Estimate) -> str:
    """E.g. ``0.41 (0.30 to 0.53)``."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
