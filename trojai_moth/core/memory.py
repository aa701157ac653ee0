"""How much memory a process may fill, asked before it is filled: the system kills what takes more, without a word."""

from __future__ import annotations

import os

from .files import read_text

# The rest is for the network, its gradients and the system.
_SHARE = 0.8
_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNKNOWN = 16 << 30


def memory_for_data() -> int:
    """Bytes that images may take on this machine, or in this container: four fifths of its memory."""
    return int(_SHARE * min([_of_machine(), *filter(None, map(_of_group, _GROUP_LIMITS))]))


def _of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # no such system
        return _UNKNOWN


def _of_group(path: str) -> int | None:
    """What a container may take; None where nothing is said."""
    try:
        return int(read_text(path))
    except (OSError, ValueError):
        return None


def in_words(size: int) -> str:
    """E.g. ``15.6 GB``, or ``786 MB``.

    >>> in_words(15_600_000_000), in_words(786_000_000), in_words(2 * 10**15)
    ('15.6 GB', '786 MB', '2000000.0 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
