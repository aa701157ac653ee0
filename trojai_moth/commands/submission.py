"""``trojai-moth submission check``: what the harness would object to, before anything is sent."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from ..errors import MothError
from ..files import write_text
from ..records import to_dict
from ..submission.replay import CALLS, Isolation, Player, Replay, isolation
from ..submission.rules import LEARNED, METAPARAMETERS, SCHEMA, Finding, check_folder, check_name


@click.group("submission")
def submission() -> None:
    """Check a submission as the harness will."""


@submission.command("check")
@click.argument("target", metavar="FOLDER_OR_IMAGE", type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="A model's folder to run the command lines with. Without one only a broken model is.")  # fmt: skip
@click.option("--name", help="The file name that the image will have, e.g. round4_sts_first.simg.")
@click.option("--run/--no-run", default=True, help="Run the harness's command lines.")
@click.option("--time-budget", type=click.FloatRange(min=5), default=570.0, show_default=True,
              help="Seconds for each call.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all of it here.")
def check(
    target: Path, model: Path | None, name: str | None, run: bool, time_budget: float, json_file: Path | None
) -> None:
    """Replay the harness's checks and command lines on a submission's folder or built image.

    A folder is run with this installation of Python, without a network or a home; its recipe is not built. Exit code 0:
    nothing found; 1: something was; 2: error.
    """
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = target if target.is_dir() else _extracted(target, work / "image")
        kind = "mitigate" if _is_mitigation(folder) else "detect"
        findings = check_folder(folder, mitigation=kind == "mitigate")
        if name or target.is_file():
            findings += check_name(name or target.name)
        how, played = _replay(target, folder, model, work / "calls", time_budget, kind) if run else ("", [])
    findings += [finding for call in played for finding in call.findings]
    if json_file:
        data = {"kind": kind, "findings": list(map(to_dict, findings)), "calls": list(map(to_dict, played))}
        write_text(json_file, json.dumps(data, indent=2) + "\n")
    for line in check_lines(kind, findings, played, how, unproved(target, model, run)):
        click.echo(line)
    raise SystemExit(1 if findings else 0)


def _replay(
    target: Path, folder: Path, model: Path | None, work: Path, budget: float, kind: str
) -> tuple[str, list[Replay]]:
    """How calls were isolated, in words, and what came of each."""
    work.mkdir()
    isolated, program = isolation(), tuple[str, ...]()
    if target.is_file():
        isolated = Isolation((), {}, "in the image, with --contain")
        program = (_apptainer(), "run", "--contain", "--bind", str(work.parent), str(target))
    player = Player(folder.absolute(), model, work, budget, isolated, program)
    return isolated.words, player.play(kind)


def check_lines(kind: str, findings: list[Finding], played: list[Replay], how: str, missing: list[str]) -> list[str]:
    """What was run, what was found with its mend, and what could not be proved."""
    lines = [f"{'mitigation' if kind == 'mitigate' else 'detector'}{f'; calls run {how}' if how else ''}"]
    for call in played:
        state = "found something" if call.findings else "ok"
        lines.append(f"  {call.rule:<17} {call.seconds:6.1f} s  {call.result:<24} {state}  ({CALLS[call.rule]})")
    lines += [f"FOUND {finding.rule}: {finding.what}\n      {finding.mend}" for finding in findings]
    lines += [] if findings else ["Nothing found."]
    return [*lines, *(f"Not proved: {text}" for text in missing)]


def unproved(target: Path, model: Path | None, run: bool) -> list[str]:
    """What this check leaves open."""
    found = []
    if target.is_dir():
        found.append("that the recipe builds, and what it installs; build it and check the image")
    if not run:
        found.append("that its command lines work; leave --no-run out")
    elif model is None:
        found.append("that a model is examined; give one with --model")
    return found


def _is_mitigation(folder: Path) -> bool:
    """By the metaparameters: only a detector has a verdict or a scanner."""
    try:
        values: Any = json.loads((folder / METAPARAMETERS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return (folder / "mitigate.def").exists()
    return isinstance(values, dict) and "scanner" not in values and (folder / "detect.def").exists() is False


def _apptainer() -> str:
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        raise MothError("checking an image needs Apptainer, which is not installed here; check the folder instead")
    return program


def _extracted(image: Path, folder: Path) -> Path:
    """The files that the harness reads out of an image, laid out like a submission's folder."""
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
