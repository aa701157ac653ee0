"""The scans that a calibration is learned from: every labelled model of a round, once per seed, resumable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ...core.errors import RunDirectoryError
from ...core.messages import Progress, silent
from ...core.records import from_dict, to_dict
from ...rounds.metadata import MODEL_NAME, metadata_file, read_metadata
from ...rounds.model_folder import ModelFolder, SkippedModel
from ...runs.execute import execute
from ...runs.journal import Failure, Journal, ScanRecord
from ...runs.run import NOTES, RescanSettings, Run, go_on
from ...scanners.calibration import LeftOut
from .learn import ScoredModel

_NOT_HARDENED = "it is only scanned, to learn a calibration"


@dataclass(frozen=True)
class Scans:
    """Scans of the same cases, one run directory per seed under ``work``; ``settings`` say the first seed."""

    cases: list[ModelFolder | SkippedModel]
    settings: RescanSettings
    seeds: tuple[int, ...]
    work: Path
    device: torch.device
    progress: Progress = silent
    check: Callable[[], None] = go_on

    def execute(self) -> None:
        """Scan what is not scanned yet. Each seed's scans are those that ``rescan`` with that seed begins with."""
        for number, seed in enumerate(self.seeds, 1):
            settings = from_dict(RescanSettings, {**to_dict(self.settings), "seed": seed})
            run = Run(
                self.cases, settings, self.journal(seed), self.device, _scan_only, progress=self.progress,
                check=self.check, title=f"(seed {number} of {len(self.seeds)})",
            )  # fmt: skip
            try:
                with _without_notes_on_hardening():
                    execute(run)
            except RunDirectoryError as error:  # a run directory is called --out by the other commands
                raise RunDirectoryError(str(error).replace("another --out", "another --work")) from None

    def journal(self, seed: int) -> Journal:
        """The scans with one seed."""
        return Journal(self.work / f"seed-{seed}")

    def collect(self, labels: Mapping[str, bool], groups: Mapping[str, str]) -> tuple[list[ScoredModel], list[LeftOut]]:
        """The models that were judged with every seed, and the others with what was wrong first.

        A file that occurs twice is learned from once, or it would be tested on itself.
        """
        models, left_out = [], []
        seen: dict[str, str] = {}
        for case in self.cases:
            scans = self._scans(case.model_id)
            if isinstance(scans, LeftOut):
                left_out.append(scans)
            elif scans[0].sha256 in seen:
                reason = f"its file is the same as that of {seen[scans[0].sha256]}"
                left_out.append(LeftOut(model_id=case.model_id, reason=reason))
            else:
                seen[scans[0].sha256] = case.model_id
                group = groups.get(case.model_id, case.model_id)
                models.append(_scored(case.model_id, group, labels[case.model_id], scans))
        return models, left_out

    def _scans(self, model_id: str) -> list[ScanRecord] | LeftOut:
        scans = []
        for seed in self.seeds:
            journal = self.journal(seed)
            failure, scan = journal.read(model_id, "failure", Failure), journal.read(model_id, "before", ScanRecord)
            if failure:
                return LeftOut(model_id=model_id, reason=f"seed {seed}: {failure.stage}: {failure.reason}")
            if scan is None:
                return LeftOut(model_id=model_id, reason=f"seed {seed}: not scanned yet")
            if scan.verdict.flagged is None or scan.verdict.incomplete:
                return LeftOut(model_id=model_id, reason=f"seed {seed}: {scan.verdict.reason}")
            if scan.verdict.probability is None:
                return LeftOut(model_id=model_id, reason=f"seed {seed}: the scanner gave no probability")
            scans.append(scan)
        if len({scan.sha256 for scan in scans}) > 1:
            return LeftOut(model_id=model_id, reason="its file was changed between two scans; use another --work")
        return scans


def _scan_only(model_id: str) -> str:
    """Why a model is not to be hardened; a function that other processes can be sent."""
    return _NOT_HARDENED


@contextmanager
def _without_notes_on_hardening() -> Iterator[None]:
    """That nothing is hardened here need not be said of each model."""

    def worth_a_line(record: logging.LogRecord) -> bool:
        return _NOT_HARDENED not in record.getMessage()

    NOTES.addFilter(worth_a_line)
    try:
        yield
    finally:
        NOTES.removeFilter(worth_a_line)


def read_groups(round_dir: Path) -> dict[str, str]:
    """Model id -> group of twins, from METADATA.csv's columns model_name and twin_group; {} where it has no such one.

    A model without a group is left out here and is its own. UnreadableModelError when the file cannot be read.
    """
    rows = read_metadata(metadata_file(round_dir), "twin_group").to_dict("records")
    return {row[MODEL_NAME]: f"twins {row['twin_group']}" for row in rows if row.get("twin_group")}


def labelled(
    cases: Sequence[ModelFolder | SkippedModel], labels: Mapping[str, bool]
) -> tuple[list[ModelFolder | SkippedModel], list[LeftOut]]:
    """The cases whose label is known, and the others as left out."""
    known = [case for case in cases if case.model_id in labels]
    unknown = [case.model_id for case in cases if case.model_id not in labels]
    return known, [LeftOut(model_id=model_id, reason="it has no label") for model_id in unknown]


def _scored(model_id: str, group: str, poisoned: bool, scans: Sequence[ScanRecord]) -> ScoredModel:
    verdicts = [scan.verdict for scan in scans]
    return ScoredModel(
        model_id=model_id,
        sha256=scans[0].sha256,
        group=group,
        poisoned=poisoned,
        scores=tuple(float(verdict.score) for verdict in verdicts if verdict.score is not None),
        probabilities=tuple(float(v.probability) for v in verdicts if v.probability is not None),
        flags=tuple(bool(verdict.flagged) for verdict in verdicts),
    )
