"""Scanning one opened model by name: the API's ``scan``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.seeding import derive_seed
from ..rounds.model import Model
from .base import Scanner
from .registry import make_scanner
from .result import ScanResult


def scan(
    model: Model,
    scanner: str | Scanner = "neural-cleanse",
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    time_budget: float | None = None,
) -> ScanResult:
    """Look for a trigger in one model; a failure or time-out is "not judged", never "clean".

    scanner: the name of an installed one, several with commas between them, or a scanner object. settings: of that
    scanner, by name, as ``trojai-moth settings`` lists them. seed: by default the model's. time_budget: seconds after
    which the scan is given up; None: never.

    Raises SettingsError for a scanner that is not installed or a setting that it does not have.

    >>> import trojai_moth as tm
    >>> from trojai_moth.testing import PlantedNet, planted_images
    >>> pool = planted_images(10)
    >>> net = PlantedNet(backdoor=(0, 2, 4.0))  # one pixel turns class 0 into 2, where 4 are usual
    >>> model = tm.open_model(net, images=pool.x, labels=pool.y, device="cpu")
    >>> result = tm.scan(model, "neural-cleanse", settings={"steps": 100})
    >>> result.flagged, result.evidence[0].victim, result.evidence[0].target
    (True, 0, 2)
    """
    chosen = (
        scanner if isinstance(scanner, Scanner) else make_scanner(scanner, settings or {}, described=model.described)
    )
    own = derive_seed(model.seed, "scan") if seed is None else seed
    return chosen(model.subject, model.samples, seed=own, time_budget=time_budget)
