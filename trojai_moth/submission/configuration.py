"""``configure``: learn anew, from a training set, what the scanner's scores mean; or search its settings too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration import read_calibration
from ..errors import MothError
from ..files import write_text
from .detection import CALIBRATION_FILE
from .job import Say, own_settings
from .metaparameters import DetectSettings, Parameter, defaults, nested, parameters

# More would be tried longer than the models can tell apart.
_SEARCHED = 3


def configure(order: Mapping[str, Any], folder: Path, say: Say) -> None:
    """Write calibration.json into the learned parameters, by ``trojai-moth calibrate`` on the given models.

    With --automatic_configuration the scanner's settings are drawn from the ranges of the schema, calibrated each, and
    those with the least cross-entropy on models not learned from are written to the metaparameters file.
    """
    settings, run = own_settings("detect", order, say)
    assert isinstance(settings, DetectSettings)
    if order["learned"] is None:
        raise MothError("configure: give --learned_parameters_dirpath, where what is learned goes")
    chosen = parameters("detect", run.scanner, run.hardener)
    base = {**defaults(chosen), **{key: value for key, value in order["values"].items() if key in defaults(chosen)}}
    tried = [base]
    if order["automatic"]:
        tried += draws(base, chosen, settings.configure_candidates - 1, settings.seed)
    best: tuple[float, dict[str, Any], Path] | None = None
    for number, values in enumerate(tried):
        out = folder / f"calibration-{number}.json"
        calibrate(values, chosen, Path(order["configure_models"]), out, order["device"], say)
        cost = read_calibration(out).metrics.learned.cross_entropy.value
        say(note=f"settings {number + 1} of {len(tried)}: cross-entropy {cost} on models not learned from")
        if cost is not None and (best is None or cost < best[0]):
            best = (cost, values, out)
    if best is None:
        raise MothError("configure: no setting could be measured; more labelled models are needed")
    write_text(Path(order["learned"]) / CALIBRATION_FILE, best[2].read_text(encoding="utf-8"))
    if order["automatic"] and order["metaparameters"] is not None:
        write_text(Path(order["metaparameters"]), json.dumps(best[1], indent=2) + "\n")
        say(note=f"written: {order['metaparameters']}")
    say(note=f"written: {Path(order['learned']) / CALIBRATION_FILE}")


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
    """Run ``trojai-moth calibrate`` with these settings; MothError with its last line if it fails."""
    command = [sys.executable, "-m", "trojai_moth", *calibrate_words(values, chosen, models, out, device)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode:
        raise MothError(f"configure: {lines[-1] if lines else 'calibrate failed'}")
    for line in lines[-3:]:
        say(note=line)


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
