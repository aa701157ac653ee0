"""``trojai-moth make-round``: a small labelled round to try things on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from ..core.records import from_dict
from ..synthesis.settings import MakeRoundSettings
from .base import command
from .options import options_from_record

_log = logging.getLogger(__name__)


@command("make-round")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@options_from_record(MakeRoundSettings)
def make_round_command(out: Path, **choices: Any) -> None:
    """Write a round of small models to OUT in round 4's layout, half clean, half poisoned.

    Models come as twins that differ in nothing but the backdoor. A round that was interrupted goes on where it stopped.
    Needs TrojAI's generator (pip install --no-deps trojai==0.2.23); filter triggers also need ImageMagick (apt-get
    install libmagickwand-6.q16-6).
    """
    settings = from_dict(MakeRoundSettings, choices, source="make-round")
    from ..synthesis.make_round import make_round

    made = make_round(out, settings, progress=lambda text: _log.info("%s", text))
    if not made:
        raise SystemExit(2)
