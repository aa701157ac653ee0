"""Running the work in a process of its own, so that no hang, crash or lack of memory outlives its time.

The worker says what it has found in lines of JSON on its standard output; whoever supervises it takes each as it comes,
and ends the whole process group when the time is over.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

from ..core.errors import SettingsError
from ..core.records import parse_json

Ending = Literal["done", "out of time", "failed"]
Message = Callable[[dict[str, Any]], None]
# What a worker exits with that has said why it could do no more.
GIVEN_UP: Final = 1
CRASHED: Final = "ended badly"
"""Words of the log for a worker that ended otherwise than it should."""
STANDS: Final = "{}: what was found until then stands"
"""Line of the log for any ending but "done"."""


def supervise(
    command: Sequence[str],
    *,
    deadline: float,
    environment: Mapping[str, str],
    folder: Path,
    take: Message,
    note: Callable[[str], None],
) -> Ending:
    """Run ``command`` until it ends or ``deadline`` (of time.monotonic) comes; what it says goes to ``take``.

    What is no JSON object on a line goes to ``note``, and so does an end that was not meant. Nothing of the command's
    process group is left running, also when this process is asked to end meanwhile. When it is killed instead, the
    command's standard input, on which nothing is ever said, comes to its end.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=dict(environment), cwd=folder,
        start_new_session=True, text=True, errors="replace",
    )  # fmt: skip
    assert process.stdout is not None
    with _ended_with_us(process):
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=_left(deadline))
            except queue.Empty:
                return "out of time"
            if line is None:
                break
            _hand_on(line, take, note)
        try:
            status = process.wait(timeout=_left(deadline))
        except subprocess.TimeoutExpired:
            return "out of time"
    if status not in (0, GIVEN_UP):
        note(f"worker: {CRASHED}, {_how(status)}")
    return "done" if status == 0 else "failed"


def _how(status: int) -> str:
    """The end of a process in words.

    >>> _how(-6), _how(3)
    ('by signal 6', 'with exit code 3')
    """
    return f"by signal {-status}" if status < 0 else f"with exit code {status}"


@contextlib.contextmanager
def _ended_with_us(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill the process's whole group on the way out, by whichever way that is; SIGTERM is one."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop) if _in_main_thread() else None
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if _in_main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _left(deadline: float) -> float | None:
    """Seconds to go, None for ever."""
    return None if math.isinf(deadline) else min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _hand_on(line: str, take: Message, note: Callable[[str], None]) -> None:
    try:
        message = parse_json(line, source="worker")
    except SettingsError:
        message = None
    if isinstance(message, dict):
        take(message)
    elif line.strip():
        note(f"worker: {line.strip():.500}")
