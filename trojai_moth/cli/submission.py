"""``trojai-moth submission check``: what the harness would object to, before anything is sent."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import MothError, SettingsError
from ..core.files import write_text
from ..core.records import LONGEST_S
from .base import Group

if TYPE_CHECKING:
    from ..submission.replay import Player, Replay
    from ..submission.rules import Finding


@click.group("submission", cls=Group)
def submission() -> None:
    """Check a submission as the harness will."""


@submission.command("check")
@click.argument("target", metavar="FOLDER_OR_IMAGE", type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="A model's folder to run the command lines with. Without one only a broken model is.")  # fmt: skip
@click.option("--name", help="The file name that the image will have, e.g. round4_sts_first.simg.")
@click.option("--run/--no-run", default=True, help="Run the harness's command lines.")
@click.option("--time-budget", type=click.FloatRange(5, LONGEST_S), default=570.0, show_default=True,
              help="Seconds for each call.")  # fmt: skip
@click.option("--rootfs", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="A root file system with Python, as debootstrap makes it: the recipe is carried out in a copy, "
              "and the command lines run in there. Linux; the folder needs a wheelhouse.")  # fmt: skip
@click.option("--python", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Run the folder's entry point with this Python. Default: a bare virtual environment with the "
              "folder's requirements and wheel.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all of it here.")
def check(target: Path, name: str | None, run: bool, json_file: Path | None, **choices: Any) -> None:
    """Replay the harness's checks and command lines on a submission's folder or built image.

    A folder is run in a bare virtual environment, or with its recipe carried out in a root file system. It gets neither
    a network nor a home. Exit code 0: nothing found; 1: something was; 2: error.
    """
    from ..submission.replay import preliminary_only
    from ..submission.rules import check_folder, check_name

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = target if target.is_dir() else _extracted(target, work / "image")
        kind = "mitigate" if _is_mitigation(folder) else "detect"
        findings = check_folder(folder, mitigation=kind == "mitigate")
        if name or target.is_file():
            findings += check_name(name or target.name)
        replay = _replay(target, folder, work, kind, Choices(**choices)) if run else Replayed("", (), [])
        words = f"; calls run {replay.how}" if run else ""
        click.echo(f"{'mitigation' if kind == 'mitigate' else 'detector'}{words}")
        missing = [*replay.notes, *unproved(target, choices["model"], run, choices["rootfs"])]
        found: dict[str, Any] = {
            "kind": kind,
            "how": replay.how,
            "findings": findings,
            "calls": [],
            "not_proved": missing,
        }
        _write(json_file, found, ended=False)
        for call in replay.calls:
            click.echo(call_line(call))
            found["calls"].append(call)
            findings += call.findings
            _write(json_file, found, ended=False)
        findings += preliminary_only(found["calls"])
        for line in finding_lines(findings, missing):
            click.echo(line)
        _write(json_file, found, ended=True)
    raise SystemExit(1 if findings else 0)


def _write(path: Path | None, found: dict[str, Any], *, ended: bool) -> None:
    """What there is until now: a check that is broken off leaves what it had."""
    from ..core.records import to_dict

    if path:
        plain = {
            name: list(map(to_dict, value)) if name in ("findings", "calls") else value for name, value in found.items()
        }
        write_text(path, json.dumps({**plain, "ended": ended}, indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Options that say how command lines are run."""

    model: Path | None
    time_budget: float
    rootfs: Path | None
    python: Path | None


@dataclass(frozen=True)
class Replayed:
    """How calls are isolated, in words; what comes of each; and what is other than in an image."""

    how: str
    calls: Iterable[Replay]
    notes: list[str]


def _replay(target: Path, folder: Path, work: Path, kind: str, choices: Choices) -> Replayed:
    """Run every call, in the image, in a root file system, or in a bare virtual environment."""
    from ..submission.bare import bare_environment
    from ..submission.replay import Isolation, Player, isolation

    calls = work / "calls"
    calls.mkdir()
    player = Player(folder.absolute(), choices.model, calls, choices.time_budget, isolation())
    if target.is_file():
        program = (_apptainer(), "run", "--contain", "--bind", str(work), str(target))
        player = replace(player, program=program, isolated=Isolation((), {}, "in the image, with --contain"))
        return Replayed(player.isolated.words, player.play(kind), [])
    if choices.rootfs:
        return _in_rootfs(player, choices.rootfs, work / "rootfs", kind)
    if choices.python:
        words = f"with {choices.python}, {player.isolated.words}"
        return Replayed(words, replace(player, python=choices.python.absolute()).play(kind), [])
    python, notes = bare_environment(folder, work / "bare")
    words = f"in a bare virtual environment, {player.isolated.words}"
    return Replayed(words, replace(player, python=python).play(kind), notes)


def _in_rootfs(player: Player, base: Path, root: Path, kind: str) -> Replayed:
    """The recipe's steps, then every call, unless a step fails."""
    from ..submission.folder import find_recipe, read_recipe
    from ..submission.replay import Isolation
    from ..submission.rootfs import prepare

    recipe = read_recipe(find_recipe(player.folder))
    made = prepare(base.absolute(), player.folder, recipe, root)
    how = "in a root file system with the recipe carried out in it, read-only, without a network or a home"
    inside = replace(player, program=made.program(player.work), isolated=Isolation((), {}, how))

    def calls() -> Iterator[Replay]:
        failed = False
        for step in made.build():
            failed = bool(step.findings)
            yield step
        if not failed:
            yield from inside.play(kind)

    note = f"that Apptainer builds it from {recipe.header.get('From')}; {base.name} stood in for that image"
    return Replayed(how, calls(), [note])


def call_line(call: Replay) -> str:
    """One call: how long it took, and what came of it."""
    from ..submission.replay import CALLS
    from ..submission.rootfs import STEPS

    state, what = "found something" if call.findings else "ok", {**CALLS, **STEPS}[call.rule]
    return f"  {call.rule:<17} {call.seconds:6.1f} s  {call.result:<24} {state}  ({what})"


def finding_lines(findings: list[Finding], missing: list[str]) -> list[str]:
    """What was found with its mend, and what could not be proved."""
    lines = [f"FOUND {finding.rule}: {finding.what}\n      {finding.mend}" for finding in findings]
    lines += [] if findings else ["Nothing found."]
    return [*lines, *(f"Not proved: {text}" for text in missing)]


def unproved(target: Path, model: Path | None, run: bool, rootfs: Path | None) -> list[str]:
    """What this check leaves open."""
    found = []
    if target.is_dir() and not (run and rootfs):
        found.append("that the recipe builds, and what it installs; build it and check the image")
    if not run:
        found.append("that its command lines work; leave --no-run out")
    elif model is None:
        found.append("that a model is examined; give one with --model")
    return found


def _is_mitigation(folder: Path) -> bool:
    """By the metaparameters: only a detector has a verdict or a scanner."""
    from ..core.records import read_json
    from ..submission.rules import METAPARAMETERS

    try:
        values = read_json(folder / METAPARAMETERS)
    except (OSError, SettingsError):
        return (folder / "mitigate.def").exists()
    return isinstance(values, dict) and "scanner" not in values and (folder / "detect.def").exists() is False


def _apptainer() -> str:
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        raise MothError("checking an image needs Apptainer, which is not installed here; check the folder instead")
    return program


def _extracted(image: Path, folder: Path) -> Path:
    """The files that the harness reads out of an image, laid out like a submission's folder."""
    from ..submission.rules import LEARNED, METAPARAMETERS, SCHEMA

    program = _apptainer()
    folder.mkdir()
    for name in (METAPARAMETERS, SCHEMA):
        done = subprocess.run([program, "exec", str(image), "cat", f"/{name}"], capture_output=True, check=False)
        if done.returncode == 0:
            (folder / name).write_bytes(done.stdout)
    found = subprocess.run([program, "exec", str(image), "test", "-d", f"/{LEARNED}"], capture_output=True, check=False)
    if found.returncode == 0:
        (folder / LEARNED).mkdir()
    return folder
