"""``trojai-moth score``: a submission's results by the leaderboard's own metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import MothError
from ..core.files import write_text
from ..rounds.published.figures import PUBLISHED, PUBLISHED_FIDELITY
from .base import command

if TYPE_CHECKING:
    from ..submission.fidelity import FidelityScore
    from ..submission.scoring import Score

_NAMED = 5


@command("score")
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--truth", metavar="ROUND", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The labelled round; every labelled model of it is scored.",
)  # fmt: skip
@click.option("--level", type=click.Choice(["90", "95", "98", "99"]), default="95", show_default=True,
              help="Of the interval around the cross-entropy, in percent.")  # fmt: skip
@click.option(
    "--round", "number", type=click.Choice(list(PUBLISHED)), help="Print published figures of one round only."
)
@click.option("--confusion", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the confusion table here, byte for byte as the harness does.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def score(
    results: Path, truth: Path, level: str, number: str | None, confusion: Path | None, json_file: Path | None
) -> None:
    """Score RESULTS by the leaderboard's metrics: a folder of id-*.txt files, or the results.csv of a run.

    A result that is missing or no number counts as 0.5 and is flagged, as on the leaderboard. A folder of id-*.json
    files holds a mitigation's logits, and its fidelity is computed.
    """
    from ..core.records import to_json
    from ..eval.labels import read_labels
    from ..submission.fidelity import score_fidelity
    from ..submission.predictions import listed_models, read_predictions
    from ..submission.scoring import arrays, confusion_csv
    from ..submission.scoring import score as score_predictions

    labels = read_labels(truth)
    if results.is_dir() and any(results.glob("id-*.json")) and not any(results.glob("id-*.txt")):
        if confusion:
            raise MothError("--confusion: a mitigation has no probabilities; leave it out")
        found = score_fidelity(results, truth, labels)
        lines, text = fidelity_lines(found), to_json(found)
    else:
        predictions = read_predictions(results, labels)
        extra = sorted(listed_models(results) - set(labels))
        made = score_predictions(predictions, labels, level=int(level), extra=extra)
        if confusion:
            write_text(confusion, confusion_csv(*arrays(predictions, labels)))
        lines, text = score_lines(made, number), to_json(made)
    if json_file:
        write_text(json_file, text)
    for line in lines:
        click.echo(line)


def score_lines(made: Score, number: str | None) -> list[str]:
    """All figures, what was wrong, and what others reached."""
    lines = [
        f"{made.models} models, {made.poisoned} poisoned" + (f"  {made.flags}" if made.flags else ""),
        f"Cross-entropy  {made.cross_entropy:.5f} +- {made.half_width:.5f} ({made.level} %); knowing nothing: 0.69315",
        f"Brier score    {made.brier:.5f}",
        f"ROC-AUC        {_area(made.roc_auc)}  (over 101 thresholds, as until round 4: {_area(made.roc_auc_sweep)})",
    ]
    for words, models in (
        ("without a result, scored as 0.5", made.missing),
        ("with a result that is no number, scored as 0.5", made.unreadable),
        ("outside of 0 to 1; only the cross-entropy clips", made.outside),
        ("without a label, not scored", made.extra),
    ):
        lines += [f"{len(models)} {words}: {_names(models)}"] if models else []
    lines += ["", "Published (other models than these, unless you have that very split):"]
    for chosen in [number] if number else list(PUBLISHED):
        for entry in PUBLISHED[chosen]:
            words = f"cross-entropy {entry.cross_entropy:<5}  ROC-AUC {entry.roc_auc}"
            lines.append(f"  round {chosen:>2}  {entry.source:<20}  {words}")
    return lines


def fidelity_lines(found: FidelityScore) -> list[str]:
    """Both readings, and what others reached."""
    lines = [
        f"{len(found.models)} models, {sum(model.poisoned for model in found.models)} poisoned",
        f"Fidelity as NIST computes it  {found.nist:.5f}  (its code exchanges two columns)",
        f"Fidelity by the formula       {found.corrected:.5f}",
    ]
    if found.missing:
        lines.append(f"{len(found.missing)} without usable results, counted as 0: {_names(found.missing)}")
    lines += ["", "Published (mitigation round of June 2024):"]
    return [*lines, *(f"  {team:<16}  {value:.3f}" for team, value in PUBLISHED_FIDELITY.items())]


def _area(value: float | None) -> str:
    return "not defined, one label is absent" if value is None else f"{value:.5f}"


def _names(models: tuple[str, ...]) -> str:
    rest = len(models) - _NAMED
    return ", ".join(models[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
