"""Where commands print to, and how they show what they are at."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core import messages
from ..core.messages import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PIPE_WIDTH = 120
# Seconds between two lines about progress in a log.
_LOG_EVERY_S = 30.0
_log = logging.getLogger(__name__)


def make_console() -> Console:
    """A console as wide as the terminal; wide enough for the table where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def make_table(*columns: str, right: bool = False) -> Table:
    """An empty table without lines; ``right``: all columns but the first are flush right, as numbers should be."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if right and place else "left")
    return table


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A callback that shows progress on standard error: one line that changes on a terminal, else lines of a log.

    A log gets a line at most twice a minute, and all of them with -v. With -q nothing is shown.
    """
    if messages.level() > logging.INFO:
        yield silent
    elif not sys.stderr.isatty():
        yield logged()
    else:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(stderr=True)
        with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
            yield lambda text: live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


def logged() -> Progress:
    """A callback that gives the log a line at most twice a minute, and with -v all of them."""
    last = -math.inf

    def tell(text: str) -> None:
        nonlocal last
        due = time.monotonic() - last >= _LOG_EVERY_S
        _log.log(logging.INFO if due else logging.DEBUG, "%s", text)
        if due:
            last = time.monotonic()

    return tell
