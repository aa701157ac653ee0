"""Finished runs with the truth joined: what the blind rule is learned from and judged on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import MothError, UnreadableModelError
from ...core.records import fingerprint
from ...rounds.config_file import read_config_text
from ...rounds.metadata import MODELS_FOLDER
from ...rounds.model_folder import ModelFolder, SkippedModel
from ...rounds.model_hashes import file_hashes
from ...rounds.packs import unpacked
from ...rounds.poisoned_examples import is_whole, read_poisoned
from ...rounds.reading import read_round
from ...runs.journal import Journal, ScanRecord
from ...triggers.trigger import Pair
from ...verdict.features import BlindEvidence, PairFeatures
from ...verdict.learned_rule import RuleRound
from ..labels import read_labels
from .scans import read_groups

_LOG = logging.getLogger(__name__)
EVIDENCE_STAGE = "evidence"


@dataclass(frozen=True)
class LabelledModel:
    """A flagged model's evidence with the truth about it.

    twin_group names the round too, so that groups of several rounds differ. injected_pairs: (victim, target) of every
    trigger of a poisoned model, as far as its round tells; empty for a clean one.
    """

    model_id: str
    sha256: str
    twin_group: str
    poisoned: bool
    architecture: str
    evidence: BlindEvidence
    injected_pairs: tuple[Pair, ...] = ()

    @property
    def right_pairs(self) -> tuple[PairFeatures, ...]:
        """The candidates that are an injected pair."""
        return tuple(pair for pair in self.evidence.candidates if (pair.victim, pair.target) in self.injected_pairs)


@dataclass(frozen=True)
class BlindRun:
    """One run of one round: the scanner and images it was made with, and its flagged models."""

    source: RuleRound
    scanner: str
    data: str
    models: tuple[LabelledModel, ...]


def read_blind_run(run_dir: Path, round_dir: Path) -> list[LabelledModel]:
    """Every model of the run with evidence and a label, in the run's order; see :func:`open_blind_run`."""
    return list(open_blind_run(run_dir, round_dir).models)


def open_blind_run(run_dir: Path, round_dir: Path) -> BlindRun:
    """A run with the truth of its round. Models that were not flagged, failed, or have no label are left out.

    So are those whose files in the round cannot be read any more, with a warning. MothError when ``run_dir`` is no run
    or damaged, when a model of it is not in the round, or when its file there is not the one that was scanned: ids are
    alike in all rounds, and the truth of another round would go unnoticed.
    """
    journal = Journal(run_dir)
    if not journal.started:
        raise MothError(f"{run_dir}: not a run directory; give one that rescan made")
    identity = journal.identity()
    labels, groups, cases = read_labels(round_dir), read_groups(round_dir), read_round(round_dir)
    by_id = {case.model_id: case for case in cases}
    found = []
    for model_id in identity.models:
        evidence = journal.read(model_id, EVIDENCE_STAGE, BlindEvidence)
        scan = journal.read(model_id, "before", ScanRecord)
        if evidence is None or scan is None or model_id not in labels:
            continue
        try:
            case = _same_model(by_id, model_id, scan.sha256, run_dir, round_dir)
            pairs = injected_pairs(case) if labels[model_id] else ()
        except UnreadableModelError as error:  # one model's files must not keep the others from being counted
            _LOG.warning("%s: not scored: %s", model_id, error)
            continue
        poisoned = labels[model_id]
        model = LabelledModel(
            model_id=model_id,
            sha256=scan.sha256,
            twin_group=f"{round_dir.resolve().name} {groups.get(model_id, model_id)}",
            poisoned=poisoned,
            architecture=scan.architecture,
            evidence=evidence,
            injected_pairs=pairs,
        )
        found.append(model)
    return BlindRun(
        source=_source(round_dir, identity.version, identity.settings),
        scanner=str(identity.settings.get("scanner")),
        data=str(_part(identity.settings, "data").get("source")),
        models=tuple(found),
    )


def injected_pairs(case: ModelFolder) -> tuple[Pair, ...]:
    """The (victim, target) pairs of a poisoned model's triggers, each once, in order.

    They are those of config.json's triggers; where that does not say them, those of the poisoned example images. Empty
    where neither is there.
    """
    with unpacked(case) as there:
        return _injected_pairs(there)


def _injected_pairs(case: ModelFolder) -> tuple[Pair, ...]:
    triggers = read_config_text(case.config_file).get("triggers") if case.config_file.exists() else None
    pairs = {pair for trigger in (triggers if isinstance(triggers, list) else []) for pair in _configured(trigger)}
    if pairs:
        return tuple(sorted(pairs))
    poisoned = read_poisoned(case)
    return poisoned.pairs if poisoned else ()


def _configured(trigger: object) -> list[Any]:
    """The pairs of one entry; some rounds list several source classes."""
    if not isinstance(trigger, Mapping):
        return []
    victims, target = trigger.get("source_class"), trigger.get("target_class")
    listed: Sequence[Any] = victims if isinstance(victims, list) else [victims]
    return [(victim, target) for victim in listed if is_whole(victim) and is_whole(target) and victim != target]


def _same_model(
    by_id: Mapping[str, ModelFolder | SkippedModel], model_id: str, sha256: str, run_dir: Path, round_dir: Path
) -> ModelFolder:
    case = by_id.get(model_id)
    if isinstance(case, SkippedModel) and any(os.path.isdir(round_dir / up / model_id) for up in ("", MODELS_FOLDER)):
        raise UnreadableModelError(case.reason)
    if not isinstance(case, ModelFolder):
        why = case.reason if case else "it has no such model"
        raise MothError(f"{round_dir}: {model_id} of {run_dir} cannot be found there ({why}); give the run's round")
    for _, there in file_hashes([case]):
        if there != sha256:
            raise MothError(
                f"{case.model_file} is not the file that {run_dir} scanned as {model_id}; give the run's round"
            )
    return case


def _source(round_dir: Path, version: str, settings: Mapping[str, object]) -> RuleRound:
    seed = settings.get("seed")
    return RuleRound(
        round=round_dir.resolve().name,
        seed=seed if isinstance(seed, int) else 0,
        settings_sha256=fingerprint(dict(settings)),
        version=version,
    )


def _part(settings: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = settings.get(name)
    return found if isinstance(found, Mapping) else {}
