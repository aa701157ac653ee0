"""``inspect``: what a model file is and asks for, without loading it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .base import command
from .console import make_console

if TYPE_CHECKING:
    from ..loading import Inspection

_STYLE = {"loadable": "green", "loadable, structure not attested": "yellow", "refused": "bold red"}
_MEANING = {
    "loadable": "its structure is the stock network's",
    "loadable, structure not attested": "it holds weights only, so that nothing shows whether its writer's network was "
    "the stock one",
}


@command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def inspect_file(file: Path, as_json: bool) -> None:
    """Say what a model FILE is, without loading it: nothing in it is run, and nothing is written.

    Shows the container, the versions of torch that write such files, every name its pickles ask for, architecture,
    classes, entries, tensors, hash and verdict. Exit code 0: can be loaded; 2: is refused, with the reason.
    """
    from ..core.records import to_json
    from ..loading import inspect_model

    found = inspect_model(file)
    if as_json:
        click.echo(to_json(found), nl=False)
    else:
        _print(found)
    raise SystemExit(2 if found.verdict == "refused" else 0)


def _print(found: Inspection) -> None:
    console = make_console()
    if not console.is_terminal:
        for name, value in _lines(found):
            click.echo("\n".join(f"{title:<12}  {line}" for title, line in _titled(name, value)))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    # Text, not str: what a file says must not be read as markup.
    for name, value in _lines(found):
        style = _STYLE[found.verdict] if name == "verdict" else ""
        table.add_row(name, Text(value, style=style))
    console.print(table)


def _titled(name: str, value: str) -> list[tuple[str, str]]:
    first, *others = value.split("\n")
    return [(name, first), *(("", line) for line in others)]


def _lines(found: Inspection) -> list[tuple[str, str]]:
    """What is shown, from top to bottom."""
    lines = [("file", found.file)]
    if found.sha256:
        lines += [("bytes", str(found.bytes)), ("sha256", found.sha256)]
        lines += [("container", found.container), ("written by", found.written_by)]
        classes = f", {found.classes} classes" if found.classes else ""
        guess = f", perhaps {found.outputs} classes" if (found.outputs or 0) > 1 else ""
        lines += [("architecture", f"{found.architecture or 'not one this tool knows'}{classes or guess}")]
        if found.entries:
            lines += [("entries", "\n".join(f"{name}: {count} tensors" for name, count in found.entries.items()))]
        if found.first_tensors:
            lines += [("begins with", "\n".join(found.first_tensors))]
        lines += [("tensors", _tensors(found)), ("asks for", "\n".join(found.names) or "nothing")]
    reason = found.reason or _MEANING[found.verdict]
    return [*lines, ("verdict", f"{found.verdict}: {reason}")]


def _tensors(found: Inspection) -> str:
    if found.tensors is None:
        return "cannot be told"
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes.items())
    return f"{found.tensors} of {found.tensor_bytes} bytes ({dtypes})" if dtypes else "none"
