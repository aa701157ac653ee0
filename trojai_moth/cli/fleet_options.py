"""Options of ``rescan`` that say by whom a run is done and how long it may take; none of them changes a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..runs.execution_settings import ExecutionSettings, parse_shard
from ..runs.leases import LeaseTerms
from .options import record_fields

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
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
        type=click.FloatRange(min=0, min_open=True),
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
        type=click.FloatRange(min=0, min_open=True),
        default=record_fields(LeaseTerms)["expiry"].default,
        show_default=True,
        metavar="SECONDS",
        help="Silence after which the model of a process on another machine is taken over.",
    ),
)


def fleet_options(command: F) -> F:
    """All of them."""
    for option in reversed(_OPTIONS):
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
