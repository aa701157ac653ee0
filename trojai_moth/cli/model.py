"""``scan`` and ``harden``: one model at a time; what other commands open a model with is here too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ..core.errors import MothError, SettingsError
from ..core.files import write_text
from ..hardeners import Part
from ..rounds.data_settings import source_settings
from .base import command
from .console import shown_progress
from .options import (
    allow_fitted_option,
    architecture_option,
    calibration_option,
    data_option,
    device_option,
    hardener_budget_option,
    hardener_option,
    images_options,
    parse_assignments,
    scanner_budget_option,
    scanner_option,
    seed_option,
    trust_pickle_option,
)
from .options import set_option as settings_option

if TYPE_CHECKING:
    from ..core.subject import Subject
    from ..rounds.model import FolderModel
    from ..rounds.samples import Choice
    from ..scanners.result import Candidate, ScanResult

_model = click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
_EXIT_CODES = {"clean": 0, "flagged": 1, "not judged": 2}
_log = logging.getLogger(__name__)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """MODEL, a folder or a weights file, and the options that say how it is opened."""
    shared = (device_option, seed_option, settings_option, images_options, data_option, architecture_option)
    for option in (trust_pickle_option, *shared, _model):
        command = option(command)
    return command


def given_settings(
    *names: str, data: str, backgrounds: str | None, assignments: tuple[str, ...], **_: Any
) -> dict[str, dict[str, Any]]:
    """The settings given for these groups and for the data; SettingsError for words that say none.

    Takes no torch, so it comes first, and a slip of the pen is answered at once.
    """
    groups = parse_assignments(assignments, (*names, "data"))
    return {**groups, "data": {**source_settings(data, backgrounds), **groups["data"]}}


def open_model(
    *names: str, model_path: Path, seed: int, device: str, only: Choice | None = None, **choices: Any
) -> FolderModel:
    """The model and its images, ``only`` of some classes.

    names: groups of --set that the command takes beside those of the data.
    """
    groups = given_settings(*names, **choices)
    from ..core.device import describe_device, prepare_process, resolve_device
    from ..core.records import from_dict
    from ..rounds.data_settings import DataSettings
    from ..rounds.model import open_from_path

    target = resolve_device(device)
    prepare_process(target)
    settings = from_dict(DataSettings, groups["data"], source="--set")
    model = open_from_path(model_path, settings, target, seed, only)
    if model.opened.note:
        _log.warning("%s: %s", model.name, model.opened.note)
    found = "; ".join(part.words for part in model.samples.accuracy)
    _log.info("%s: read as %s (%s); %s", model.name, model.subject.preprocessing.words, model.opened.check, found)
    _log.debug("%s: on %s, with %s", model.name, describe_device(target), model.samples.description)
    return model


@command()
@model_options
@scanner_option
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the verdict with its evidence here.",
)
@scanner_budget_option
@calibration_option
@allow_fitted_option
def scan(
    scanner: str,
    json_file: Path | None,
    time_budget: float | None,
    calibration: Path | None,
    allow_fitted: bool,
    **choices: Any,
) -> None:
    """Scan one model, a folder or a weights file. Exit code 0: clean; 1: flagged; 2: error or not judged."""
    groups = given_settings("scanner", **choices)
    from ..core.learned_file import refuse_fitted
    from ..core.records import to_json
    from ..scanners.calibration import read_calibration
    from ..scanners.registry import make_scanner
    from ..scanners.scan import scan as scan_with

    learned = read_calibration(calibration) if calibration else None
    model = open_model("scanner", **choices)
    chosen, subject = make_scanner(scanner, groups["scanner"], described=model.described), model.subject
    if learned:
        learned.check(scanner, chosen, model.data)
        refuse_fitted(learned, [] if allow_fitted else [(subject.model_id, subject.source_sha256)])
    verdict = scan_with(model, chosen, time_budget=time_budget)
    if learned:
        verdict = learned.judge(verdict, subject.source_sha256)
    if json_file:
        write_text(json_file, to_json(verdict))
    for line in _verdict_text(subject.model_id, verdict, model.class_names):
        click.echo(line)
    raise SystemExit(_EXIT_CODES[verdict.outcome])


def _verdict_text(model_id: str, verdict: ScanResult, names: Sequence[str] | None) -> list[str]:
    lines = [f"{model_id}: {verdict.outcome.upper()} by {verdict.scanner}: {verdict.reason}"]
    lines += [f"  {_candidate_text(candidate, names)}" for candidate in verdict.evidence[:5]]
    if verdict.calibrated and verdict.probability is not None:
        lines.append(f"  probability {verdict.probability:.2f}, as learned")
    if verdict.calibrated and verdict.calibrated.fitted_on:
        lines.append("  the calibration was learned from this very model, so this says nothing about other models")
    return [*lines, f"  {verdict.seconds:.0f} seconds"]


def _candidate_text(candidate: Candidate, names: Sequence[str] | None) -> str:
    from ..triggers.trigger import pair_words

    pair = pair_words(candidate.victim, candidate.target, names)
    if candidate.scanner is not None:
        pair = f"{candidate.scanner} {pair}"
    if candidate.size is None:
        return f"{pair}: no trigger works (best success {candidate.success:.0%})"
    size = f"{candidate.size:.1f} pixels" if candidate.kind == "patch" else f"filter of strength {candidate.size:.3f}"
    words = [f"{pair}: {size}", f"success {candidate.success:.0%}"]
    if candidate.held_success is not None:
        words.append(f"{candidate.held_success:.0%} of {candidate.held_images} held out")
    if candidate.left_out_success is not None:
        words.append(f"{candidate.left_out_success:.0%} left out one at a time")
    if candidate.jitter_success is not None:
        words.append(f"{candidate.jitter_success:.0%} jittered")
    if candidate.reverse_size is not None:
        words.append(f"back {candidate.reverse_size:.1f}")
    return ", ".join(words)


@command("harden")
@model_options
@hardener_option
@hardener_budget_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Hardened weights, a .safetensors file.",
)
@click.option(
    "--model-pt",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a whole-module model.pt as TrojAI does.",
)
@click.option(
    "--without",
    type=click.Choice(get_args(Part)),
    multiple=True,
    help="Leave out one of MOTH's four design parts, as in the paper's ablation. Repeatable.",
)
def harden_model(
    hardener: str,
    hardener_budget: float | None,
    out: Path,
    model_pt: Path | None,
    without: tuple[str, ...],
    **choices: Any,
) -> None:
    """Harden one model, a folder or a weights file, with MOTH unless told otherwise.

    The trace goes beside the weights as .json.

    Where the folder has poisoned example images, it also prints how many of them still get their trigger's target,
    before and after. That is ground truth: it is printed, and no hardener, weights or trace ever hold it.
    """
    if out.suffix != ".safetensors":  # the trace's name is made from it, and must not be the same
        raise SettingsError(f"--out {out}: must end in .safetensors")
    if without and hardener != "moth":
        raise SettingsError(f"--without {without[0]}: only moth has parts to leave out, not {hardener}")
    groups = given_settings("hardener", **choices)
    from ..core.records import to_json
    from ..hardeners.harden import harden
    from ..hardeners.weights import save_trojai_model, save_weights

    model = open_model("hardener", **choices)
    options = groups["hardener"] | ({"without": without} if without else {})
    with shown_progress() as progress:
        hardened = harden(model, hardener, settings=options, progress=progress, time_budget=hardener_budget)
    save_weights(hardened, out)
    write_text(out.with_suffix(".json"), to_json(hardened.trace))
    if model_pt:
        save_trojai_model(hardened.subject, model_pt)
    trace = hardened.trace
    _log.info("%s; %.0f seconds", trace.stopped, trace.seconds)
    before, after, images = trace.cost
    click.echo(
        f"{out}: accuracy {before:.2%} -> {after:.2%} on {images} {'unseen' if trace.audit else 'held-back'} "
        f"images, {sum(part.taken_back for part in trace.rounds)} of {len(trace.rounds)} rounds taken back"
    )
    for line in _attack_lines(model, hardened.subject):
        click.echo(line)


def _attack_lines(model: FolderModel, hardened: Subject) -> list[str]:
    """How well the injected trigger works before and after; nothing for a model without poisoned examples."""
    from ..rounds.poisoned_examples import attack_success, read_poisoned

    try:
        poisoned = read_poisoned(model.folder, model.subject)
    except MothError as error:  # what was hardened is worth more than this figure
        return [f"attack success not measured: {error}"]
    before, after = (attack_success(subject, poisoned) for subject in (model.subject, hardened))
    if poisoned is None or before is None or after is None:
        return []
    return [f"attack success {before:.0%} -> {after:.0%} on {len(poisoned)} poisoned example images"]
