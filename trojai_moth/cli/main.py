"""The command line: finds commands, and turns failures into one line and exit code 2.

No command waits for torch to say its help, or what is wrong with its options: neither this module nor those of the
commands import anything heavy but inside the function that does the work.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import __version__
from ..core.errors import MothError, one_line, printable
from ..core.messages import traceback_text
from .base import Group, wants_tracebacks

# torch's threads (GNU OpenMP) spin while they wait for each other. Spinning long, the default, makes two of them twenty
# times slower than one as soon as anything else runs on the machine; not spinning at all makes small networks twice as
# slow as need be. A short spin avoids both. It is read when torch is loaded, which is after this.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# Name -> module, object and first sentence. A command's module is imported when the command is used.
COMMANDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "rescan": ("rescan", "rescan", "Scan a round, harden what is flagged with MOTH, scan that again."),
        "status": ("status", "status", "Say where a run stands, while it goes on and after."),
        "doctor": (
            "doctor",
            "doctor",
            "Say in minutes what in a round can be judged, and what cannot.",
        ),
        "describe": ("describe", "describe", "Say what a network of your own is, in a model.json beside its weights."),
        "scan": ("model", "scan", "Scan one model."),
        "harden": ("model", "harden_model", "Harden one model, with MOTH or a rival."),
        "distance": ("distance", "distance", "Measure the class distances of one model."),
        "bounds": ("bounds", "bounds", "Set class distances beside what real images and alike classes allow."),
        "card": ("card", "card", "Write class distances into a model card; compare and verify cards."),
        "compare": ("compare", "compare", "Harden one model with several methods; what each gains and costs."),
        "calibrate": ("calibrate", "calibrate", "Learn from a labelled round what a scanner's scores mean."),
        "calibrate-rule": (
            *("calibrate_rule", "calibrate_rule"),
            "Learn from finished runs what tells injected backdoors from natural ones.",
        ),
        "evaluate": (
            "evaluate",
            "evaluate_runs",
            "Count what blind runs cleared and lost, beside oracle and controls.",
        ),
        "inspect": ("inspect", "inspect_file", "Say what a model file is and asks for, without loading it."),
        "report": ("report", "report_run", "Show a run as one HTML file, or as Markdown."),
        "export": ("report", "export_run", "Write a run's tables as CSV and parquet."),
        "container": ("container", "container", "Write a complete submission: a detector or a mitigation."),
        "submission": ("submission", "submission", "Check a submission as the harness will."),
        "score": ("score", "score", "Score a submission's results by the leaderboard's own metrics."),
        "make-round": ("make_round", "make_round_command", "Make a small round of clean and poisoned models."),
        "plugins": ("listing", "list_plugins", "List all installed scanners and hardeners, with version and origin."),
        "scanners": ("listing", "list_scanners", "List the installed scanners."),
        "hardeners": ("listing", "list_hardeners", "List the installed hardeners."),
        "settings": ("listing", "list_settings", "List every setting that --set takes."),
    }
)


class _Group(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f".{module}", __package__), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table, since click would import the module of every command for its first sentence."""
        names = [CompletionItem(name, help=text) for name, (_, _, text) in COMMANDS.items()]
        own = [item for item in names if item.value.startswith(incomplete)]
        return [*own, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever goes wrong, the exit code is 2, because 1 means "flagged"."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise _Failure(_explanation(error, debugging=wants_tracebacks(ctx))) from None


class _Failure(click.ClickException):
    exit_code = 2


def _explanation(error: BaseException, *, debugging: bool) -> str:
    """One line of what went wrong; before it its traceback where that was asked for."""
    if isinstance(error, MothError):
        text = str(error)
    elif isinstance(error, KeyboardInterrupt | click.Abort):
        text = "interrupted"
    elif isinstance(error, OSError):
        text = printable(f"{error.filename or 'system'}: {error.strerror or error}")
    else:
        hint = "" if debugging else " (run again with --debug for the traceback)"
        text = f"this is a bug; please report it: {one_line(error)}{hint}"
    if debugging:
        click.echo(traceback_text(error), nl=False, err=True)
    return text


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trojai-moth")
def main() -> None:
    """Scan image classifiers for backdoors, harden the flagged ones with MOTH, and scan them again.

    Model files are untrusted: nothing in them is ever run.
    """
