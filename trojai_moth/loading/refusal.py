"""How the parts of the loader say no: a reason without the file's name, which only load_model knows."""

from __future__ import annotations


class Refusal(Exception):
    """A reason not to load a file, as the rest of a sentence that starts with the file's name."""


class ForeignCode(Refusal):
    """The file may be sound, but it needs code other than that of the stock networks."""


def quote(value: object, limit: int = 60) -> str:
    """Text from an untrusted file as printable ASCII of bounded length, safe to show on a terminal."""
    text = value[: limit + 1] if isinstance(value, str) else str(value)
    return ascii(text if len(text) <= limit else text[:limit] + "...")
