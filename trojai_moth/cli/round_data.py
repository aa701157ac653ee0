"""``--data auto``: the choice of images is left to the round."""

from __future__ import annotations

from collections.abc import Iterable

from ..rounds.data_settings import source_settings
from .options import AUTO


def left_to_round(data: str, assignments: Iterable[str]) -> bool:
    """Whether neither ``--data`` nor ``--set data.source`` says which images."""
    return data == AUTO and not any(text.startswith("data.source=") for text in assignments)


def settings_so_far(data: str, backgrounds: str | None) -> dict[str, str | None]:
    """As source_settings, where auto is examples until the round has said more."""
    return source_settings("examples" if data == AUTO else data, backgrounds)
