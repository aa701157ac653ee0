"""How the parts of the loader say no: a reason without the file's name, which only load_model knows."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import printable


class Refusal(Exception):
    """A reason not to load a file and what to do, as the rest of a sentence that starts with the file's name."""

    mend = "fetch it again from its source"

    @property
    def reason(self) -> str:
        """What it was raised with, which may name a mend of its own."""
        return super().__str__()

    def __str__(self) -> str:
        """The reason, and the usual mend where it does not name one of its own."""
        return self.reason if ";" in self.reason else f"{self.reason}; {self.mend}"


class ForeignCode(Refusal):
    """The file may be sound, but it needs code other than that of the stock networks."""

    mend = (
        "name the code that builds it, --architecture package.module:factory, save a stock network or its "
        "state_dict(), or, where you know its maker, give --trust-pickle, which runs the file"
    )


class OtherClass(ForeignCode):
    """A whole module comes with names that no stock network needs; its tensors can be read all the same."""


STATE_DICT_MEND = "save the network's state_dict() by itself, torch.save(model.state_dict(), FILE)"


def quote(value: object, limit: int = 60) -> str:
    """Text from an untrusted file as printable ASCII of bounded length, safe to show on a terminal."""
    text = value[: limit + 1] if isinstance(value, str) else str(value)
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def shown(path: Path) -> str:
    """A file's name as printable text, whatever characters it is made of."""
    return printable(str(path))


def unreadable(error: Exception) -> str:
    """What the system, or what no check foresaw, says of a file; its own words are not shown but for the system's."""
    reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
    return f"cannot be read ({reason.lower() if isinstance(error, OSError) else reason}); give a model file that can"
