"""Hashes of the model files of a round, to know models again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ..core.errors import MothError
from ..loading.files import open_regular
from ..loading.refusal import Refusal
from .model_folder import ModelFolder, SkippedModel
from .packs import unpacked


def file_hashes(cases: Iterable[ModelFolder | SkippedModel]) -> list[tuple[str, str]]:
    """(model id, sha256) of every model file that can be read; what cannot be is not judged later either."""
    found = []
    for case in cases:
        if isinstance(case, ModelFolder):
            with (
                contextlib.suppress(MothError, Refusal, OSError),
                unpacked(case) as there,
                open_regular(there.model_file) as file,
            ):
                found.append((case.model_id, file.sha256))
    return found
