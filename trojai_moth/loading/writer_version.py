"""Which torch wrote a file, as far as its container and its modules' attributes tell."""

from __future__ import annotations

from collections.abc import Collection

from .structure import Weights

Version = tuple[int, int]

_FIRST_WITH_ATTRIBUTE: tuple[tuple[str, Version], ...] = (
    ("_non_persistent_buffers_set", (1, 6)),
    ("_is_full_backward_hook", (1, 8)),
    ("_load_state_dict_post_hooks", (1, 12)),
    ("_forward_hooks_with_kwargs", (2, 0)),
    ("_forward_hooks_always_called", (2, 1)),
)
_FIRST_WITH_ENTRY: tuple[tuple[str, Version], ...] = (("byteorder", (2, 1)), (".format_version", (2, 7)))
_OLD_BACKEND = "_backend"
_LAST_WITH_BACKEND: Version = (1, 3)
_FIRST_WITH_NUMBERED_STORAGES: Version = (1, 9)
_ZIP: Version = (1, 6)


def written_by(kind: str, entries: Collection[str], weights: Weights | None) -> str:
    """In words, e.g. "torch 1.6 to 1.7"; ``entries`` are a zip container's names without their folder."""
    if kind == "safetensors":
        return "safetensors, which does not say by what"
    if kind == "legacy" and (weights is None or weights.root is None):
        return "torch 1.5 or older, or a newer one that was asked for the old container"
    low, high = _bounds(kind, entries, weights)
    if low is None:
        return "unknown" if high is None else f"torch {_text(high)} or older"
    if high is None:
        return f"torch {_text(low)} or newer"
    return f"torch {_text(low)}" if low == high else f"torch {_text(low)} to {_text(high)}"


def _bounds(kind: str, entries: Collection[str], weights: Weights | None) -> tuple[Version | None, Version | None]:
    """Oldest and newest version that writes such a file."""
    lows: list[Version] = []
    highs: list[Version] = []
    if kind == "zip":
        lows.append(_ZIP)
        _compare(entries, _FIRST_WITH_ENTRY, lows, highs)
        numbered = any(name == "data/0" for name in entries)
        (lows if numbered else highs).append(_FIRST_WITH_NUMBERED_STORAGES if numbered else (1, 8))
    root = weights.root if weights else None
    if root is not None and root.state:
        attributes = [name for name in root.state if isinstance(name, str)]
        _compare(attributes, _FIRST_WITH_ATTRIBUTE, lows, highs)
        if _OLD_BACKEND in attributes:
            highs.append(_LAST_WITH_BACKEND)
    return max(lows, default=None), min(highs, default=None)


def _compare(
    found: Collection[str], first_with: tuple[tuple[str, Version], ...], lows: list[Version], highs: list[Version]
) -> None:
    for name, version in first_with:
        if name in found:
            lows.append(version)
        else:
            highs.append(_before(version))


def _before(version: Version) -> Version:
    return (1, 13) if version == (2, 0) else (version[0], version[1] - 1)


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
