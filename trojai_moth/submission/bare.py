"""A bare virtual environment for a submission's folder: what its requirements name, and its own wheel, and no more.

What is required is linked from this installation rather than installed again, which takes no disk and no network; so a
requirement that the folder does not name is missing in there, as it would be in the image.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from pathlib import Path

from ..core.errors import MothError, SettingsError
from ..core.files import read_text

REQUIREMENTS = "requirements.txt"


def bare_environment(folder: Path, target: Path) -> tuple[Path, list[str]]:
    """Make it in ``target``; its Python, and in words what is other than the requirements say.

    SettingsError if the folder does not hold exactly one wheel of the package, or no requirements.
    """
    wheel = _wheel(folder)
    venv.EnvBuilder(symlinks=True).create(target)
    python = target / "bin" / "python3"
    (site,) = target.glob("lib/python3*/site-packages")
    notes = _link_required(folder / REQUIREMENTS, site)
    words = ["install", "--quiet", "--no-index", "--no-deps", "--target", str(site), str(wheel)]
    command = [sys.executable, "-m", "pip", *words, "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise MothError(f"{wheel}: pip cannot install it ({lines[-1] if lines else done.returncode}); give --python")
    return python, notes


def _wheel(folder: Path) -> Path:
    found = sorted((folder / "wheels").glob("trojai_moth-*.whl"))
    if len(found) != 1:
        raise SettingsError(
            f"{folder / 'wheels'}: holds {len(found)} wheels of trojai-moth, not one; write the folder anew with "
            "trojai-moth container, or give --python to run with"
        )
    return found[0]


def _link_required(requirements: Path, site: Path) -> list[str]:
    """Link every package that is named into ``site``."""
    if not requirements.is_file():
        raise SettingsError(f"{requirements}: is missing; write the folder anew, or give --python to run with")
    notes = []
    for line in read_text(requirements).split():
        name, _, wanted = line.partition("==")
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            notes.append(f"{name} {wanted} is required and not installed here")
            continue
        if found.version.partition("+")[0] != wanted:
            notes.append(f"{name} {found.version} stood in for {wanted}")
        for top in sorted({path.parts[0] for path in found.files or ()} - {"..", "__pycache__"}):
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))).absolute())
    return notes
