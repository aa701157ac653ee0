"""``configure``: learn anew, from a training set, what the scanner's scores mean; or search its settings too."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import MothError
from ..core.files import read_text, write_text
from ..scanners.calibration import read_calibration
from .detection import CALIBRATION_FILE
from .job import Say, own_settings
from .metaparameters import DetectSettings, Parameter, defaults, nested, parameters
from .rules import METAPARAMETERS

# More would be tried longer than the models can tell apart.
_SEARCHED = 3


def configure(order: Mapping[str, Any], folder: Path, say: Say) -> None:
    """Write calibration.json into the learned parameters, by ``trojai-moth calibrate`` on the given models.

    With --automatic_configuration the scanner's settings are drawn from the ranges of the schema, calibrated each, and
    those with the least cross-entropy on models not learned from are written beside it as metaparameters.json, and over
    the metaparameters file itself where that can be written.
    """
    settings, run = own_settings("detect", order, say)
    assert isinstance(settings, DetectSettings)
    learned = _writable(order["learned"])
    chosen = parameters("detect", run.scanner, run.hardener)
    base = {**defaults(chosen), **{key: value for key, value in order["values"].items() if key in defaults(chosen)}}
    tried = [base]
    if order["automatic"]:
        tried += draws(base, chosen, settings.configure_candidates - 1, settings.seed)
    cost, values, out = _best(tried, order, folder, chosen, say)
    write_text(learned / CALIBRATION_FILE, read_text(out))
    say(note=f"written: {learned / CALIBRATION_FILE}, cross-entropy {cost:.4f} on models not learned from")
    if order["automatic"]:
        _write_metaparameters(values, learned, order["metaparameters"], say)


def _writable(learned: str | None) -> Path:
    """Where what is learned goes; MothError if nothing can be written there, which is found before hours of work."""
    if learned is None:
        raise MothError("configure: give --learned_parameters_dirpath, where what is learned goes")
    folder = Path(learned)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise MothError(
            f"configure: {folder} cannot be written to ({error.strerror}), as in an image; give a folder "
            "outside of it with --learned_parameters_dirpath"
        ) from None


def _best(
    tried: list[dict[str, Any]], order: Mapping[str, Any], folder: Path, chosen: list[Parameter], say: Say
) -> tuple[float, dict[str, Any], Path]:
    """Cost, settings and calibration with the least cost; settings that cannot be calibrated are said and passed."""
    best: tuple[float, dict[str, Any], Path] | None = None
    failed: MothError | None = None
    for number, values in enumerate(tried):
        out = folder / f"calibration-{number}.json"
        try:
            calibrate(values, chosen, Path(order["configure_models"]), out, order["device"], say)
        except MothError as error:
            failed = error
            say(note=f"settings {number + 1} of {len(tried)}: {error}")
            continue
        cost = read_calibration(out).metrics.learned.cross_entropy.value
        say(note=f"settings {number + 1} of {len(tried)}: cross-entropy {cost} on models not learned from")
        if cost is not None and (best is None or cost < best[0]):
            best = (cost, values, out)
    if best is None:
        raise failed or MothError("configure: no setting could be measured; more labelled models are needed")
    return best


def _write_metaparameters(values: Mapping[str, Any], learned: Path, given: str | None, say: Say) -> None:
    text = json.dumps(values, indent=2) + "\n"
    places = [learned / METAPARAMETERS, *([Path(given)] if given else [])]
    for place in dict.fromkeys(places):
        try:
            write_text(place, text)
            say(note=f"written: {place}")
        except OSError as error:
            say(note=f"{place} cannot be written to ({error.strerror}); give {places[0]} as --metaparameters_filepath")


def draws(base: Mapping[str, Any], chosen: list[Parameter], count: int, seed: int) -> list[dict[str, Any]]:
    """Settings with a few of the scanner's numbers drawn from the ranges that the schema suggests."""
    stream = np.random.default_rng(seed)
    open_to_search = [one for one in chosen if one.group.startswith("scanner") and "suggested_minimum" in one.schema]
    found = []
    for _ in range(count):
        values = dict(base)
        names = stream.choice(len(open_to_search), min(_SEARCHED, len(open_to_search)), replace=False)
        for one in (open_to_search[number] for number in names):
            value = stream.uniform(one.schema["suggested_minimum"], one.schema["suggested_maximum"])
            values[one.name] = round(value) if one.schema["type"] == "integer" else float(value)
        found.append(values)
    return found


def calibrate(
    values: Mapping[str, Any], chosen: list[Parameter], models: Path, out: Path, device: str, say: Say
) -> None:
    """Run ``trojai-moth calibrate`` with these settings, with its lines as notes; MothError with the last one."""
    command = [sys.executable, "-m", "trojai_moth", *calibrate_words(values, chosen, models, out, device)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        last = "calibrate failed"
        for line in filter(None, map(str.strip, process.stdout)):
            last = line
            say(note=line)
    if process.returncode:
        raise MothError(f"configure: {last}")


def calibrate_words(
    values: Mapping[str, Any], chosen: list[Parameter], models: Path, out: Path, device: str
) -> list[str]:
    """The command line of ``trojai-moth calibrate`` for flat values."""
    groups, _ = nested(values, chosen)
    own = groups[""]
    words = ["calibrate", str(models), "--out", str(out), "--device", device, "--scanner", str(own["scanner"])]
    words += ["--seed", str(own["seed"])]
    for group, found in groups.items():
        if group == "data" or group.startswith("scanner"):
            for key, value in found.items():
                if (group, key) == ("data", "source"):
                    words += ["--data", str(value)]
                else:
                    words += ["--set", f"{group}.{key}={json.dumps(value)}"]
    return words
