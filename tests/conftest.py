import logging
import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The folders scanners/ and eval/ must be reachable as parts of the package only, as in an installed copy.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# What the tests learn about this machine's speed stays with them, and is the same for every process they start.
_CACHE = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = _CACHE.name


@pytest.fixture
def notes(caplog):
    """What is logged, as far as the command line shows it unasked; ``messages`` are its lines."""
    caplog.set_level(logging.INFO, "trojai_moth")
    return caplog


@pytest.fixture(scope="session")
def extra_data():
    """Folder of larger test data that is not part of the repository; the test is skipped where there is none."""
    named = os.environ.get("TROJAI_MOTH_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("set TROJAI_MOTH_DATA to a folder with legacy/ and pilot-round/ to run this")
    return folder
