"""What every command shares: how much it says of its work, by -v, -q and --debug before or after its name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import click

from ..core import messages

_LEVEL, _DEBUG = f"{__name__}.level", f"{__name__}.debug"


def chosen_level(ctx: click.Context) -> int:
    """The level of ``logging`` from which on messages are shown."""
    return int(ctx.meta.get(_LEVEL, logging.INFO))


def wants_tracebacks(ctx: click.Context) -> bool:
    """Whether --debug was given."""
    return bool(ctx.meta.get(_DEBUG, False))


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _: click.Parameter, given: bool) -> None:
        if given and ctx.meta.setdefault(_LEVEL, level) != level:
            raise click.UsageError("-v and -q cannot be given together; leave one of them out", ctx)

    return callback


def _set_debug(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        ctx.meta[_DEBUG] = True


_MESSAGES = (
    click.Option(
        ["-v", "--verbose"], is_flag=True, expose_value=False, callback=_set_level(logging.DEBUG),
        help="Say more of what is done.",
    ),
    click.Option(
        ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_set_level(logging.WARNING),
        help="Say nothing but results, warnings and errors.",
    ),
    click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=_set_debug,
        help="Show the traceback of what goes wrong; a run's journal keeps it, too.",
    ),
)  # fmt: skip
MESSAGE_OPTIONS = frozenset(name for option in _MESSAGES for name in option.opts)


class Command(click.Command):
    """A command with the options for messages, which its help lists in a section of their own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its own options, those for messages, and --help."""
        params = super().get_params(ctx)
        own = [param for param in params if "--help" not in param.opts]
        return [*own, *_MESSAGES, *params[len(own) :]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two sections: Options and Messages."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for title, shown in (
            ("Options", [option for option in options if option not in _MESSAGES]),
            ("Messages", [option for option in options if option in _MESSAGES]),
        ):
            lines = [line for option in shown if (line := option.get_help_record(ctx))]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it with messages shown as was chosen."""
        with messages.configured(chosen_level(ctx), wants_tracebacks(ctx)):
            return super().invoke(ctx)


class Group(Command, click.Group):
    """A group of such commands, which has the same options."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Three sections: Options, Messages and Commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def command(name: str | None = None) -> Callable[[Callable[..., Any]], Command]:
    """``click.command`` for a :class:`Command`."""
    return cast(Callable[[Callable[..., Any]], Command], click.command(name, cls=Command))
