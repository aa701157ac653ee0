"""Every command line that TrojAI has used, read as one request. Nothing here needs torch.

Round 4 gives four options without a sub-command; 2022's template adds one option per metaparameter and
``--configure_mode``; the baseline has ``infer`` and ``configure``; the harness itself runs the options without any
word, which means infer; mitigation has ``mitigate`` and ``test`` and says ``--dataset`` where its template declares
``--dataset_dirpath``. What is not known is kept, so that it can be logged, and never refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import click

from ..core.errors import SettingsError
from ..core.records import parse_json

Action = Literal["infer", "configure", "mitigate", "test"]
ACTIONS: Final[tuple[Action, ...]] = ("infer", "configure", "mitigate", "test")
# Field of the request -> the options that fill it; the last one given wins.
PATHS: Final = MappingProxyType(
    {
        "model": ("--model_filepath", "--model"),
        "result": ("--result_filepath",),
        "scratch": ("--scratch_dirpath",),
        "examples": ("--examples_dirpath",),
        "training": ("--round_training_dataset_dirpath",),
        "metaparameters": ("--metaparameters_filepath",),
        "schema": ("--schema_filepath",),
        "learned": ("--learned_parameters_dirpath",),
        "configure_models": ("--configure_models_dirpath",),
        "dataset": ("--dataset", "--dataset_dirpath"),
        "output": ("--output_dirpath",),
    }
)
_TEXTS: Final = MappingProxyType(
    {
        "output_name": ("--model_output_name",),
        "device": ("--device",),
        "time_budget": ("--time_budget", "--time-budget"),
    }
)
# What each action cannot do without; everything else is optional.
NEEDED: Final = MappingProxyType(
    {"infer": ("model", "result"), "configure": ("configure_models",), "mitigate": ("model", "output"),
     "test": ("model", "dataset", "output")}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a container is asked to do. ``assigned``: options that may be metaparameters, in plain JSON types."""

    action: Action
    model: Path | None = None
    result: Path | None = None
    scratch: Path | None = None
    examples: Path | None = None
    training: Path | None = None
    metaparameters: Path | None = None
    schema: Path | None = None
    learned: Path | None = None
    configure_models: Path | None = None
    dataset: Path | None = None
    output: Path | None = None
    output_name: str = "mitigated.pt"
    device: str = "auto"
    time_budget: str | None = None
    automatic: bool = False
    assigned: dict[str, Any] = field(default_factory=dict)
    odd: tuple[str, ...] = ()


class UsageError(Exception):
    """A command line that lacks what its action needs, in one line."""


def parse(arguments: Sequence[str]) -> Request:
    """The request of a command line; UsageError if a path is missing that the action cannot do without."""
    words = list(arguments)
    action: Action | None = None
    if words and words[0] in ACTIONS:
        action = next(name for name in ACTIONS if name == words[0])
        words = words[1:]
    try:
        context = _COMMAND.make_context("submission", words, resilient_parsing=False)
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None
    given = {name: value for name, value in context.params.items() if value not in (None, False)}
    if action is None:
        action = "configure" if given.get("configure_mode") else "infer"
    given.pop("configure_mode", None)
    given = {name: Path(value) if name in PATHS else value for name, value in given.items()}
    assigned, odd = _pairs(context.args)
    request = Request(action=action, assigned=assigned, odd=odd, **given)
    missing = [PATHS[name][0] for name in NEEDED[action] if getattr(request, name) is None]
    if missing:
        raise UsageError(f"{action}: give {' and '.join(missing)}")
    return request


def _pairs(extras: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Options that this program does not declare, with their values; and words that belong to none."""
    assigned: dict[str, Any] = {}
    odd: list[str] = []
    words = list(extras)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            odd.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        assigned[name.replace("-", "_")] = _plain(value)
    return assigned, tuple(odd)


def _plain(text: str) -> Any:
    """What a command line's word says: true, 3 and 0.5 are values, everything else is text."""
    try:
        return parse_json(text.lower() if text in ("True", "False") else text, source="option")
    except SettingsError:
        return text


def _command() -> click.Command:
    options: list[click.Parameter] = [
        click.Option([*names, name], default=None) for name, names in (*PATHS.items(), *_TEXTS.items())
    ]
    options.append(click.Option(["--configure_mode", "configure_mode"], is_flag=True))
    options.append(click.Option(["--automatic_configuration", "automatic"], is_flag=True))
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    return click.Command("submission", params=options, context_settings=settings)


_COMMAND: Final = _command()
