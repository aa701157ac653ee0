"""The main job as a function: scan a round, harden what is flagged, scan again, and write results with labels joined.

It lies above the run itself, since only ``eval`` and what uses it may know the truth about a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import SettingsError, UnfinishedRunError
from ..core.messages import Progress, silent
from ..runs.execution_settings import ExecutionSettings
from ..runs.journal import Journal
from ..runs.leases import LeaseTerms
from ..runs.rescan import caveats, read_settings, run_round
from ..runs.run import RescanSettings
from ..runs.workers.stopping import SIGNALS, Stopping
from .labels import errata_lines, read_labels
from .results import settled_results
from .summary import Summary, summarise

# More ways than this to read images are counted only.
_WAYS_SHOWN = 3


@dataclass(frozen=True)
class RescanResult:
    """What a run found.

    rows: a row per model, as in results.csv. summary: counts and rates of these, as in summary.json. remarks: what to
    know about the verdicts before they are believed, a sentence or two each.
    """

    rows: pd.DataFrame
    summary: Summary
    remarks: tuple[str, ...]
    run_dir: Path
    settings: RescanSettings


def rescan(
    round_dir: str | Path,
    out: str | Path,
    *,
    subset: str | None = None,
    calibration: str | Path | None = None,
    rule: str | Path | None = None,
    allow_fitted: bool = False,
    labels: bool = True,
    fleet: ExecutionSettings | None = None,
    leases: LeaseTerms | None = None,
    round_budget: float | None = None,
    device: str = "auto",
    progress: Progress = silent,
    handle_signals: bool = False,
    **settings: Any,
) -> RescanResult:
    """Scan every model of a round, harden the flagged ones, scan those again, and judge them.

    Writes results.csv, summary.json, report.md, the journal and the hardened weights into ``out``. An unfinished run
    there goes on, when it was made with the same settings. A model that cannot be examined is not judged, never clean.

    >>> import trojai_moth as tm
    >>> tm.rescan("no-such-round", out="run")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    trojai_moth.core.errors.UnreadableModelError: no-such-round: no such directory; ...

    Args:
        round_dir: folder of models in one of the layouts of TrojAI's rounds.
        out: run directory; a new or empty folder, or that of a run with the same settings.
        subset: only these models: ids, a file of ids, a published list, or a query over METADATA.csv.
        calibration: what ``trojai-moth calibrate`` learned for this scanner, its settings and these images.
        rule: what ``trojai-moth calibrate-rule`` learned, for the blind verdict. Without it the package's own rule
            decides where scanner, images and evidence settings are those it was learned with, else fixed bounds.
        allow_fitted: go on when calibration or rule were learned from one of these models.
        labels: join the round's labels to the results, where it has any.
        fleet: by how many processes, of which machines, and which part of the round; no result depends on it.
        leases: after how long a silent process of another machine is taken over from.
        round_budget: seconds after which the run is ended, at the next sign of progress.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: is told ``[3/8] id-00000002: scan before`` and the like; what it raises ends the run.
        handle_signals: Ctrl-C and SIGTERM both end the run as KeyboardInterrupt, and are never lost; in the main
            thread only.
        **settings: fields of :class:`~trojai_moth.runs.run.RescanSettings`, such as ``scanner``, ``scanner_options``,
            ``hardener``, ``harden``, ``verdict``, ``seed`` or ``evidence``, as records or plain values. ``data`` may be
            a word (``"examples"``, ``"composed"``); by default the images are chosen that suit the round.

    Returns:
        Rows, summary and remarks of the whole run, or of the ``fleet``'s shard if it has one.

    Raises:
        SettingsError: a setting is unknown, out of bounds or does not fit the others, the calibration or the rule.
        RunDirectoryError: ``out`` is no run directory, is damaged, or was made with other settings.
        UnfinishedRunError: the round's time budget is used up; results so far are written.
        KeyboardInterrupt: results so far are written.
        MothError: the round cannot be read, or workers cannot be started.

    """
    chosen, images_are_said = read_settings(settings, has_rule=rule is not None)
    by_label = chosen.harden == "clean-only"
    known = read_labels(Path(round_dir)) if labels or by_label else {}
    stopping = Stopping(round_budget)
    with stopping.listening(*(SIGNALS if handle_signals else ())):
        with _usable_if_ended(Path(out), known if labels else {}, stopping):
            run = run_round(
                Path(round_dir), Path(out), chosen, may_harden=MayHarden(by_label, known),
                choose_images=not images_are_said, subset=subset, calibration=_path(calibration), rule=_path(rule),
                allow_fitted=allow_fitted, fleet=fleet, leases=leases, device=device, progress=progress,
                check=stopping.check,
            )  # fmt: skip
        rows, summary = settled_results(run.journal, known if labels else {})
    if run.fleet.shard.of > 1:
        rows = rows.iloc[run.fleet.shard.numbers(len(rows))]
        summary = summarise(rows, protocol=summary.protocol)
    errata = errata_lines(Path(round_dir), set(rows["model"])) if labels else []
    how = caveats(run.settings, run.rule, own=rule is None, described=run.described)
    return RescanResult(rows, summary, (*_images_read(rows), *errata, *how), Path(out), run.settings)


def _images_read(rows: pd.DataFrame) -> list[str]:
    """How the round's models read images, and how many they get right then: what every verdict rests on."""
    read = rows[rows["read_as"].notna()]
    if read.empty:
        return []
    ways = read["read_as"].value_counts()
    words = "; ".join(f"{way} ({count})" for way, count in ways.head(_WAYS_SHOWN).items())
    more = f"; {len(ways) - _WAYS_SHOWN} other ways" if len(ways) > _WAYS_SHOWN else ""
    known = read[read["accuracy_before"].notna()]
    if known.empty:
        return [f"Images are read as {words}{more}."]
    least = known.loc[known["accuracy_before"].idxmin()]
    if least["accuracy_before"] == 1:
        return [f"Images are read as {words}{more}; all held-back ones are right."]
    return [
        f"Images are read as {words}{more}; of held-back ones {known['accuracy_before'].median():.1%} are right "
        f"(median), least of {least['model']}: {least['accuracy_before']:.1%}."
    ]


@contextmanager
def _usable_if_ended(out: Path, labels: Mapping[str, bool], stopping: Stopping) -> Iterator[None]:
    """A run that may be ended before its end: a table of what is known by then is written, and it is said why."""
    try:
        yield
        if stopping.asked:  # a signal that was lost
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        journal = Journal(out)
        if journal.started:
            settled_results(journal, labels)
        if stopping.late and not stopping.asked:
            raise UnfinishedRunError(
                f"the round's time budget is used up; {out} is usable, and the same command goes on there"
            ) from None
        raise


class MayHarden:
    """Says by label which flagged models the paper's protocol leaves alone, and why; without it, none.

    SettingsError when labels are needed and the round has none.
    """

    def __init__(self, by_label: bool, labels: Mapping[str, bool]) -> None:
        self.by_label, self.labels = by_label, labels
        if by_label and not labels:
            raise SettingsError("--harden clean-only: the round has no labels; use --harden flagged")

    def __call__(self, model_id: str) -> str | None:
        """Why a model is not to be hardened, or None."""
        if not self.by_label:
            return None
        label = self.labels.get(model_id)
        if label is None:
            return "it has no label"
        return "it is labelled poisoned" if label else None


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
