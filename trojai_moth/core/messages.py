"""What is said while work goes on: messages through ``logging``, and one callback for progress.

Loggers are named by module below ``trojai_moth``. A library says nothing by itself, so messages are only shown after
:func:`configure`, which the command line calls, and every worker process with :func:`level` and :func:`debugging` of
the process that starts it.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import printable

Progress = Callable[[str], None]
"""Is told what a long task is at, a few words at a time; it may raise to end the task."""

LOGGER = "trojai_moth"

_log = logging.getLogger(__name__)
_debugging = False


def silent(text: str) -> None:
    """The progress callback that shows nothing."""


def configure(level: int, debug: bool = False) -> None:
    """Show messages from this level of ``logging`` on, on standard error; ``debug``: show tracebacks, too.

    A second call replaces what the first one said.
    """
    global _debugging
    _debugging = debug
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level)
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        logger.addHandler(_StandardError())


@contextmanager
def configured(level: int, debug: bool = False) -> Iterator[None]:
    """As :func:`configure`, until the block ends."""
    global _debugging
    logger = logging.getLogger(LOGGER)
    before = (list(logger.handlers), logger.level, _debugging)
    configure(level, debug)
    try:
        yield
    finally:
        logger.handlers, former, _debugging = before
        logger.setLevel(former)


@contextmanager
def handed_to(handler: logging.Handler, level: int, debug: bool = False) -> Iterator[None]:
    """As :func:`configured`, but this handler gets the messages, and standard error does not."""
    with configured(level, debug):
        logging.getLogger(LOGGER).handlers = [handler]
        yield


def level() -> int:
    """The level of ``logging`` from which on messages are shown."""
    return logging.getLogger(LOGGER).getEffectiveLevel()


def debugging() -> bool:
    """Whether tracebacks are to be shown and kept."""
    return _debugging


def traceback_text(error: BaseException) -> str:
    """The traceback of an exception, without what could steer a terminal; it ends in a newline."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "".join(f"{printable(line)}\n" for line in lines)


def kept_traceback(error: BaseException) -> str | None:
    """The traceback of what a record says in one line, and shows it, where that is asked for; None otherwise."""
    if not _debugging:
        return None
    _log.info("%s", type(error).__name__, exc_info=error)
    return traceback_text(error)


class _StandardError(logging.Handler):
    """One line for each message: the time, and what is said.

    The stream is looked up for each message, because a progress bar and a test put another one in its place.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write it; a stream that is closed or full must not end the work."""
        try:
            sys.stderr.write(_line(record, terminal=sys.stderr.isatty()))
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _line(record: logging.LogRecord, *, terminal: bool) -> str:
    """With the date, unless somebody is watching: a log may be read days later. What steers a terminal is escaped."""
    moment = time.localtime(record.created)
    words = [time.strftime("%H:%M:%S" if terminal else "%Y-%m-%d %H:%M:%S", moment)]
    if record.levelno >= logging.WARNING:
        words.append(f"{record.levelname.lower()}:")
    text = " ".join([*words, printable(record.getMessage())]) + "\n"
    error = record.exc_info[1] if record.exc_info else None
    return text + (traceback_text(error) if error else record.exc_text or "")
