"""``--data auto``: the choice of images is left to the round."""

from __future__ import annotations

from collections.abc import Iterable

from .options import AUTO, data_settings


def left_to_round(data: str, assignments: Iterable[str]) -> bool:
    """Whether neither ``--data`` nor ``--set data.source`` says which images."""
    return data == AUTO and not any(text.startswith("data.source=") for text in assignments)


def settings_so_far(data: str, backgrounds: str | None) -> dict[str, str | None]:
    """As data_settings, where auto is examples until the round has said more."""
    return data_settings("examples" if data == AUTO else data, backgrounds)
