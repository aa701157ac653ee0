"""What runs in a submission container: ``python -m trojai_moth.submission.entrypoint``, in every dialect.

This process reads the command line, writes a preliminary result at once, and supervises another one that loads torch
and does the work; so the time budget is kept to the second whatever that one is doing, and whatever happens to it there
is a result. A model that cannot be read, or that breaks the work, leaves 0.5 and a line in the log, and exit code 0.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..core.errors import SettingsError, one_line
from ..core.records import read_json
from .dialects import Request, UsageError, parse
from .predictions import PRELIMINARY, write_probability
from .supervise import STANDS, supervise
from .surroundings import child_environment, process_start, remove, work_folder

WORKER: Final = (sys.executable, "-m", "trojai_moth.submission.worker")
# Beside the entry point's file lie these, which is where the harness looks for them in an image.
PLACES: Final[Mapping[str, str]] = {
    "metaparameters": "metaparameters.json", "schema": "metaparameters_schema.json", "learned": "learned_parameters",
}  # fmt: skip
IMAGE: Final = Path("/")
# Seconds: the harness gives n_models times 600, and mitigation half an hour a model, by its documentation.
DEFAULT_BUDGETS: Final[Mapping[str, float]] = {"infer": 570.0, "mitigate": 1680.0, "test": 570.0}
# Seconds of the budget for starting, ending the worker and writing.
MARGIN_S: Final = 1.0


def main(beside: Path = IMAGE) -> None:
    """Run the process's own command line and leave with its exit code; ``beside``: the entry point's folder."""
    sys.exit(run(sys.argv[1:], beside=beside, started=process_start()))


def run(
    arguments: Sequence[str], *, worker: Sequence[str] = WORKER, beside: Path = IMAGE, started: float | None = None
) -> int:
    """Do what a command line asks; exit code 0, also where there is nothing but the preliminary result; 2: misuse.

    The time budget counts from ``started`` on, of time.monotonic; None: from now on.
    """
    started = time.monotonic() if started is None else started
    try:
        request = parse(arguments)
    except UsageError as error:
        note(str(error))
        return 2
    if request.action == "infer" and not _preliminary(request):
        return 2
    request = completed(request, beside)
    values, problems = metaparameters(request)
    for problem in problems:
        note(problem)
    budget = time_budget(request, values)
    note(f"{request.action}: {'no time budget' if math.isinf(budget) else f'time budget {budget:g} s'}")
    return _work(request, values, started + max(budget - MARGIN_S, 0.1), worker)


def note(text: str) -> None:
    """One line of the log, on standard error, which the harness keeps."""
    print(f"trojai-moth: {' '.join(text.split())}", file=sys.stderr, flush=True)


def completed(request: Request, beside: Path) -> Request:
    """The request with what lies beside the entry point filled in where nothing was said."""
    places = {name: beside / place for name, place in PLACES.items()}
    found: dict[str, Any] = {
        name: path for name, path in places.items() if getattr(request, name) is None and path.exists()
    }
    return dataclasses.replace(request, **found)


def metaparameters(request: Request) -> tuple[dict[str, Any], list[str]]:
    """The values of the file and, over them, of the command line; and what is to be said of what was left out."""
    problems = [f"{word!r:.80}: belongs to no option and is ignored" for word in request.odd]
    values: dict[str, Any] = {}
    if request.metaparameters is not None:
        try:
            data = read_json(request.metaparameters)
            if not isinstance(data, dict):
                raise SettingsError(f"{request.metaparameters}: not a JSON object")
            values = data
        except (OSError, SettingsError) as error:
            problems.append(f"metaparameters cannot be read ({error}); defaults are used")
    for name, value in request.assigned.items():
        if name in values:
            values = {**values, name: value}
        else:
            problems.append(f"--{name:.80}: not known here and ignored")
    return values, problems


def time_budget(request: Request, values: Mapping[str, Any]) -> float:
    """Seconds for the whole call: the option, else the metaparameter, else the harness's; configuring has no limit."""
    if request.action == "configure":
        return math.inf if request.time_budget is None else _seconds(request.time_budget, math.inf)
    default = DEFAULT_BUDGETS[request.action]
    return _seconds(request.time_budget, _seconds(values.get("time_budget"), default))


def _seconds(value: Any, default: float) -> float:
    """A positive number of seconds, or the default where nothing was said."""
    if value is None:
        return default
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if 0 < seconds < math.inf:
        return seconds
    note(f"time budget {value!r:.80}: not a positive number of seconds; {default:g} is used")
    return default


def _preliminary(request: Request) -> bool:
    """Write a result before anything can go wrong."""
    assert request.result is not None
    try:
        write_probability(request.result, PRELIMINARY)
    except OSError as error:
        note(f"{request.result}: cannot be written ({error.strerror}); give a --result_filepath in a writable folder")
        return False
    return True


def _work(request: Request, values: Mapping[str, Any], deadline: float, worker: Sequence[str]) -> int:
    """Supervise the worker; what it finds becomes the result as it comes."""
    work = work_folder(request.scratch)
    try:
        order = work / "request.json"
        order.write_text(json.dumps(_order(request, values, deadline)), encoding="utf-8")
        ending = supervise(
            [*worker, str(order)], deadline=deadline, environment=child_environment(work, os.environ), folder=work,
            take=lambda message: _take(request, message), note=note,
        )  # fmt: skip
    except Exception as error:  # the result is written, and the next model must get its turn
        note(f"nothing further was found: {one_line(error)}")
        ending = "failed"
    finally:
        remove(work)
    if ending != "done":
        note(STANDS.format(ending))
    return 1 if ending != "done" and request.action == "configure" else 0


def _order(request: Request, values: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """The request in plain JSON types; a worker starts elsewhere, so paths are absolute."""
    plain = {
        key: str(value.absolute()) if isinstance(value, Path) else value
        for key, value in dataclasses.asdict(request).items()
    }
    left = None if math.isinf(deadline) else deadline - time.monotonic()
    return {**plain, "values": dict(values), "seconds": left}


def _take(request: Request, message: Mapping[str, Any]) -> None:
    """What the worker says: a word for the log, or a probability, which replaces the one before."""
    value = message.get("probability")
    if request.result is not None and isinstance(value, int | float) and 0 <= value <= 1:
        write_probability(request.result, float(value))
        note(f"probability {value:.4f} ({message.get('stage', 'unknown stage')})")
    elif "probability" in message:
        note(f"probability {value!r} is none, and is not taken")
    if "note" in message:
        note(str(message["note"]))


if __name__ == "__main__":
    main()
