import importlib
import logging
import os
import sys
import tempfile
from itertools import count
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The folders scanners/ and eval/ must be reachable as parts of the package only, as in an installed copy.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# Test processes run side by side; a thread each keeps them out of each other's way, and rounds the same everywhere.
# Said before anything imports torch; the processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

# The user's own cache is neither read nor written.
_CACHE = tempfile.TemporaryDirectory()
_CACHES = (Path(_CACHE.name) / str(number) for number in count())
os.environ["XDG_CACHE_HOME"] = str(next(_CACHES))


@pytest.fixture(scope="session", autouse=True)
def plain_plans():
    """Networks run in the plain way, so that no test depends on what is fastest just now."""
    from plain_plans import use_plain_plans  # not above: the process that only hands out tests needs no torch

    with pytest.MonkeyPatch.context() as patch:
        use_plain_plans(patch)
        yield


@pytest.fixture(autouse=True)
def own_cache(plain_plans):
    """What a test, and the processes that it starts, remember of this machine is forgotten with it."""
    from trojai_moth.triggers.execution_plan import default_book

    default_book.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(next(_CACHES)))
        yield
    default_book.cache_clear()


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


@pytest.fixture(scope="module")
def script():
    """A script of benchmarks/ by name, as a module; they import each other as in a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module
