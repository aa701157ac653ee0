"""A small learned rule, evidence, and runs that hold it, for tests."""

import hashlib

from toys import AS_STORED

from trojai_moth.runs.journal import Journal, RunIdentity, ScanRecord
from trojai_moth.scanners.calibration import Estimate, LogisticCurve
from trojai_moth.scanners.result import ScanResult
from trojai_moth.verdict.features import BlindEvidence, PairFeatures
from trojai_moth.verdict.learned_rule import (
    LearnedRule,
    Retention,
    RuleMetrics,
    RuleModel,
    RuleProvenance,
    RuleRound,
    Term,
)

NOTHING = Estimate(value=None, low=None, high=None)
TERMS = (
    Term(feature="held_success", centre=0.5, scale=0.25, weight=1.0),
    Term(feature="stamp_gap", centre=0.0, scale=1.0, weight=0.5),
    Term(feature="log_size", centre=-1.0, scale=2.0, weight=-2.0),
)


def pair(victim=4, target=2, **features):
    return PairFeatures(victim=victim, target=target, **features)


def evidence(*candidates, **facts):
    return BlindEvidence(
        candidates=candidates,
        **{"classes": 6, "images_per_class": 5, "pairs_measured": 30, "censored": 0.0}
        | {"accuracy_before": 0.99}
        | facts,
    )


def learned(terms=TERMS, threshold=0.0, intercept=0.0, slope=1.0, **facts):
    """A rule with these terms; the models that it was learned from are two, with files called aa and bb."""
    models = [
        RuleModel(
            model_id=f"id-{number}",
            sha256=name * 2,
            group=name,
            poisoned=bool(number),
            right_pair=bool(number),
            fold=number,
            score=float(number),
        )
        for number, name in enumerate("ab")
    ]
    parts = {
        "version": "0",
        "scanner": "neural-cleanse",
        "data": "composed",
        "terms": terms,
        "intercept": intercept,
        "curve": LogisticCurve(slope=slope, intercept=0.0),
        "retention": Retention(threshold=threshold, tolerate_loss=0.02, true_positives=1, k=0, bound=0.5),
        "metrics": RuleMetrics(roc_auc=None, cross_entropy=0.5, cleared=NOTHING, lost=NOTHING, unjudged=0),
        "provenance": RuleProvenance(
            rounds=(RuleRound(round="round", seed=0, settings_sha256="cc", version="0"),),
            clean=1,
            poisoned=1,
            right_pairs=1,
            candidates=2,
            folds=2,
            versions={},
            models=tuple(models),
        ),
    }
    return LearnedRule(**parts | facts)


def write_run(root, round_dir, found):
    """A run directory over the round's models; ``found``: model id -> evidence, or None for one that has none."""
    journal = Journal(root)
    settings = {"scanner": "k-arm", "data": {"source": "composed"}, "seed": 3}
    journal.open(RunIdentity(version="0.1", models=tuple(found), settings=settings))
    for model_id, one in found.items():
        scan = ScanRecord(
            architecture="squeezenetv1_1",
            classes=3,
            sha256=hashlib.sha256((round_dir / model_id / "model.pt").read_bytes()).hexdigest(),
            check="",
            convention=AS_STORED,
            data="",
            accuracy=1.0,
            device="cpu",
            verdict=ScanResult(scanner="k-arm", outcome="flagged", score=1.0, probability=0.7, reason="small"),
            seconds=1.0,
        )
        journal.write(model_id, "before", scan)
        if one is not None:
            journal.write(model_id, "evidence", one)
    return root
