"""Where a run stands, while it goes on and after: by the names of its files, hardly any of which is read."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from ..core.errors import RunDirectoryError, SettingsError
from ..core.process_identity import is_process_dead
from ..core.records import Field, read_json, record
from ..rounds.model_folder import is_model_id
from .journal import Journal
from .leases import Standing

# Stages as they are called in the journal, in the order in which they come.
_STAGES = ("before", "harden", "not-hardened", "after", "evidence", "blind")
# The rate is that of so many models that were finished last: enough to be steady, few enough to be of now.
_LATEST = 100


@record
class Holder:
    """A process that is at a model, or was until it died."""

    model: str
    host: str
    process: str
    dead: bool
    taken_over: int = Field(default=0, ge=0, description="how many died or fell silent at this model before")


@record
class RunStatus:
    """Counts of a run's models; everything but ``finished`` and ``failed`` is of models that are not done yet."""

    models: int
    finished: int = Field(description="examined to the end")
    failed: int = Field(description="could not be examined; never counted as clean")
    begun: int = Field(description="not finished, but some stage is in the journal")
    untouched: int = Field(description="no stage is in the journal")
    stages: dict[str, int] = Field(description="models with a record of each stage")
    failures: dict[str, int] = Field(description="failed models by kind of failure")
    holders: tuple[Holder, ...] = Field(description="who is at what")
    per_hour: float | None = Field(description="models finished or failed per hour, of late; None: too few to say")
    seconds_left: float | None = Field(description="for the models that are left, at that rate")
    silent_seconds: float | None = Field(description="since a model was last finished or failed; None: none was")
    damaged: int = Field(default=0, description="records that were found damaged and done again")

    @property
    def left(self) -> int:
        """Models that are neither finished nor failed."""
        return self.models - self.finished - self.failed


def run_status(journal: Journal) -> RunStatus:
    """Look into a run directory; RunDirectoryError if it is none. Of the records only those of failures are read."""
    models = set(_models(journal))
    stages = _stages_by_model(journal.root / "journal")
    failed = {model for model, names in stages.items() if "failure" in names} & models
    # A model whose first record was deleted, to have it done again, is not finished whatever was noted.
    noted = {name for name in _names(journal.root / "finished") if "before" in stages.get(name, ())}
    finished = (noted & models) - failed
    begun = {model for model in stages if model in models} - finished - failed
    times = sorted(
        [_time(journal.root / "finished" / model) for model in finished]
        + [_time(journal.path(model, "failure")) for model in failed]
    )
    left = len(models) - len(finished) - len(failed)
    per_hour = _rate(times)
    return RunStatus(
        models=len(models),
        finished=len(finished),
        failed=len(failed),
        begun=len(begun),
        untouched=left - len(begun),
        stages={stage: sum(stage in names for names in stages.values()) for stage in _STAGES},
        failures=dict(Counter(_kind(journal.path(model, "failure")) for model in sorted(failed)).most_common()),
        holders=tuple(_holder(model, standing) for model, standing in sorted(journal.leases.all().items())),
        per_hour=per_hour,
        seconds_left=left / per_hour * 3600 if per_hour else None,
        silent_seconds=max(0.0, time.time() - times[-1]) if times else None,
        damaged=len(_names(journal.root / "damaged")),
    )


def _models(journal: Journal) -> list[str]:
    """Not through the record: its check of ten thousand names would take most of the time."""
    path = journal.root / "run.json"
    try:
        data = read_json(path)
    except FileNotFoundError:
        raise RunDirectoryError(f"{journal.root}: no run.json in it; give the --out of a rescan") from None
    except (OSError, SettingsError) as error:
        raise RunDirectoryError(f"{path}: damaged ({error}); give another --out") from None
    models = data.get("models") if isinstance(data, dict) else None
    if not isinstance(models, list) or not all(isinstance(name, str) and is_model_id(name) for name in models):
        raise RunDirectoryError(f"{path}: damaged (models is no list of names); give another --out")
    return models


def _stages_by_model(folder: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in _names(folder):
        stem, dot, ending = name.rpartition(".")
        model, middle, stage = stem.rpartition(".")
        if dot and middle and ending == "json" and not name.startswith("."):
            found.setdefault(model, set()).add(stage)
    return found


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _time(path: Path) -> float:
    """When a file was last written; now, if it has just been removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _rate(times: list[float]) -> float | None:
    """Models per hour between the first and the last of the latest ones; ``times`` are sorted seconds."""
    latest = times[-_LATEST:]
    span = latest[-1] - latest[0] if len(latest) > 1 else 0.0
    return (len(latest) - 1) / span * 3600 if span > 0 else None


def _kind(path: Path) -> str:
    """The kind of a failure."""
    try:
        kind = read_json(path)["kind"]
    except (OSError, SettingsError, KeyError, TypeError):
        return "damaged record"
    return kind if isinstance(kind, str) else "damaged record"


def _holder(model: str, standing: Standing) -> Holder:
    owner = standing.owner
    pid = owner.split("-")[1] if owner.count("-") > 1 else "?"
    return Holder(
        model=model, host=standing.host, process=pid, dead=is_process_dead(owner), taken_over=standing.generation - 1
    )
