"""What a container may not have: a home, a network, a writable disk. Everything that is written goes to scratch."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

WORK_NAME: Final = "trojai-moth"
# Where libraries keep files of their own, each below the work folder.
_CACHES: Final = (
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TORCH_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR",
    "NUMBA_CACHE_DIR", "HF_HOME", "CUDA_CACHE_PATH", "TMPDIR",
)  # fmt: skip
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def process_start() -> float:
    """When this process began, on the clock of time.monotonic; now, where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        age = 0.0
    return time.monotonic() - age


def work_folder(scratch: Path | None) -> Path:
    """An empty folder of our own below ``scratch``, or a temporary one where that cannot be written to.

    What an earlier model left there is wiped: nothing may be carried from one model to the next.
    """
    if scratch is not None:
        folder = scratch.absolute() / WORK_NAME
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        except OSError:
            pass
        else:
            return folder
    return Path(tempfile.mkdtemp(prefix=f"{WORK_NAME}-"))


def child_environment(work: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process that does the work: home and caches below ``work``, and no downloads."""
    environment = {**base, **_OFFLINE, "HOME": str(work / "home")}
    for name in _CACHES:
        environment[name] = str(work / "cache" / name.lower())
    for name in ("HOME", *_CACHES):
        os.makedirs(environment[name], exist_ok=True)
    return environment


def remove(work: Path) -> None:
    """Leave nothing behind."""
    shutil.rmtree(work, ignore_errors=True)
