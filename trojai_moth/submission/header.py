"""The schema file of a submission: the harness's header with every field filled in, and flat properties."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from . import Kind
from .metaparameters import Parameter

SCHEMA_DIALECT: Final = "http://json-schema.org/draft-07/schema#"
_TITLES: Final[Mapping[Kind, str]] = {
    "detect": "trojai-moth detector: trigger inversion, MOTH, and evidence that tells injected from natural triggers",
    "mitigate": "trojai-moth mitigation: model orthogonalization with an accuracy guard",
}
_DESCRIPTIONS: Final[Mapping[Kind, str]] = {
    "detect": "Inverts triggers with {scanner}; where they are suspiciously small, hardens the model with {hardener} "
    "and refines the probability by how its triggers change.",
    "mitigate": "Hardens the model with {hardener}, which enlarges the distance of every class pair, and takes back "
    "what costs accuracy.",
}


def schema(
    kind: Kind, chosen: list[Parameter], *, commit: str, changes: str, repo: str, scanner: str, hardener: str
) -> dict[str, Any]:
    """The content of metaparameters_schema.json."""
    return {
        "$schema": SCHEMA_DIALECT,
        "title": _TITLES[kind],
        "technique": f"trojai-moth {scanner}" if kind == "detect" else f"trojai-moth {hardener}",
        "technique_description": _DESCRIPTIONS[kind].format(scanner=scanner, hardener=hardener),
        "technique_changes": changes,
        "technique_type": ["Trigger Inversion"],
        "commit_id": commit,
        "repo_name": repo,
        "required": [],
        "additionalProperties": False,
        "type": "object",
        "properties": {parameter.name: dict(parameter.schema) for parameter in chosen},
    }


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out where the package lies, with ``-dirty`` after changes; None where there is none.

    A checkout that the package is merely installed into, as in a virtual environment, is not the package's own.
    """
    try:
        top = _git(folder, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != folder.resolve():
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
