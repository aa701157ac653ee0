"""Scan, harden what was flagged, scan again: a whole round, every stage of every model in the journal."""

from __future__ import annotations

from ..core.records import to_dict
from .dispatcher import dispatch
from .run import Run
from .workers import make_pool


def execute(run: Run) -> None:
    """Do what the journal does not hold yet; one model's failure is recorded and does not stop the others.

    What other processes are at is waited for, and taken over from those that have died. SettingsError when calibration
    or rule were learned with other settings; RunDirectoryError when the run directory is another run's, damaged or
    cannot
     be written; WorkerError when workers cannot be started.
    """
    if run.calibration:
        run.calibration.check(run.settings.scanner, run.scanner, run.settings.data)
    if run.rule:
        run.rule.check(run.settings.scanner, run.settings.data.source, to_dict(run.settings.evidence))
    run.journal.open(run.identity())
    run.journal.sweep()
    dispatch(run, make_pool(run))
    run.journal.sweep()
