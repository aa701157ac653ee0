"""``trojai-moth status``: where a run stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import printable
from .base import command

if TYPE_CHECKING:
    from ..runs.journal import Journal
    from ..runs.status import RunStatus

_EVERY_S = 2.0
# Where there is no terminal, a line a minute is enough.
_EVERY_IN_A_LOG_S = 60.0
_SHOWN_HOLDERS = 20


@command()
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--watch", is_flag=True, help="Again and again until every model is done; end it with Ctrl-C.")
def status(run_dir: Path, as_json: bool, watch: bool) -> None:
    """Say where RUN, the run directory of a rescan, stands: while it goes on, from any machine, and after.

    Counts the models that are finished, failed (by kind) and left, and the records of each stage. Says which process is
    at which model, how many models an hour are finished, and how long the rest will take at that rate. It only reads.
    """
    from ..core.records import to_json
    from ..runs.journal import Journal
    from ..runs.status import run_status

    found = run_status(Journal(run_dir))
    if as_json:
        click.echo(to_json(found), nl=False)
    elif watch:
        _watch(Journal(run_dir), found)
    else:
        click.echo("\n".join(status_lines(found)))


def _watch(journal: Journal, found: RunStatus) -> None:
    """On a terminal the lines as they change; elsewhere a dated line now and then, and the whole at the end."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from ..runs.status import run_status

    if Console().is_terminal:
        with Live(Text("\n".join(status_lines(found))), auto_refresh=False) as live:
            while found.left:
                time.sleep(_EVERY_S)
                found = run_status(journal)
                live.update(Text("\n".join(status_lines(found))), refresh=True)
        return
    while found.left:
        click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {status_lines(found)[0]}")
        time.sleep(_EVERY_IN_A_LOG_S)
        found = run_status(journal)
    click.echo("\n".join(status_lines(found)))


def status_lines(found: RunStatus) -> list[str]:
    """What there is to say, in lines."""
    done = found.finished + found.failed
    lines = [
        f"{done} of {found.models} models done: {found.finished} finished, {found.failed} failed; {found.left} left"
    ]
    if found.left:
        lines.append(f"Left: {found.begun} begun, {found.untouched} not yet. {_forecast(found)}")
    lines.append("Records: " + ", ".join(f"{stage} {count}" for stage, count in found.stages.items()) + ".")
    if found.failures:
        kinds = ", ".join(f"{printable(kind)[:40]} {count}" for kind, count in found.failures.items())
        lines.append(f"Failures: {kinds}. results.csv says why.")
    if found.damaged:
        lines.append(f"Damaged records, set aside and done again: {found.damaged}.")
    for holder in found.holders[:_SHOWN_HOLDERS]:
        after = f", after {holder.taken_over} that died or fell silent" if holder.taken_over else ""
        word = "was at it and is dead" if holder.dead else "is at it"
        lines.append(printable(f"{holder.model}: process {holder.process} on {holder.host} {word}{after}"))
    if len(found.holders) > _SHOWN_HOLDERS:
        lines.append(f"{len(found.holders) - _SHOWN_HOLDERS} more processes are at work.")
    return lines


def _forecast(found: RunStatus) -> str:
    if not any(not holder.dead for holder in found.holders):
        return "No process is at work; the same rescan command goes on."
    if found.per_hour is None or found.seconds_left is None or found.silent_seconds is None:
        return "Too few are done to say how long it will take."
    end = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + found.seconds_left))
    return (
        f"{found.per_hour:.1f} an hour, the last {duration(found.silent_seconds)} ago; at that rate done in "
        f"{duration(found.seconds_left)}, {end}."
    )


def duration(seconds: float) -> str:
    """E.g. ``2 d 3 h``, ``3 h 20 min``, ``12 min``, ``40 s``.

    >>> [duration(seconds) for seconds in (40, 725, 12000, 183600)]
    ['40 s', '12 min', '3 h 20 min', '2 d 3 h']
    """
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
