"""``trojai-moth rescan``: the main job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import pandas as pd
from rich.console import Console

from ..blind.learned import LearnedRule, read_rule, refuse_learned
from ..blind.rule import shipped_rule
from ..calibration import Calibration, file_hashes, read_calibration, refuse_fitted
from ..device import prepare_process, resolve_device
from ..errors import MothError, SettingsError
from ..eval.labels import errata_lines, read_labels
from ..eval.report import verdict_lines
from ..eval.results import settled_results
from ..eval.summary import Summary, summarise
from ..journal import Journal
from ..pipeline import RescanSettings, Run
from ..records import from_dict, to_dict
from ..rounds import Case, Skip, read_round
from ..subset import choose
from .console import make_console
from .display import BLIND_LEGEND, LEGEND, make_reporter, reason_lines, verdict_table
from .fleet_options import fleet_of, fleet_options
from .interruption import Interruption, Stopping
from .options import (
    allow_fitted_option,
    calibration_option,
    hardener_budget_option,
    model_budget_option,
    parse_assignments,
    round_data_option,
    scanner_budget_option,
    shared_options,
    subset_option,
)
from .round_data import left_to_round, round_data, settings_so_far

_WARNING = (
    "A cleared model may be a hardened Trojan: hardening erases injected backdoors too, and the naive verdict does not "
    "tell them apart."
)
_BOUNDS_WARNING = (
    "No rule was learned with this scanner, these images and settings, so fixed bounds on plain stamps decide, whose "
    "safety was not measured for them: a cleared model may be a Trojan. Learn a rule with calibrate-rule and give it "
    "with --rule."
)
_OWN_RULE_WARNING = (
    "The package's own rule decided. Of flagged models never seen before it cleared 22 of 26 clean ones and 0 of "
    "24 poisoned ones, too few to promise more. It knows patches of one colour and round 4's five filters: a cleared "
    "model may hide another kind of trigger."
)


@click.command()
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
    help="blind: by what plain stamps of one colour do to the model and to clean networks of the same classes, which "
    "tells a natural trigger from an injected one. naive: cleared when the second scan is clean, as in the paper.",
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
    is flagged in the end; 1: one is; 2: error, or a model could not be judged and none is flagged.
    """
    known = read_labels(round_dir) if labels or choices["harden"] == "clean-only" else {}
    fleet, terms, budget = fleet_of(choices)
    choices["verdict"] = chosen_verdict(choices["harden"], choices["verdict"], rule)
    settings, target = rescan_settings(**choices), resolve_device(device)
    prepare_process(target)
    console = make_console()
    interruption = Interruption(budget)
    interruption.listen()
    with make_reporter(console) as reporter:
        chooser = Chooser(settings.harden, known)
        cases = choose(read_round(round_dir), subset, round_dir)
        learned = _calibration(calibration, [] if allow_fitted else cases)
        given = read_rule(rule) if rule else None
        if left_to_round(choices["data"], choices["assignments"]):
            settings = _with_images(settings, cases, _learned_with(learned, given), console)
        journal, stopping = Journal(out, terms), Stopping(reporter, interruption)
        weighed = _rule(given, settings, [] if allow_fitted else cases)
        run = Run(
            cases, settings, journal, target, chooser.reason_against, stopping, learned, weighed, fleet,
            interruption.check,
        )  # fmt: skip
        _execute(run, interruption, known if labels else {})
    rows, summary = settled_results(journal, known if labels else {})
    if fleet.shard.of > 1:
        rows = rows.iloc[fleet.shard.numbers(len(rows))]
        summary = summarise(rows, protocol=summary.protocol)
        console.print(f"Shard {fleet.shard.index} of {fleet.shard.of}; the files hold the whole run.", markup=False)
    errata = errata_lines(round_dir, set(rows["model"])) if labels else []
    _show(console, rows, summary, [*errata, *_warnings(settings, weighed, own=rule is None)], settings)
    console.print(f"Results: {out / 'results.csv'}, {out / 'summary.json'}, {out / 'report.md'}", markup=False)
    raise SystemExit(1 if summary.flagged_after else 2 if summary.not_judged else 0)


def _with_images(
    settings: RescanSettings, cases: Sequence[Case | Skip], learned_with: str | None, console: Console
) -> RescanSettings:
    """The images that a calibration or a rule was learned with, else those that suit the round; a line says which."""
    source, line = (learned_with, f"Images: {learned_with}, as learned with.") if learned_with else round_data(cases)
    console.print(line, markup=False, highlight=False)
    return replace(settings, data=replace(settings.data, source=source))


def _learned_with(calibration: Calibration | None, rule: LearnedRule | None) -> str | None:
    """Their source of images; None where there is neither, or a folder, which only the user can name."""
    source = calibration.data.source if calibration else rule.data if rule else ""
    return source if source and "folder" not in source.split("+") else None


def _execute(run: Run, interruption: Interruption, labels: Mapping[str, bool]) -> None:
    """The run, and a table of what is known so far if it is interrupted."""
    try:
        run.execute()
        if interruption.asked:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        if run.journal.started:
            settled_results(run.journal, labels)
        why = "interrupted" if interruption.asked or not interruption.late else "the round's time budget is used up"
        raise MothError(f"{why}; {run.journal.root} is usable, and the same command goes on there") from None


def _show(console: Console, rows: pd.DataFrame, summary: Summary, remarks: list[str], settings: RescanSettings) -> None:
    console.print(verdict_table(rows))
    blind = settings.verdict == "blind"
    reasons = [*reason_lines(rows), ""] if blind else []
    console.print("", BLIND_LEGEND if blind else LEGEND, "", *reasons, sep="\n", markup=False, highlight=False)
    for line in [*verdict_lines(summary), *remarks]:
        console.print(line, markup=False, highlight=False)


def _calibration(path: Path | None, refused: list[Case | Skip]) -> Calibration | None:
    """The calibration, if there is one; SettingsError when it was learned from one of these models."""
    if path is None:
        return None
    learned = read_calibration(path)
    refuse_fitted(learned, file_hashes(refused))
    return learned


def _rule(given: LearnedRule | None, settings: RescanSettings, refused: list[Case | Skip]) -> LearnedRule | None:
    """The given rule, else the package's own if it fits; SettingsError when it was learned from one of these models."""
    if settings.verdict != "blind":
        return None
    if given is None:
        return shipped_rule(settings.scanner, settings.data.source, to_dict(settings.evidence))
    refuse_learned(given, file_hashes(refused))
    return given


def chosen_verdict(harden: str, verdict: str | None, rule: Path | None) -> str:
    """The verdict that is asked for, by default blind where no labels decide; SettingsError for what does not fit."""
    chosen = verdict or ("naive" if harden == "clean-only" else "blind")
    if chosen == "blind" and harden == "clean-only":
        raise SettingsError("--harden clean-only: goes by labels, so nothing is left to judge; use --verdict naive")
    if rule and chosen != "blind":
        raise SettingsError("--rule: belongs to the blind verdict; leave out --verdict naive and --harden clean-only")
    return chosen


def _warnings(settings: RescanSettings, rule: LearnedRule | None, *, own: bool) -> list[str]:
    if settings.verdict == "blind":
        return [_BOUNDS_WARNING] if rule is None else [_OWN_RULE_WARNING] if own else []
    return [] if settings.harden == "clean-only" else [_WARNING]


def rescan_settings(
    *,
    scanner: str,
    hardener: str,
    data: str,
    backgrounds: str | None,
    assignments: tuple[str, ...],
    seed: int,
    harden: str,
    verdict: str = "blind",
    time_budget: float | None = None,
    hardener_budget: float | None = None,
    model_budget: float | None = None,
) -> RescanSettings:
    """The run's settings from the command line's words; what auto stands for is left to the round."""
    groups = parse_assignments(assignments, ("scanner", "hardener", "data", "evidence"))
    chosen = {**settings_so_far(data, backgrounds), **groups["data"]}
    return from_dict(
        RescanSettings,
        {
            "scanner": scanner,
            "scanner_options": groups["scanner"],
            "harden": harden,
            "hardener": hardener,
            "hardener_options": groups["hardener"],
            "data": chosen,
            "verdict": verdict,
            "evidence": groups["evidence"],
            "seed": seed,
            "time_budget": time_budget,
            "hardener_budget": hardener_budget,
            "model_budget": model_budget,
        },
    )


class Chooser:
    """Decides by label which flagged models the paper's protocol hardens; the pipeline itself never sees a label."""

    def __init__(self, harden: str, labels: Mapping[str, bool]) -> None:
        """SettingsError when labels are needed and the round has none."""
        self.by_label, self.labels = harden == "clean-only", labels
        if self.by_label and not labels:
            raise SettingsError("--harden clean-only: the round has no labels; use --harden flagged")

    def reason_against(self, model_id: str) -> str | None:
        """Why a model is not to be hardened, or None."""
        if not self.by_label:
            return None
        label = self.labels.get(model_id)
        if label is None:
            return "it has no label"
        return "it is labelled poisoned" if label else None
