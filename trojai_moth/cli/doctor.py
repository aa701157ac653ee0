"""``trojai-moth doctor``: what is wrong with a round, said in minutes instead of after a day."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import MothError, printable
from .base import command
from .options import (
    architecture_option,
    device_option,
    images_options,
    left_to_round,
    parse_assignments,
    round_data_option,
    set_option,
    settings_so_far,
    subset_option,
)

if TYPE_CHECKING:
    import torch

    from ..eval.round_health import RoundHealth, Tally
    from ..hardeners.moth_settings import MothSettings
    from ..rounds.data_settings import DataSettings
    from ..rounds.model_check import ModelCheck
    from ..rounds.model_folder import ModelFolder, SkippedModel
    from ..rounds.preprocessing import PreprocessingChoice
    from ..runs.estimate import Estimate
    from ..scanners.neural_cleanse import NeuralCleanseSettings
    from ..verdict.settings import EvidenceSettings

    Settings = tuple[NeuralCleanseSettings, MothSettings, DataSettings, EvidenceSettings]

_LICENCES = ("DATA_LICENSE.txt", "DATA_LICENCE.txt", "DATA_LICENSE", "DATA_LICENCE")
_SHOWN, _TIED = 8, 1
_WITHOUT_EXAMPLES = (
    "Models without example images can be judged with other labelled images of their classes: --data FOLDER, or --data "
    "composed where there are foregrounds."
)


@command()
@click.argument("round_dir", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="A line of JSON per model as it comes, and one for the round.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that load models; each may take about 1 GB.  [default: one per core]",
)
@click.option(
    "--estimate/--no-estimate", "timed", default=True, help="Time each architecture on this machine for an estimate."
)
@round_data_option
@images_options
@subset_option
@set_option
@architecture_option
@device_option
def doctor(
    round_dir: Path,
    as_json: bool,
    workers: int | None,
    timed: bool,
    data: str,
    backgrounds: str | None,
    subset: str | None,
    assignments: tuple[str, ...],
    device: str,
) -> None:
    """Load every model of ROUND_DIR and say whether it can be judged, and why not.

    For each: how it reads its images and what speaks for that, its accuracy on its examples, what is missing. For the
    round: counts, architectures, classes, labels, known errata, and an estimate of how long rescan may take here with
    neural-cleanse and moth. The estimate is for --device, and respects --set scanner.steps=200 and the like.

    A line per model comes as soon as it is known. Where images are composed or come from a folder, these are tried,
    too, and models without example images can be judged by them. They are composed by default where they can be. Exit
    code 0: everything can be judged. Exit code 2: something cannot.
    """
    groups = parse_assignments(assignments, ("scanner", "hardener", "data"))
    chosen = settings_so_far(data, backgrounds)
    from ..core.device import resolve_device
    from ..core.parallel import cores, ordered_parallel_map
    from ..core.records import from_dict, to_dict
    from ..eval.round_health import Tally
    from ..loading.own_code import allowed_architectures
    from ..rounds.data_settings import DataSettings
    from ..rounds.image_choice import images_for
    from ..rounds.model_check import check_model
    from ..rounds.reading import read_round
    from ..rounds.subset import choose
    from ..verdict.settings import EvidenceSettings

    told, target = _settings(groups), resolve_device(device)
    cases = choose(read_round(round_dir), subset, round_dir)
    if left_to_round(data, assignments):
        chosen["source"] = images_for(cases)[0]
    images = from_dict(DataSettings, {**chosen, **groups["data"]}, source="--set")
    labels, problems = _labels(round_dir)
    tally = Tally(labels)
    check = partial(check_model, data=images, architectures=allowed_architectures())
    for checkup in ordered_parallel_map(check, cases, min(workers or cores(), len(cases)), _lost):
        tally.add(checkup)
        click.echo(_json_line("model", to_dict(checkup)) if as_json else model_line(checkup))
    guess = _estimate(tally, (*told, images, EvidenceSettings()), target) if timed and tally.usable else None
    names = {case.model_id for case in cases}
    errata = {model: reason for model, reason in _errata(round_dir).items() if model in names}
    health = tally.health(errata, (*problems, *_notes(round_dir)), guess)
    if as_json:
        click.echo(_json_line("round", to_dict(health)))
    else:
        for line in ["", *round_lines(health)]:
            click.echo(line)
    raise SystemExit(2 if health.broken or problems else 0)


def _estimate(tally: Tally, settings: Settings, target: torch.device) -> Estimate:
    """How long rescan may take here."""
    from ..core.device import prepare_process
    from ..runs.estimate import estimate
    from ..runs.workload import work

    prepare_process(target)
    works = {classes: work(classes, *settings) for _, classes, _ in tally.kinds}
    return estimate({kind: count for kind, count in tally.kinds.items() if count}, works, target, settings[2])


def model_line(checkup: ModelCheck) -> str:
    """One model in one line, whatever is in its name or files."""
    found = checkup.convention
    if not checkup.usable:
        return printable(f"{checkup.model_id}  BROKEN  {checkup.problem}")
    of = checkup.examples if checkup.examples else f"{found.images} {found.images_of}" if found else "nothing"
    words = [f"{checkup.architecture}, {checkup.classes} classes, accuracy {checkup.accuracy:.1%} of {of}"]
    words += [f"least of {checkup.least_of}"] if checkup.least_of else []
    words += [_convention_words(found)] if found else []
    if checkup.missing:
        words.append(f"missing: {', '.join(checkup.missing)}")
    return printable(f"{checkup.model_id}  ok  " + "  ".join(words))


def _convention_words(found: PreprocessingChoice) -> str:
    evidence = f"{found.reason} on {found.images}" if found.by == "accuracy" else found.reason
    more = f" and {len(found.tied) - _TIED} more" if len(found.tied) > _TIED else ""
    tied = f"; as good: {', '.join(found.tied[:_TIED])}{more}" if found.tied else ""
    return f"{found.chosen.words} ({evidence}{tied})"


def round_lines(health: RoundHealth) -> list[str]:
    """The round in a few lines."""
    from ..rounds.model_check import NO_EXAMPLES

    lines = [
        f"Models: {health.models}, of which {health.usable} can be judged and {health.broken} cannot.",
        f"Architectures: {_counts(health.architectures)}. Classes: {_counts(health.classes)}.",
        f"Images are read as: {_counts(health.conventions)}.",
        f"Labels: {', '.join(f'{count} {word}' for word, count in health.labels.items())}.",
    ]
    if health.accuracy_mean is not None and health.accuracy_least is not None:
        lines.append(f"Accuracy on examples: {health.accuracy_mean:.1%} on average, {health.accuracy_least:.1%} least.")
    if health.missing:
        lines.append(f"Missing: {_counts(health.missing)}.")
    if health.broken and NO_EXAMPLES in health.missing:
        lines.append(_WITHOUT_EXAMPLES)
    lines += [f"{model}: its label is not used: {reason}." for model, reason in health.errata.items()]
    same = list(health.same_file.items())
    lines += [f"{model}: has the same model file as {first}." for model, first in same[:_SHOWN]]
    lines += [f"{len(same) - _SHOWN} more have the same file as another."] if len(same) > _SHOWN else []
    lines += list(health.notes)
    if health.estimate is not None:
        lines.append(_time_line(health.estimate))
    return [printable(line) for line in lines]


def _time_line(guess: Estimate) -> str:
    least, most, making = (_duration(seconds) for seconds in (guess.least, guess.most, guess.making))
    return (
        f"Estimate for rescan with neural-cleanse and moth on this machine, {guess.models} models: {least} if nothing "
        f"is flagged, {most} if everything is, hardened, weighed by the blind verdict and scanned again; {making} of "
        "that for making images. It assumes one process, that every search runs to its last step, that hardening never "
        "has to go back, and that the machine stays as busy as it was for the few timed passes per architecture."
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _counts(counts: Mapping[Any, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_SHOWN]]
    return ", ".join([*shown, f"{len(counts) - _SHOWN} more"] if len(counts) > _SHOWN else shown) or "none"


def _json_line(kind: str, content: dict[str, Any]) -> str:
    return json.dumps({kind: content})


def _settings(groups: Mapping[str, dict[str, Any]]) -> tuple[NeuralCleanseSettings, MothSettings]:
    from ..core.records import from_dict
    from ..hardeners.moth_settings import MothSettings
    from ..scanners.neural_cleanse import NeuralCleanseSettings

    return (
        from_dict(NeuralCleanseSettings, groups["scanner"], source="--set"),
        from_dict(MothSettings, groups["hardener"], source="--set"),
    )


def _labels(round_dir: Path) -> tuple[dict[str, bool], tuple[str, ...]]:
    from ..eval.labels import read_labels

    try:
        return read_labels(round_dir), ()
    except MothError as error:
        return {}, (f"The labels cannot be used: {error}",)


def _errata(round_dir: Path) -> dict[str, str]:
    from ..eval.labels import read_errata

    try:
        return read_errata(round_dir)
    except MothError:
        return {}


def _notes(round_dir: Path) -> list[str]:
    from ..rounds.metadata import metadata_file

    metadata = metadata_file(round_dir)
    notes = [] if metadata.is_file() else ["There is no METADATA.csv, so queries with --subset cannot be asked."]
    licence = next((name for name in _LICENCES if (metadata.parent / name).is_file()), None)
    return [*notes, f"The data's licence is in {licence}."] if licence else notes


def _lost(case: ModelFolder | SkippedModel) -> ModelCheck:
    from ..rounds.model_check import ModelCheck

    return ModelCheck(
        model_id=case.model_id, problem="the process that examined it died; is there enough memory? Use --workers 1"
    )
