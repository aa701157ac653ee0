"""What tests of many processes share: a plugin that other processes find too, and that has accidents when told to.

An accident happens a given number of times in all, whichever process it happens to; what has happened is kept in files.
"""

import os
import signal
import sys
import time
import typing
from pathlib import Path

import torch
from fake_hardener import Scale, ScaleSettings
from fake_round import write_round
from fake_scanner import Scripted, weight_sum

from trojai_moth.core.records import Field, record
from trojai_moth.loading import load_model
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.reading import read_round
from trojai_moth.runs.execute import execute
from trojai_moth.runs.execution_settings import ExecutionSettings
from trojai_moth.runs.journal import Journal
from trojai_moth.runs.leases import LeaseTerms
from trojai_moth.runs.run import RescanSettings, Run

IDS = [f"id-{number:08d}" for number in range(6)]
# Two in three are flagged, and one in two of these no more once hardened.
SCRIPT = {model: word for model, word in zip(IDS, ["flagged clean", "clean", "flagged flagged"] * 2, strict=True)}
HERE = Path(__file__).resolve().parent


@record
class AccidentSettings:
    """script, originals: as Scripted has them; accidents: model id -> what happens and how often, e.g. ``kill 1``."""

    script: dict[str, str] = Field(default_factory=dict)
    originals: dict[str, float] = Field(default_factory=dict)
    accidents: dict[str, str] = Field(default_factory=dict)
    folder: str = ""
    pause: float = 0.0


class Accidental(Scripted):
    """Says what its script says, unless it has an accident first."""

    name: typing.ClassVar[str] = "accidental"
    settings_type: typing.ClassVar[type] = AccidentSettings

    def scan(self, subject, samples, *, seed):
        mark(self.settings.folder, f"scan.{subject.model_id}", os.getpid())
        time.sleep(self.settings.pause)
        what, _, times = self.settings.accidents.get(subject.model_id, "").partition(" ")
        happened = len(marks(self.settings.folder, f"accident.{subject.model_id}"))
        if what and happened < int(times):
            mark(self.settings.folder, f"accident.{subject.model_id}", happened)
            accident(what)
        return super().scan(subject, samples, seed=seed)


def accident(what):
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "end":
        os.kill(os.getpid(), signal.SIGTERM)
    if what == "memory":
        raise torch.OutOfMemoryError("out of memory, says the test")
    end = time.monotonic() + 600
    while what == "hang" and time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except BaseException:
            continue


class Scaling(Scale):
    """Scales all weights a little, slowly if told to."""

    name: typing.ClassVar[str] = "scaling"
    settings_type: typing.ClassVar[type] = ScaleSettings


def mark(folder, name, word):
    (Path(folder) / f"{name}.{word}.{time.monotonic_ns()}").touch()


def marks(folder, name):
    return sorted(path.name for path in Path(folder).glob(f"{name}.*"))


def install_for_all(folder, monkeypatch):
    """An installed package with these plugins, for this process and those that it starts."""
    info = folder / "fleet_parts-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fleet-parts\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[trojai_moth.scanners]\naccidental = fleet_parts:Accidental\n"
        "[trojai_moth.hardeners]\nscaling = fleet_parts:Scaling\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(HERE)]))


def make_round(root, models):
    """A round and the sums by which the scanner knows its models as they were."""
    write_round(root, models=models, per_class=2)
    cases = read_round(root)
    return root, {case.model_id: weight_sum(load_model(case.model_file).module) for case in cases}


def make_run(
    round_dir, originals, out, marks_folder, *, accidents=None, pause=0.0, expiry=20.0, fleet=None, **settings
):
    """A run that takes next to no time."""
    options = {
        "script": SCRIPT, "originals": originals, "accidents": accidents or {}, "folder": str(marks_folder),
        "pause": pause,
    }  # fmt: skip
    marks_folder.mkdir(parents=True, exist_ok=True)
    chosen = RescanSettings(
        scanner="accidental", scanner_options=options, verdict="naive", hardener="scaling",
        hardener_options={"factor": 1.01}, data=DataSettings(train_per_class=4, held_per_class=3), **settings,
    )  # fmt: skip
    journal = Journal(out, LeaseTerms(expiry=expiry))
    return Run(
        read_round(round_dir), chosen, journal, torch.device("cpu"), _never, fleet=fleet or ExecutionSettings()
    )  # fmt: skip


def _never(model_id):
    return None


def drive(run, path):
    """What a driver process of its own does; ``path``: of the modules that it needs."""
    sys.path[:] = path
    signal.signal(signal.SIGTERM, _interrupt)
    execute(run)


def _interrupt(_signal, _frame):
    raise KeyboardInterrupt
