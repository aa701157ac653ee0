"""Metaparameters: the settings records, flat, as the harness wants them, so that a default exists once.

The harness knows numbers with bounds, booleans and texts with an enum. Settings of other kinds (lists, settings within
settings, those that may be None) are left out and keep their defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from ..core.records import Field, record
from ..hardeners.registry import make_hardener
from ..rounds.data_settings import DataSettings
from ..scanners.registry import settings_groups
from ..verdict.settings import EvidenceSettings
from . import Kind
from .entrypoint import DEFAULT_BUDGETS

# Where a setting has no bound of its own, the harness is given one, and the range it may try is this factor around the
# default.
_SPREAD: Final = 2.0
_LARGEST: Final = 1_000_000


@record
class DetectSettings:
    """What a detection is told beside the settings of its parts."""

    verdict: Literal["scanner", "blind"] = Field(
        default="blind", description="scanner: its probability as it is; blind: refined by evidence where it flags"
    )
    seed: int = Field(default=0, ge=0, le=1_000_000, description="seed; the same seed gives the same result")
    time_budget: float = Field(
        default=DEFAULT_BUDGETS["infer"], gt=0, le=200_000, description="seconds for one model, start to end"
    )
    stand_ins_per_class: int = Field(
        default=10, ge=2, le=1000, description="images per class made up where a model comes without examples"
    )
    configure_candidates: int = Field(
        default=4, ge=1, le=100, description="settings that --automatic_configuration tries"
    )


@record
class MitigateSettings:
    """What a mitigation is told beside the settings of its parts."""

    seed: int = Field(default=0, ge=0, le=1_000_000, description="seed; the same seed gives the same result")
    time_budget: float = Field(
        default=DEFAULT_BUDGETS["mitigate"], gt=0, le=200_000, description="seconds for one model, start to end"
    )
    stand_ins_per_class: int = Field(
        default=10, ge=2, le=1000, description="images per class made up where there are too few"
    )


@dataclass(frozen=True)
class Parameter:
    """One metaparameter: ``group`` and ``field`` say which setting it is."""

    name: str
    group: str
    field: str
    default: int | float | bool | str
    schema: Mapping[str, Any]


def parameters(kind: Kind, scanner: str = "neural-cleanse", hardener: str = "moth") -> list[Parameter]:
    """All metaparameters of a submission with this scanner and hardener, in order."""
    found = [Parameter("hardener", "", "hardener", hardener, _choice(hardener, [hardener], "hardener"))]
    groups: dict[str, type] = {"": MitigateSettings if kind == "mitigate" else DetectSettings, "data": DataSettings}
    if kind == "detect":
        found.insert(0, Parameter("scanner", "", "scanner", scanner, _choice(scanner, [scanner], "scanner")))
        groups |= settings_groups(scanner)
    groups["hardener"] = type(make_hardener(hardener, {}).settings)
    if kind == "detect":
        groups["evidence"] = EvidenceSettings
    for group, cls in groups.items():
        if group == "data":
            found.append(_source())
        found += list(_of_record(group, cls))
    return found


def _source() -> Parameter:
    """Where images come from: of the many ways that the package has, those that need no folder of one's own."""
    default, words = DataSettings().source, "examples, or composed from the model's foregrounds where it has any"
    return Parameter("data_source", "data", "source", default, _choice(default, ["examples", "composed"], words))


def defaults(chosen: list[Parameter]) -> dict[str, Any]:
    """The content of metaparameters.json."""
    return {parameter.name: parameter.default for parameter in chosen}


def nested(values: Mapping[str, Any], chosen: list[Parameter]) -> tuple[dict[str, Any], list[str]]:
    """Flat values as groups of settings, ``{"": {...}, "scanner.k-arm": {...}}``, and the names that are unknown."""
    known = {parameter.name: parameter for parameter in chosen}
    groups: dict[str, Any] = {}
    for name, value in values.items():
        if name in known:
            groups.setdefault(known[name].group, {})[known[name].field] = value
    return groups, sorted(values.keys() - known.keys())


def _of_record(group: str, cls: type) -> Iterator[Parameter]:
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
    prefix = group.replace(".", "_").replace("-", "_") + "_" if group else ""
    for field, info in fields.items():
        default = info.get_default(call_default_factory=True, validated_data={})
        schema = _schema(info, default)
        if schema is not None:
            yield Parameter(f"{prefix}{field}", group, field, default, schema)


def _schema(info: FieldInfo, default: Any) -> dict[str, Any] | None:
    words = info.description or ""
    if get_origin(info.annotation) is Literal and all(isinstance(choice, str) for choice in get_args(info.annotation)):
        return _choice(default, list(get_args(info.annotation)), words)
    if info.annotation is bool:
        return {"description": words, "type": "boolean", "default": default}
    if info.annotation is int:
        return {"description": words, "type": "integer", "default": default, **_bounds(info, default, whole=True)}
    if info.annotation is float:
        return {"description": words, "type": "number", "default": default, **_bounds(info, default, whole=False)}
    return None


def _choice(default: str, choices: list[str], words: str) -> dict[str, Any]:
    return {"description": words, "type": "string", "enum": choices, "default": default}


def _bounds(info: FieldInfo, default: float, *, whole: bool) -> dict[str, Any]:
    """Closed bounds within the setting's own, which the harness may clip a value to, and the range it may try."""
    low, high = -float(_LARGEST), float(_LARGEST)
    # The nearest closed bound to an open one: the next whole number, or a thousandth of the default's distance.
    for bound in info.metadata:
        if hasattr(bound, "ge"):
            low = bound.ge
        elif hasattr(bound, "gt"):
            low = bound.gt + (1 if whole else (default - bound.gt) / 1000)
        elif hasattr(bound, "le"):
            high = bound.le
        elif hasattr(bound, "lt"):
            high = bound.lt - (1 if whole else (bound.lt - default) / 1000)
    first, last = sorted((default / _SPREAD, default * _SPREAD))
    number = round if whole else float
    return {
        "minimum": number(low), "maximum": number(high),
        "suggested_minimum": number(min(max(first, low), default)),
        "suggested_maximum": number(max(min(last, high), default)),
    }  # fmt: skip
