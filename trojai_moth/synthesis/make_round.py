"""A small round in round 4's layout: pairs of twins, one clean and one poisoned, trained here and checked."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..core.errors import RunDirectoryError, SettingsError
from ..core.files import write_text
from ..core.messages import Progress
from ..core.records import read_record, to_json
from ..loading import ARCHITECTURES
from .backgrounds import read_backgrounds
from .compose import usual_side
from .datagen import datagen
from .metadata import dictionary, metadata_row, table
from .photo_filters import versions as filter_versions
from .settings import DroppedModel, MadeModel, MakeRoundSettings, RoundSummary
from .sign_folder import read_sign_folder
from .training import recipe_for
from .twin_training import TwinTrainer, read_made
from .twins import TwinPlan, plan_twins
from .writer import remove_unfinished

SUMMARY_FILE = "make_round.json"


def make_round(out: Path, settings: MakeRoundSettings, *, progress: Progress) -> list[MadeModel]:
    """Make a round in ``out``, or finish one that was begun with the same settings; returns the models it holds.

    ``progress`` is called with one line per step. A model that fails the gate, or whose training fails, is dropped:
    it is named in make_round.json and left out of METADATA.csv. Raises SettingsError for settings that no round can
    have, for a folder without such signs too, RunDirectoryError when ``out`` holds something else,
    MissingDependencyError without ``trojai`` or, for filter triggers, without ImageMagick.
    """
    datagen()
    made_with = _versions(settings)  # raises here what would otherwise be noticed after the first training
    if settings.backgrounds is not None:
        read_backgrounds(settings.backgrounds, settings.stored_size)
    plans = _checked_plans(settings)
    summary = _opened(out, settings, made_with, plans)
    begun = time.monotonic()
    rows: list[dict[str, Any]] = []
    made: list[MadeModel] = []
    for plan in plans:
        missing = {plan.clean_id, plan.poisoned_id} - {model.model_id for model in summary.dropped}
        missing -= {model_id for model_id in missing if (out / model_id).is_dir()}
        if missing:
            dropped = TwinTrainer(out, plan, settings, progress).run(missing)
            earlier = summary.seconds
            summary = _extended(summary, dropped, earlier + time.monotonic() - begun)
            begun = time.monotonic()
            write_text(out / SUMMARY_FILE, to_json(summary))
        for model, config, stats in read_made(out, plan):
            made.append(model)
            rows.append(metadata_row(model.model_id, plan, config, stats))
        _write_tables(out, rows)
    progress(f"{len(made)} models in {out}, {len(summary.dropped)} dropped")
    return sorted(made, key=lambda model: model.model_id)


def _checked_plans(settings: MakeRoundSettings) -> list[TwinPlan]:
    unknown = [name for name in settings.architectures if name not in ARCHITECTURES]
    if unknown or not settings.architectures:
        raise SettingsError(
            f"architecture: {unknown or settings.architecture!r} not known; choose {', '.join(ARCHITECTURES)}"
        )
    if settings.trigger_area_min > settings.trigger_area_max:
        raise SettingsError("trigger_area_min: is larger than trigger_area_max")
    folder = None
    if settings.signs is not None:
        closest, apart = settings.lookalike_distance_min, settings.lookalike_distance_max
        if closest >= apart:
            raise SettingsError("lookalike_distance_min: is not less than lookalike_distance_max")
        folder = read_sign_folder(settings.signs, usual_side(settings.stored_size), closest=closest, apart=apart)
    return plan_twins(
        settings.models + settings.models % 2,
        architectures=settings.architectures,
        classes=settings.classes,
        lookalikes=settings.lookalikes,
        lookalike_share=settings.lookalike_share,
        sizes=(settings.trigger_area_min, settings.trigger_area_max),
        seed=settings.seed,
        trigger=settings.trigger,
        condition=settings.condition,
        folder=folder,
        colours=settings.trigger_colours,
    )


def _opened(out: Path, settings: MakeRoundSettings, made_with: dict[str, str], plans: list[TwinPlan]) -> RoundSummary:
    file = out / SUMMARY_FILE
    if file.is_file():
        summary = read_record(RoundSummary, file)
        if summary.settings != settings:
            raise RunDirectoryError(
                f"{file}: this round was begun with other settings; choose another folder or delete it"
            )
        remove_unfinished(out)
        return summary
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunDirectoryError(f"{out}: is not empty and not a round made here; choose another folder")
    recipes = {name: recipe_for(name, settings.epochs) for name in settings.architectures}
    chosen = {i: plan.pictures for plan in plans if plan.pictures for i in (plan.clean_id, plan.poisoned_id)}
    signs = dict(sorted(chosen.items()))
    summary = RoundSummary(settings=settings, versions=made_with, recipes=recipes, signs=signs)
    write_text(file, to_json(summary))
    return summary


def _extended(summary: RoundSummary, dropped: list[DroppedModel], seconds: float) -> RoundSummary:
    return RoundSummary(**{**vars(summary), "dropped": [*summary.dropped, *dropped], "seconds": round(seconds, 1)})


def _versions(settings: MakeRoundSettings) -> dict[str, str]:
    names = ("trojai-moth", "torch", "torchvision", "numpy", "pillow", "trojai")
    return {name: version(name) for name in names} | (filter_versions() if settings.trigger == "filter" else {})


def _write_tables(out: Path, rows: list[dict[str, Any]]) -> None:
    if rows:
        write_text(out / "METADATA.csv", table(sorted(rows, key=lambda row: row["model_name"])))
        write_text(out / "METADATA_DICTIONARY.csv", dictionary(list(rows[0])))
