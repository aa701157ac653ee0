"""What authors of scanners and hardeners test their plugins with: two contracts, and tiny networks with known answers.

Subclass a contract in a test module, name your class, and run pytest::

    class TestMine(ScannerContract):
        scanner = Mine

pytest itself is not needed to import this. A broken rule raises AssertionError, which says in words what was broken.
"""

from .hardener_contract import HardenerContract
from .planted import (
    PlantedNet,
    make_samples,
    make_subject,
    planted_images,
    planted_samples,
    square_images,
    square_samples,
    trained_subject,
)
from .scanner_contract import ScannerContract

__all__ = [
    "HardenerContract",
    "PlantedNet",
    "ScannerContract",
    "make_samples",
    "make_subject",
    "planted_images",
    "planted_samples",
    "square_images",
    "square_samples",
    "trained_subject",
]
