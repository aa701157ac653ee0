"""``trojai-moth container``: a complete submission folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import click

from .. import __version__
from ..core.errors import MothError, SettingsError
from ..submission import Kind
from .base import command
from .options import hardener_option, parse_assignments, scanner_option

# A wheelhouse holds wheels for the Python that it was made with.
BASE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim-bookworm"
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@command("container")
@click.argument("kind", type=click.Choice(get_args(Kind)))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@scanner_option
@hardener_option
@click.option("--calibration", type=_file, help="What `calibrate` learned; its scanner and settings are then used.")
@click.option("--rule", type=_file, help="What `calibrate-rule` learned, for the blind verdict.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE",
              help="A metaparameter, e.g. scanner_steps=200. Repeatable.")  # fmt: skip
@click.option("--base", default=BASE, show_default=True, help="Docker image that the recipe starts from.")
@click.option("--commit", help="Commit id for the schema. Default: that of the checkout the package runs from.")
@click.option("--changes", default=f"First submission with trojai-moth {__version__}.", show_default=True,
              help="The schema's technique_changes: what is new since your last submission.")  # fmt: skip
@click.option("--repo", default="trojai-moth", show_default=True, help="The schema's repo_name.")
@click.option("--wheel", type=_file, help="The package's wheel. Default: built from the checkout.")
@click.option("--wheelhouse", is_flag=True, help="Download all pinned packages too, for building without a network.")
def container(kind: Kind, out: Path, assignments: tuple[str, ...], **choices: Any) -> None:
    """Write a submission of KIND, a detector or a mitigation, into the folder OUT.

    It holds the Apptainer recipe, the entry point, metaparameters with their schema, learned parameters, the package's
    wheel, and a README with the commands.
    """
    values = parse_assignments((f"x.{text}" for text in assignments), ("x",))["x"]
    for name in ("calibration", "rule"):
        if choices[name] and kind == "mitigate":
            raise SettingsError(f"--{name}: a mitigation gives no probabilities; leave it out")
    from ..submission.folder import Plan, write_folder
    from ..submission.rules import check_folder

    names = write_folder(Plan(kind=kind, values=values, **choices), out)
    findings = check_folder(out, mitigation=kind == "mitigate")
    if findings:
        raise MothError(f"{out}: the harness would refuse it ({findings[0].what}); this is a bug, please report it")
    click.echo(f"{out}: {', '.join(names)}")
    click.echo(
        f"The harness's checks of schema and metaparameters find nothing. Next: trojai-moth submission check {out}"
    )
