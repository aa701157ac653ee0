"""Everything that may be shown to a user as one line instead of a traceback."""

from typing import Literal

# What a plugin did wrong: raised; ran out of time; returned what is no number or no record; changed the model; needed
# more memory than there is.
Misconduct = Literal["error", "time-out", "invalid", "changed the model", "out of memory"]


class MothError(Exception):
    """Base of all expected failures; its text names the file or setting and says how to mend it.

    Names and contents of files get into such texts, so whatever could end the line or steer a terminal is escaped.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


class UnreadableModelError(MothError):
    """A model file or directory that cannot be loaded safely or does not behave as its round says."""


class SettingsError(MothError):
    """A setting that does not exist or has an impossible value."""


class MissingDependencyError(MothError):
    """An optional package is needed for what was asked; the text says how to install it."""


class RunDirectoryError(MothError):
    """A run directory that cannot be continued, because it was made with other settings or is damaged."""


class DamagedRecordError(RunDirectoryError):
    """A record of a run that is cut short or was changed by something else."""


class NoSpaceError(RunDirectoryError):
    """There is no room on the disk for what a run has to write; nothing is held against the model in work."""


class UnfinishedRunError(MothError):
    """A run's time was over before the run was; what it has done stands, and it can be continued."""


class WorkerError(MothError):
    """Workers cannot be started or reached."""


class PluginError(MothError):
    """An installed hardener raised, ran out of time or returned what cannot be used; ``kind`` says which."""

    def __init__(self, text: str, kind: Misconduct) -> None:
        super().__init__(text)
        self.kind: Misconduct = kind


def printable(text: str) -> str:
    r"""Text with every character that does not print as it stands in Python: a newline becomes \n."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def one_line(error: BaseException) -> str:
    """An unexpected exception as a record's reason: its kind and what it says, on one line and not too long."""
    return printable(f"{type(error).__name__}: {error}".replace("\n", " "))[:500]
