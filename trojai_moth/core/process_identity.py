"""A name for this process by which others can tell for certain that it is gone, where that can be told at all.

The name is made of the machine's boot, the process's number and the moment it was started, counted from the boot; so
neither a new process with the same number nor a changed clock can be mistaken for it. Of a process of another machine
nothing is known: it is never called dead.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from functools import cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Letters of /proc/PID/stat for a process that does nothing any more and waits for its parent to notice.
_GONE = ("Z", "X")
_START_FIELD = 19


def process_name() -> str:
    """The name of this process: letters, digits and two dashes."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:
    state = _state(pid)
    return f"{_machine()}-{pid}-{state[1] if state else secrets.token_hex(4)}"


def is_process_dead(name: str) -> bool:
    """Whether the process of this name is certainly gone: it was of this machine, and is no longer there."""
    machine, _, rest = name.partition("-")
    pid, _, start = rest.partition("-")
    if machine != _machine() or not pid.isdecimal() or _state(os.getpid()) is None:
        return False
    state = _state(int(pid))
    return state is None or state[0] in _GONE or state[1] != start


@cache
def _machine() -> str:
    """The same for processes that can see each other's numbers: one boot of one machine, one container."""
    try:
        seen = f"{_BOOT.read_text()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        seen = secrets.token_hex(16)
    return hashlib.sha256(seen.encode()).hexdigest()[:12]


def _state(pid: int) -> tuple[str, str] | None:
    """The letter of a process's state and when it was started, in ticks since the boot; None if it is not there."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks
    return fields[0], fields[_START_FIELD]
