"""Command-line options that several commands share, those of a run, and settings as options."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click

from ..core.errors import SettingsError
from ..core.records import LARGEST_SEED, LONGEST_S, parse_json
from ..rounds.data_settings import source_settings
from ..runs.execution_settings import ExecutionSettings, parse_shard
from ..runs.leases import LeaseTerms

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


_log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


_seconds = click.FloatRange(0, LONGEST_S, min_open=True)
# Settings lie within settings no deeper than this.
_MOST_DOTS = 8
# Which of them is for round_data to say.
AUTO = "auto"


device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N", help="Where the models run."
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(-LARGEST_SEED, LARGEST_SEED),
    default=0,
    show_default=True,
    help="Seed; the same seed gives the same result.",
)
scanner_option = click.option(
    "--scanner",
    default="neural-cleanse",
    show_default=True,
    help="Scanner to use; `trojai-moth scanners` lists them. Several with commas between them: flagged if any flags.",
)
hardener_option = click.option(
    "--hardener", default="moth", show_default=True, help="Hardener to use; `trojai-moth hardeners` lists them."
)
_IMAGES = (
    "Images for trigger inversion and hardening. examples: those of the model, and augmentations of them. composed: "
    "new ones of the model's foregrounds/ (needs trojai). PATH: labelled images of any size, in a folder, a table "
    "(.csv), an .npz, or as torchvision stores CIFAR, MNIST and GTSRB. Several in equal parts: examples+composed."
)
data_option = click.option(
    "--data", default="examples", show_default=True, metavar="examples|composed|PATH", help=_IMAGES
)
round_data_option = click.option(
    "--data",
    default=AUTO,
    show_default=True,
    metavar="auto|examples|composed|PATH",
    help=f"{_IMAGES} auto: composed where most models have foregrounds/ and trojai is installed, else examples.",
)
subset_option = click.option(
    "--subset",
    metavar="IDS|FILE|NAME|QUERY",
    help="Only these models: ids with commas between them, a file of ids, a published list, or a query over "
    "METADATA.csv such as 'number_classes > 20'. Published lists: moth-false-positives (32 of round 4) and "
    "natural-filters (49 of round 2).",
)
_READING = f"{__name__}.reading"


def _numbers(ctx: click.Context, param: click.Parameter, text: str | None) -> None:
    """Kept as a setting that ``--set`` then hands to the command: one number for all channels, or one for each."""
    if text is None:
        return
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers:
        raise click.BadParameter(f"{text}: write one number, or one for each channel with commas between", ctx, param)
    _keep(ctx, f"data.{param.name}={json.dumps(numbers)}")


def _share(ctx: click.Context, param: click.Parameter, share: float | None) -> None:
    if share is not None:
        _keep(ctx, f"data.{param.name}={share}")


def _text(ctx: click.Context, param: click.Parameter, text: str | None) -> None:
    if text is not None:
        _keep(ctx, f"data.{param.name}={json.dumps(text)}")


def _keep(ctx: click.Context, assignment: str) -> None:
    ctx.meta[_READING] = (*ctx.meta.get(_READING, ()), assignment)


def _with_reading(ctx: click.Context, _: click.Parameter, assignments: tuple[str, ...]) -> tuple[str, ...]:
    return (*ctx.meta.get(_READING, ()), *assignments)


def images_options(command: F) -> F:
    """Of where images come from beside ``--data``, and how the network expects them: those are settings of the data."""
    for option in (
        click.option(
            "--entry", metavar="NAME", is_eager=True, expose_value=False, callback=_text,
            help="Entry of a weights file that is used where several fit, such as state_dict_ema.",
        ),
        click.option(
            "--expect-accuracy",
            type=click.FloatRange(0, 1),
            metavar="SHARE",
            is_eager=True,
            expose_value=False,
            callback=_share,
            help="Accuracy that is known of the models, e.g. 0.93: one that is clearly below it is not examined.",
        ),
        click.option(
            "--std", metavar="R,G,B", is_eager=True, expose_value=False, callback=_numbers,
            help="Standard deviation that goes with --mean.",
        ),
        click.option(
            "--mean", metavar="R,G,B", is_eager=True, expose_value=False, callback=_numbers,
            help="Mean that the network expects to be taken off its input in [0, 1], with --std. By default what its "
            "configuration says, or what is found by trying: none, ImageNet's, CIFAR-10's, MNIST's and 0.5.",
        ),
        click.option(
            "--backgrounds", type=click.Path(exists=True, file_okay=False),
            help="Background images for --data composed.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _trust_pickle(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    """For as long as the command runs; said aloud, because nothing else in this program runs what a file contains."""
    if given:
        from ..loading.trusted import RISK, trusting_pickles

        _log.warning("%s", RISK)
        ctx.with_resource(trusting_pickles())


trust_pickle_option = click.option(
    "--trust-pickle",
    is_flag=True,
    expose_value=False,
    callback=_trust_pickle,
    help="DANGEROUS: hand model files that are no stock networks to torch's own unpickler, which runs whatever code "
    "they contain. For research architectures of your own. Results say for which models that was done.",
)


def _architectures(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> None:
    """For as long as the command runs; nothing else lets a name of code be imported."""
    if names:
        from ..loading.own_code import allowing_architectures

        ctx.with_resource(allowing_architectures(names))


architecture_option = click.option(
    "--architecture",
    multiple=True,
    metavar="NAME",
    expose_value=False,
    callback=_architectures,
    help="Network of weights files that do not say theirs: a name of torchvision or timm, or package.module:factory, "
    "your own code, which is imported. A file may name such code only where it is named here, too. Repeatable.",
)
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_with_reading,
    help="Any setting, e.g. hardener.rounds=40 or scanner.steps=200; with several scanners scanner.NAME.steps=200. "
    "`trojai-moth settings` lists them. Repeatable.",
)


calibration_option = click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Probability and flag as learned by `trojai-moth calibrate` for this scanner, its settings and these images.",
)
scanner_budget_option = click.option(
    "--scanner-budget",
    "time_budget",
    type=_seconds,
    metavar="SECONDS",
    help="Give up a scan after so long; the model is then not judged. No limit unless given.",
)
hardener_budget_option = click.option(
    "--hardener-budget",
    type=_seconds,
    metavar="SECONDS",
    help="Give up a hardening after so long; that is then a failure. No limit unless given.",
)
model_budget_option = click.option(
    "--model-budget",
    type=_seconds,
    metavar="SECONDS",
    help="What all stages of a model may take together; one that takes longer is not judged. No limit unless given.",
)
allow_fitted_option = click.option(
    "--allow-fitted",
    is_flag=True,
    help="Go on when calibration or rule was learned from these very models; results then say so.",
)


def shared_options(command: F, data: Callable[[F], F] = data_option) -> F:
    """The options of every command that examines models; ``data``: the one for images."""
    options = (
        *(scanner_option, hardener_option, data, images_options, set_option, seed_option, device_option),
        *(architecture_option, trust_pickle_option),
    )
    for option in reversed(options):
        command = option(command)
    return command


def parse_assignments(assignments: Iterable[str], groups: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``("data.seed=4",)`` -> ``{"data": {"seed": 4}, ...}``, one dictionary per group; SettingsError otherwise.

    A further dot goes one level deeper, for one of several scanners: ``scanner.k-arm.steps=9`` is
    ``{"scanner": {"k-arm": {"steps": 9}}}``.
    """
    found: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for text in assignments:
        name, equals, value = text.partition("=")
        group, dot, key = name.partition(".")
        if not equals or not dot or group not in found or key.count(".") > _MOST_DOTS:
            raise SettingsError(f"--set {text:.200}: write GROUP.NAME=VALUE with GROUP one of {', '.join(found)}")
        _assign(found[group], key.split("."), _value(value), text)
    return found


def _assign(into: dict[str, Any], keys: list[str], value: Any, text: str) -> None:
    for key in keys[:-1]:
        into = into.setdefault(key, {})
        if not isinstance(into, dict):
            raise SettingsError(
                f"--set {text:.200}: {key:.80} was given a value of its own before; leave one of them out"
            )
    into[keys[-1]] = value


def _value(text: str) -> Any:
    try:
        return parse_json(text, source="--set")
    except SettingsError:
        return text


def options_from_record(cls: type) -> Callable[[F], F]:
    """A click option for every field of a record, with its default and help text, so that both exist once."""

    def decorate(command: F) -> F:
        for field in reversed(dataclasses.fields(cls)):
            info = record_fields(cls)[field.name]
            name, kind = "--" + field.name.replace("_", "-"), _click_type(info.annotation)
            default = info.get_default(call_default_factory=True, validated_data={})
            command = click.option(name, type=kind, default=default, show_default=True, help=info.description)(command)
        return command

    return decorate


def record_fields(cls: type) -> dict[str, FieldInfo]:
    """The fields of a record with their help text and bounds."""
    return dict(cls.__pydantic_fields__)  # type: ignore[attr-defined]


def _click_type(annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        return click.Choice([str(choice) for choice in get_args(annotation)])
    if annotation == Path | None:
        return click.Path()
    return annotation if annotation in (int, float, bool) else str


# Options of ``rescan`` that say by whom a run is done and how long it may take; none of them changes a result.
_RUN_OPTIONS = (
    click.option(
        "--executor",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="local: processes of this machine. ray: a Ray cluster (pip install 'trojai-moth[ray]').",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Models in work at a time, each by a process of its own. It is pinned to a GPU or its share of the cores, "
        "and killed when it hangs beyond a budget. By default one per GPU, or all that a Ray cluster has room for; "
        "with one device, this process itself.",
    ),
    click.option(
        "--ray-address", metavar="ADDRESS", help="Ray cluster to use, e.g. auto; without it one is started here."
    ),
    click.option(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="Only every N-th model, from the I-th on, as for a Slurm array; all shards may share a run directory.",
    ),
    click.option(
        "--keep-weights",
        type=click.Choice(["none", "flagged", "all"]),
        default="all",
        show_default=True,
        help="Hardened weights to keep once their model is finished: none, of flagged models, or all.",
    ),
    click.option(
        "--round-budget",
        type=_seconds,
        metavar="SECONDS",
        help="End after so long as by Ctrl-C, at the next sign of progress; the same command goes on later.",
    ),
    click.option(
        "--worker-deaths",
        type=click.IntRange(min=1),
        default=record_fields(ExecutionSettings)["deaths"].default,
        show_default=True,
        help="Processes that may die at a model before it is not judged instead of tried again.",
    ),
    click.option(
        "--lease-expiry",
        type=_seconds,
        default=record_fields(LeaseTerms)["expiry"].default,
        show_default=True,
        metavar="SECONDS",
        help="Silence after which the model of a process on another machine is taken over.",
    ),
)


def fleet_options(command: F) -> F:
    """All of them."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def fleet_of(choices: dict[str, Any]) -> tuple[ExecutionSettings, LeaseTerms, float | None]:
    """What the options say, taken out of a command's arguments: fleet, leases, seconds for the round."""
    fleet = ExecutionSettings(
        executor=choices.pop("executor"),
        workers=choices.pop("workers"),
        address=choices.pop("ray_address"),
        shard=parse_shard(choices.pop("shard")),
        keep_weights=choices.pop("keep_weights"),
        deaths=choices.pop("worker_deaths"),
    )
    return fleet, LeaseTerms(expiry=choices.pop("lease_expiry")), choices.pop("round_budget")


def left_to_round(data: str, assignments: Iterable[str]) -> bool:
    """Whether neither ``--data`` nor ``--set data.source`` says which images."""
    return data == AUTO and not any(text.startswith("data.source=") for text in assignments)


def settings_so_far(data: str, backgrounds: str | None) -> dict[str, str | None]:
    """As source_settings, where auto is examples until the round has said more."""
    return source_settings("examples" if data == AUTO else data, backgrounds)
