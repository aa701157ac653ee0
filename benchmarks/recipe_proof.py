"""A submission's recipe carried out in a root file system of Debian packages, and the harness's calls run in it.

    trojai-moth container detect FOLDER --wheelhouse
    python benchmarks/recipe_proof.py FOLDER --base BASE --model ROUND/id-00000001 --out FILE

BASE is made with debootstrap where it does not exist. Needs Linux, root, and about 10 GB in the temporary folder. The
record holds every step and call, and in words what remains unproved; "ended" is false where the check was broken off.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import Record, parser

from trojai_moth.submission.folder import find_recipe, read_recipe
from trojai_moth.submission.rules import METAPARAMETERS

BASE_WORDS = ("--variant=minbase", "--include=python3,python3-venv", "bookworm")


def main() -> None:
    """Make the base, run the check in it, and write the record."""
    options = parser(__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--base", type=Path, required=True)
    options.add_argument("--model", type=Path)
    known = options.parse_args()
    recipe = read_recipe(find_recipe(known.folder))
    values = json.loads((known.folder / METAPARAMETERS).read_text(encoding="utf-8"))
    record = Record("recipe_proof", known, image=recipe.header.get("From"), metaparameters=values)
    if not known.base.exists():
        subprocess.run(["debootstrap", *BASE_WORDS, str(known.base)], check=True)
    record.part("base", lambda: about_base(known.base))
    record.part("wheelhouse", lambda: wheelhouse(known.folder / "wheels"))
    found = record.part("check", lambda: check(known.folder, known.base, known.model))
    record.finish(
        proved=[call["rule"] for call in found["calls"] if not call["findings"]],
        findings=found["findings"],
        not_proved=found["not_proved"],
        apptainer=shutil.which("apptainer") or shutil.which("singularity") or "not installed",
    )
    print(f"{len(found['calls'])} steps and calls, {len(found['findings'])} findings")


def about_base(base: Path) -> dict[str, str]:
    """What stands in for the recipe's own image."""
    python = subprocess.run(["chroot", str(base), "python3", "-V"], capture_output=True, text=True, check=True)
    system = (base / "etc" / "debian_version").read_text(encoding="utf-8").strip()
    return {"debootstrap": " ".join(BASE_WORDS), "debian": system, "python": python.stdout.strip()}


def wheelhouse(folder: Path) -> dict[str, Any]:
    """How much is installed from the folder."""
    sizes = [path.stat().st_size for path in folder.glob("*.whl")]
    return {"wheels": len(sizes), "gib": round(sum(sizes) / 2**30, 2)}


def check(folder: Path, base: Path, model: Path | None) -> dict[str, Any]:
    """What ``submission check --rootfs`` writes."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "check.json"
        words = ["submission", "check", str(folder), "--rootfs", str(base), "--json", str(out)]
        words += ["--model", str(model)] if model else []
        subprocess.run([sys.executable, "-m", "trojai_moth", *words], check=False)
        if not out.is_file():
            raise SystemExit("submission check found nothing to run")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


if __name__ == "__main__":
    main()
