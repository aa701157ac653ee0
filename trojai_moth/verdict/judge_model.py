"""Judging one flagged model: the API's ``judge``."""

from __future__ import annotations

from ..core.errors import SettingsError
from ..core.messages import Progress, silent
from ..core.records import to_dict
from ..core.seeding import derive_seed
from ..rounds.model import Model
from ..scanners.result import ScanResult
from .evidence import collect_evidence
from .judge import judge, left_alone, question, shipped_rule
from .learned_rule import LearnedRule
from .records import Verdict
from .settings import EvidenceSettings


def judge_model(
    model: Model,
    result: ScanResult,
    *,
    rule: LearnedRule | None = None,
    settings: EvidenceSettings | None = None,
    progress: Progress = silent,
) -> Verdict:
    """Whether the flag on a model is removed (cleared) or stays (kept), how sure, and why; labels are never looked at.

    result: what :func:`scan` said of this model, which must be flagged. rule: a learned one; by default the package's
    own where scanner, images and settings are those it was learned with, else fixed bounds. A flagged network that is
    no round's is not judged without a rule of its own. Needs images enough to
    train clean networks of the same classes on, best ``data="composed"``; without them hardly a flag is removed.

    Raises SettingsError for a result that is not flagged, or a rule that was learned with something else.

    >>> import trojai_moth as tm
    >>> from trojai_moth.testing import PlantedNet, planted_images
    >>> pool = planted_images(10)
    >>> model = tm.open_model(PlantedNet(), images=pool.x, labels=pool.y, device="cpu")
    >>> clean = tm.scan(model, "neural-cleanse", settings={"steps": 60})
    >>> tm.judge(model, clean)
    Traceback (most recent call last):
    ...
    trojai_moth.core.errors.SettingsError: judge: PlantedNet is not flagged, so there is nothing to judge
    """
    if not result.flagged:
        raise SettingsError(f"judge: {model.name} is not flagged, so there is nothing to judge")
    if rule is None and model.described:
        return left_alone()
    chosen = settings or EvidenceSettings()
    if rule is None:
        rule = shipped_rule(result.scanner, model.data.source, to_dict(chosen))
    else:
        rule.check(result.scanner, model.data.source, to_dict(chosen))
    evidence = collect_evidence(
        model.subject, model.samples, result, chosen, seed=derive_seed(model.seed, "evidence"),
        question=None if chosen.complete else question(rule), signs=model.signs, progress=progress,
    )  # fmt: skip
    return judge(evidence, rule, sha256=model.subject.source_sha256)
