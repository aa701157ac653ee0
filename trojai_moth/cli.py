"""The command line: groups the commands and turns expected failures into one line and exit code 2."""

from __future__ import annotations

from typing import Any

import click

from . import __version__
from .errors import MothError


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a MothError becomes one line on standard error and exit code 2."""
        try:
            return super().invoke(ctx)
        except MothError as error:
            raise _Failure(str(error)) from None


class _Failure(click.ClickException):
    exit_code = 2


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trojai-moth")
def main() -> None:
    """Scan image classifiers for backdoors, harden the flagged ones with MOTH, and scan them again.

    Model files are untrusted: nothing in them is ever run.
    """


def _register() -> None:
    from .commands.listing import list_scanners, list_settings
    from .commands.make_round import make_round_command
    from .commands.model import distance, harden_model, scan
    from .commands.rescan import rescan

    for command in (rescan, scan, harden_model, distance, make_round_command, list_scanners, list_settings):
        main.add_command(command)


_register()
