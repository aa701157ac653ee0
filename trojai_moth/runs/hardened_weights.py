"""Hardened weights that a user names: of a run, they must be those that its journal names."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.subject import Subject
from ..hardeners.trace import HardeningTrace
from ..hardeners.weights import load_weights
from .journal import Journal


def load_named_weights(path: Path, subject: Subject) -> Subject:
    """As load_weights, but a link is followed, since the user named it; DamagedRecordError for a damaged journal."""
    path = Path(os.path.realpath(path))
    return load_weights(path, subject, sha256=_named_in_journal(path))


def _named_in_journal(path: Path) -> str | None:
    """The digest of the weights as the run says it in whose directory they lie; None outside of a run."""
    journal = Journal(path.parent.parent)
    if not journal.started or journal.weights(path.stem) != path:
        return None
    trace = journal.read(path.stem, "harden", HardeningTrace)
    return trace.weights_sha256 if trace else None
