"""``trojai-moth evaluate``: finished blind runs beside the oracle, naive hardening and threshold-only controls."""

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

    from ..eval.protocol_rows import Evaluation, Row, ScoredModel
    from ..eval.summary import Rate


@command("evaluate")
@click.argument(
    "run_dirs", metavar="RUN...", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--truth", "rounds", metavar="ROUND", multiple=True, required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The labelled round of a run; once for each RUN, in their order, or once for all.",
)  # fmt: skip
@click.option("--splits", is_flag=True, help="Also count by trigger condition, look-alikes, images and architecture.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The same as a .json file.")
def evaluate_runs(run_dirs: tuple[Path, ...], rounds: tuple[Path, ...], splits: bool, out: Path | None) -> None:
    """Count what was cleared and what was lost in finished RUNs, made with rescan --verdict blind.

    Only models that the first scan flagged count. Models that the run's rule was learned from are never scored. No rule
    is learned anew here, as would be needed to leave out features or architectures.
    """
    if len(rounds) not in (1, len(run_dirs)):
        raise SettingsError(
            f"evaluate: {len(run_dirs)} runs and {len(rounds)} --truth; give one for each run, or one for all"
        )
    from ..core.records import to_json
    from ..eval.protocol_rows import evaluate
    from ..eval.scored_runs import read_scored

    truths = rounds if len(rounds) == len(run_dirs) else rounds * len(run_dirs)
    scored: list[ScoredModel] = []
    fitted: list[str] = []
    for run_dir, round_dir in zip(run_dirs, truths, strict=True):
        models, known = read_scored(run_dir, round_dir)
        scored, fitted = scored + models, fitted + known
    result = evaluate(scored, fitted)
    if out:
        write_text(out, to_json(result))
    console = make_console()
    console.print(rows_table(result))
    if splits:
        console.print("", splits_table(result), "")
    for line in [*summary_lines(result), *([f"Written: {out}"] if out else [])]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def rows_table(result: Evaluation) -> Table:
    """A row per way of deciding."""
    table = make_table("", "false positives cleared", "true positives lost", "p, rule against it")
    for row in result.rows:
        table.add_row(row.name, _share(row.false_positives_cleared), _share(row.true_positives_lost), _p(row))
    return table


def splits_table(result: Evaluation) -> Table:
    """The blind rule under every condition; few models a row, so read the intervals."""
    table = make_table("blind rule by", "", "false positives cleared", "true positives lost")
    for split in result.splits:
        table.add_row(
            split.condition, split.value, _share(split.false_positives_cleared), _share(split.true_positives_lost)
        )
    return table


def summary_lines(result: Evaluation) -> list[str]:
    """What the counts can prove, and what they are of."""
    lines = [f"Flagged and labelled: {result.models} models, {result.seconds / max(result.models, 1):.0f} s each."]
    if result.fitted_on:
        lines.append(f"Not scored: {len(result.fitted_on)} models that the rule was learned from.")
    if result.censored is not None:
        lines.append(f"No trigger was found for {result.censored:.1%} of the distances, which then count as the image.")
    lines.append(f"True pair among the candidates of {_share(result.right_pairs)} true positives.")
    if result.roc_auc is not None and result.cross_entropy is not None:
        area, entropy = _spread(result.roc_auc_interval), _spread(result.cross_entropy_interval)
        lines.append(
            f"Blind probabilities: ROC-AUC {result.roc_auc:.3f}{area}, "
            f"cross-entropy {result.cross_entropy:.3f}{entropy}."
        )
    lines.append(f"So many true positives only bound the share that the rule loses below {result.loss_bound:.0%}.")
    return [*lines, "Controls are set on the models they are counted on, which favours them; they never lose more."]


def _spread(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"


def _share(rate: Rate) -> str:
    """E.g. ``3 of 4 (19-99 %)``."""
    return f"{rate.count} of {rate.total} ({100 * rate.low:.0f}-{100 * rate.high:.0f} %)"


def _p(row: Row) -> str:
    return "" if row.p_value is None else f"{row.p_value:.3f}"
