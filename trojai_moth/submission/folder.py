"""A complete submission folder: recipe, entry point, metaparameters and schema, learned parameters, wheel, README."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

import jsonschema

from .. import __version__
from ..core.errors import MothError, SettingsError
from ..core.files import read_text, write_text
from ..scanners.calibration import Calibration, read_calibration
from ..scanners.registry import make_scanner
from . import Kind
from .detection import CALIBRATION_FILE, RULE_FILE
from .header import commit_of, schema
from .metaparameters import Parameter, defaults, nested, parameters
from .rules import LEARNED, METAPARAMETERS, SCHEMA

_TEMPLATES: Final = Path(__file__).parent / "templates"
_ENTRY: Final = """from pathlib import Path

from trojai_moth.submission.entrypoint import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
"""
# What a source tree must hold for the wheel to be built from it.
_SOURCES: Final = (
    "trojai_moth", "scanners", "eval", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md",
    "LICENSE",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a folder is made of. ``values``: metaparameters that are not the defaults."""

    kind: Kind
    scanner: str
    hardener: str
    values: Mapping[str, Any]
    calibration: Path | None
    rule: Path | None
    wheel: Path | None
    wheelhouse: bool
    base: str
    commit: str | None
    changes: str
    repo: str


def write_folder(plan: Plan, out: Path) -> list[str]:
    """Write everything into ``out``, which must be new or empty; returns the names of what was written.

    SettingsError for values that are no metaparameters, for learned parameters that do not fit, and where the commit
    or the package's source cannot be found; the folder is then left as it was.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"{out}: not empty; give another folder")
    learned = read_calibration(plan.calibration) if plan.calibration else None
    scanner = learned.scanner if learned else plan.scanner
    chosen = parameters(plan.kind, scanner, plan.hardener)
    top = source_tree()
    commit = plan.commit or (commit_of(top) if top else None)
    if not commit:
        raise SettingsError("--commit: the package does not run from a checkout; say which commit this is")
    values = {**defaults(chosen), **(_learned_values(learned, chosen) if learned else {}), **plan.values}
    made = schema(
        plan.kind, _with_defaults(chosen, values), commit=commit, changes=plan.changes, repo=plan.repo,
        scanner=scanner, hardener=plan.hardener,
    )  # fmt: skip
    _check_values(values, made)
    if learned:
        _check_learned(learned, values, chosen)
    with tempfile.TemporaryDirectory(dir=_near(out)) as temporary:
        folder = Path(temporary) / "folder"
        _write(folder, plan, values, made, {"commit": commit, "scanner": scanner})
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            shutil.move(str(path), str(out / path.name))
    return sorted(path.name for path in out.iterdir())


def _write(folder: Path, plan: Plan, values: Mapping[str, Any], made: Any, words: Mapping[str, str]) -> None:
    (folder / LEARNED).mkdir(parents=True)
    write_text(folder / METAPARAMETERS, json.dumps(values, indent=2) + "\n")
    write_text(folder / SCHEMA, json.dumps(made, indent=2) + "\n")
    write_text(folder / "entrypoint.py", _ENTRY)
    for path, name in ((plan.calibration, CALIBRATION_FILE), (plan.rule, RULE_FILE)):
        if path is not None:
            shutil.copyfile(path, folder / LEARNED / name)
    # A folder that is empty would not reach the image.
    write_text(folder / LEARNED / "README.txt", f"{CALIBRATION_FILE} and {RULE_FILE}, where there are any.\n")
    write_text(folder / "requirements.txt", "".join(f"{line}\n" for line in pinned()))
    (folder / "wheels").mkdir()
    if plan.wheel is not None:
        shutil.copyfile(plan.wheel, folder / "wheels" / plan.wheel.name)
    else:
        build_wheel(folder / "wheels")
    if plan.wheelhouse:
        _download(folder / "requirements.txt", folder / "wheels")
    index = "--no-index --find-links /opt/trojai-moth/wheels" if plan.wheelhouse else ""
    about = {**words, "kind": plan.kind, "base": plan.base, "index": index, "hardener": plan.hardener}
    about |= {"version": __version__, "wheels": _wheels_words(plan.wheelhouse)}
    recipe = Template(read_text(_TEMPLATES / "recipe.def")).substitute(about)
    write_text(folder / f"{plan.kind}.def", recipe.replace("install --no-cache-dir  -r", "install --no-cache-dir -r"))
    readme = read_text(_TEMPLATES / f"README.{plan.kind}.md")
    write_text(folder / "README.md", Template(readme).substitute(about))


def _wheels_words(wheelhouse: bool) -> str:
    if wheelhouse:
        return "`wheels/` holds all that is installed, so only the base image is downloaded."
    return "Building downloads the base image and the pinned packages of `requirements.txt`; running downloads nothing."


def source_tree() -> Path | None:
    """The checkout that the package runs from; None where it was installed as a wheel."""
    top = Path(__file__).resolve().parents[2]
    return top if all((top / name).exists() for name in ("setup.cfg", "pyproject.toml", "scanners")) else None


def build_wheel(target: Path) -> Path:
    """The package's own wheel, built from a copy of the checkout; MothError says how to give one instead."""
    top = source_tree()
    if top is None:
        raise SettingsError("--wheel: the package does not run from a checkout; give its wheel")
    with tempfile.TemporaryDirectory() as temporary:
        for name in _SOURCES:
            source, copy = top / name, Path(temporary) / name
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, copy, ignore=ignored) if source.is_dir() else shutil.copyfile(source, copy)
        command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), "."]
        _pip(command, Path(temporary), "give a wheel with --wheel, made by `pip wheel --no-deps .` in a checkout")
    return next(target.glob("trojai_moth-*.whl"))


def pinned() -> list[str]:
    """The installed versions of all that the package needs, directly or not, as requirements; sorted."""
    names, found = ["trojai-moth"], dict[str, str]()
    while names:
        for text in importlib.metadata.requires(names.pop()) or ():
            match = re.match(r"[A-Za-z0-9._-]+", text)
            name = re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""
            if not name or "extra ==" in text or name in found:
                continue
            try:
                found[name] = importlib.metadata.version(name).partition("+")[0]
            except importlib.metadata.PackageNotFoundError:  # needed elsewhere, such as on another system
                continue
            names.append(name)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _download(requirements: Path, target: Path) -> None:
    command = ["download", "--quiet", "--only-binary", ":all:", "--dest", str(target), "-r", str(requirements)]
    _pip(command, target, "leave --wheelhouse out, or try again with a network")


def _pip(words: list[str], folder: Path, mend: str) -> None:
    command = [sys.executable, "-m", "pip", *words, "--disable-pip-version-check"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise MothError(f"pip {words[0]} failed ({lines[-1] if lines else done.returncode}); {mend}")


def _near(out: Path) -> Path:
    """The nearest folder above that exists, so that moving into place is one step on one disk."""
    return next(parent for parent in out.absolute().parents if parent.is_dir())


def _with_defaults(chosen: list[Parameter], values: Mapping[str, Any]) -> list[Parameter]:
    """The same parameters, whose schema says what is in metaparameters.json."""
    return [
        Parameter(one.name, one.group, one.field, one.default, {**one.schema, "default": values[one.name]})
        for one in chosen
    ]


def _check_values(values: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    try:
        jsonschema.validate(dict(values), dict(made))
    except jsonschema.ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "--set"
        raise SettingsError(f"metaparameter {where}: {error.message:.300}") from None


def _learned_values(learned: Calibration, chosen: list[Parameter]) -> dict[str, Any]:
    """The metaparameters that a calibration was learned with."""
    several = "," in learned.scanner
    found: dict[str, Any] = {}
    for one in chosen:
        if one.group == "data":
            found[one.name] = getattr(learned.data, one.field)
        elif one.group == "scanner" and not several:
            found[one.name] = learned.scanner_settings[one.field]
        elif one.group.startswith("scanner."):
            found[one.name] = learned.scanner_settings[one.group.removeprefix("scanner.")][one.field]
    return found


def _check_learned(learned: Calibration, values: Mapping[str, Any], chosen: list[Parameter]) -> None:
    """SettingsError if the calibration was learned with settings that are no metaparameters and not the defaults."""
    from .job import run_settings

    settings = run_settings("detect", values)[1]
    learned.check(settings.scanner, make_scanner(settings.scanner, settings.scanner_options), settings.data)
    assert not nested(values, chosen)[1]


@dataclass(frozen=True)
class Recipe:
    """``header``: such as From; ``sections``: the text below each %name."""

    header: Mapping[str, str]
    sections: Mapping[str, str]

    @property
    def files(self) -> list[tuple[str, str]]:
        """What %files copies: source, relative to the recipe's folder, and place in the image."""
        pairs = [line.split() for line in self.sections.get("files", "").splitlines() if line.strip()]
        return [(words[0], words[-1]) for words in pairs]


def find_recipe(folder: Path) -> Path:
    """The one recipe of a submission's folder; SettingsError if there is none, or more."""
    found = sorted(folder.glob("*.def"))
    if len(found) != 1:
        raise SettingsError(f"{folder}: holds {len(found)} recipes (*.def), not one; write it anew")
    return found[0]


def read_recipe(path: Path) -> Recipe:
    """Header and sections of a recipe; SettingsError if it has no %post or %runscript."""
    head, *rest = re.split(r"^%(\w+)[^\n]*$", read_text(path), flags=re.MULTILINE)
    pairs = (line.partition(":") for line in head.splitlines() if ":" in line)
    recipe = Recipe(
        {key.strip(): value.strip() for key, _, value in pairs}, dict(zip(rest[::2], rest[1::2], strict=True))
    )
    missing = [f"%{name}" for name in ("files", "post", "runscript") if not recipe.sections.get(name, "").strip()]
    if missing:
        raise SettingsError(f"{path}: has no {' and no '.join(missing)}; write it anew with trojai-moth container")
    return recipe
