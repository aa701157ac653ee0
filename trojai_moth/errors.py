"""Everything that may be shown to a user as one line instead of a traceback."""


class MothError(Exception):
    """Base of all expected failures; its text names the file or setting and says how to mend it."""


class UnreadableModelError(MothError):
    """A model file or directory that can not be loaded safely or does not behave as its round says."""


class SettingsError(MothError):
    """A setting that does not exist or has an impossible value."""


class MissingDependencyError(MothError):
    """An optional package is needed for what was asked; the text says how to install it."""


class RunDirectoryError(MothError):
    """A run directory that can not be continued, because it was made with other settings or is damaged."""


def one_line(error: Exception) -> str:
    """An unexpected exception as a record's reason: its kind and what it says, on one line and not too long."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:500]
