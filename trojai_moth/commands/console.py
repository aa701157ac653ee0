"""Where commands print to."""

from __future__ import annotations

from rich.console import Console

_PIPE_WIDTH = 120


def make_console() -> Console:
    """A console as wide as the terminal; wide enough for the table where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)
