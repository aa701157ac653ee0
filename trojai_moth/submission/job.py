"""What every job of a submission begins with: its settings, its device, and the model with images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..core.device import prepare_process, resolve_device
from ..core.errors import SettingsError
from ..core.records import from_dict, to_dict
from ..hardeners.registry import make_hardener
from ..rounds.model_folder import ModelFolder
from ..runs.run import RescanSettings
from ..scanners.registry import make_scanner
from . import Kind
from .metaparameters import DetectSettings, MitigateSettings, nested, parameters
from .staging import Sources, stage

Say = Callable[..., None]


def own_settings(kind: Kind, order: Mapping[str, Any], say: Say) -> tuple[DetectSettings | MitigateSettings, Any]:
    """The submission's own settings and those of a run; wrong metaparameters are named and defaults used instead."""
    try:
        return _settings(kind, order["values"], say)
    except SettingsError as error:
        say(note=f"metaparameters: {error}; defaults are used")
        return _settings(kind, {}, say)


def _settings(kind: Kind, values: Mapping[str, Any], say: Say) -> tuple[Any, RescanSettings]:
    own, run, unknown = run_settings(kind, values)
    for name in unknown:
        say(note=f"metaparameter {name:.80}: not known here and ignored")
    return own, run


def run_settings(kind: Kind, values: Mapping[str, Any]) -> tuple[Any, RescanSettings, list[str]]:
    """The submission's own settings, those of a run, and unknown names; SettingsError for a value out of bounds."""
    scanner, hardener = (str(values.get(key, default)) for key, default in _NAMES)
    groups, unknown = nested(values, parameters(kind, scanner, hardener))
    own = {key: value for key, value in groups.get("", {}).items() if key not in ("scanner", "hardener")}
    cls: type[DetectSettings] | type[MitigateSettings] = MitigateSettings if kind == "mitigate" else DetectSettings
    settings: DetectSettings | MitigateSettings = from_dict(cls, own, source="metaparameters")  # type: ignore[arg-type]
    parts: dict[str, Any] = {}
    for group, found in groups.items():
        if group.startswith("scanner."):
            parts.setdefault("scanner", {})[group.removeprefix("scanner.")] = found
        elif group:
            parts[group] = found
    run = {
        "scanner": scanner, "scanner_options": parts.get("scanner", {}), "hardener": hardener,
        "hardener_options": parts.get("hardener", {}), "data": parts.get("data", {}),
        "evidence": parts.get("evidence", {}), "seed": settings.seed,
        "verdict": "blind" if getattr(settings, "verdict", None) == "blind" else "naive",
    }  # fmt: skip
    made = from_dict(RescanSettings, run, source="metaparameters")
    if kind == "detect":
        make_scanner(made.scanner, made.scanner_options)
    make_hardener(made.hardener, made.hardener_options)
    return settings, made, unknown


_NAMES = tuple((name, to_dict(RescanSettings())[name]) for name in ("scanner", "hardener"))


def open_staged(
    order: Mapping[str, Any], folder: Path, per_class: int, seed: int, images: str, say: Say
) -> ModelFolder:
    """The request's model as a case, with the images of the folder that ``images`` names in the request."""
    sources = Sources(
        model=Path(order["model"]),
        examples=_path(order[images]),
        training=_path(order["training"]),
        per_class=per_class,
        seed=seed,
    )
    return stage(sources, folder, lambda text: say(note=text))


def with_usable_data(case: ModelFolder, settings: RescanSettings, say: Say) -> RescanSettings:
    """The run's settings, with the examples as data where there is nothing to compose from."""
    if settings.data.source == "examples" or case.foregrounds.is_dir():
        return settings
    say(note=f"no {case.foregrounds.name}/: images cannot be {settings.data.source}, and the examples are used")
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, source="examples"))


def device_of(order: Mapping[str, Any], say: Say) -> torch.device:
    """The device asked for, else what there is."""
    try:
        device = resolve_device(order["device"])
    except SettingsError as error:
        say(note=f"{error}; another one is used")
        device = resolve_device("auto")
    prepare_process(device)
    return device


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
