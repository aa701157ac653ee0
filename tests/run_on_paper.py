"""A run's journal without a run: records as rescan writes them, for as many models as are asked for."""

import random
from types import SimpleNamespace

import torch
from toys import AS_STORED

from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import read_record, to_json
from trojai_moth.core.subject import Preprocessing
from trojai_moth.eval.cards.card import Origin, Outcome, make_record
from trojai_moth.eval.distance_bounds.bounds import BoundSettings, combine
from trojai_moth.hardeners.trace import HardeningRound, HardeningTrace
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.samples import Samples
from trojai_moth.runs.journal import Failure, Journal, RunIdentity, ScanRecord
from trojai_moth.runs.trigger_files import keep_triggers
from trojai_moth.scanners.result import Candidate, ScanResult
from trojai_moth.triggers.distance_records import DistanceSettings
from trojai_moth.triggers.trigger import Trigger

# Names of folders are checked before a run starts; everything else comes from the round as it is.
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">{{ 7*7 }}'\"&<b>"


def write_run(root, models=6, classes=5, seed=0, hostile=False):
    """A run directory; every fifth model failed, every fourth was clean from the start; labels by id."""
    stream, journal = random.Random(seed), Journal(root)
    ids = tuple(f"id-{number:08d}" for number in range(models))
    settings = {"scanner": "neural-cleanse", "harden": "flagged", "verdict": "naive", "data": {"source": "examples"}}
    if hostile:
        settings["note"] = HOSTILE
    journal.open(RunIdentity(version="0.0", models=ids, settings=settings))
    labels = {}
    for number, model_id in enumerate(ids):
        labels[model_id] = number % 2 == 1
        _write_model(journal, model_id, number, classes, stream, HOSTILE if hostile else "")
    return ids, labels


def _write_model(journal, model_id, number, classes, stream, words):
    if number % 5 == 4:
        reason = f"{model_id}: no model.pt in it{words}"
        journal.write(model_id, "failure", Failure(stage="load", reason=reason, seconds=0.1, kind="unreadable"))
        return
    first = scan(stream, classes, number % 4 != 3, words)
    journal.write(model_id, "before", first)
    if first.verdict.flagged:
        journal.write(model_id, "harden", trace(stream))
        journal.write(model_id, "after", scan(stream, classes, number % 3 != 0, words))


def scan(stream, classes, flagged, words):
    found = []
    for _ in range(6):
        victim, target = stream.sample(range(classes), 2)
        size = stream.lognormvariate(2.5, 0.7)
        found.append(
            Candidate(
                victim=victim, target=target, size=size, success=0.95, held_success=stream.random(), held_images=9,
                converged=True,
            )
        )  # fmt: skip
    found.sort(key=lambda candidate: candidate.size)
    score = 0.8 if flagged else -0.4
    verdict = ScanResult(
        scanner="neural-cleanse", outcome="flagged" if flagged else "clean", score=score, probability=0.5 + score / 4,
        reason=f"{found[0].victim}->{found[0].target} turns with {found[0].size:.1f} pixels{words}",
        evidence=tuple(found),
    )  # fmt: skip
    return ScanRecord(
        architecture=f"squeezenetv1_1{words}", classes=classes, sha256="ab" * 32, check="logits reproduced",
        convention=AS_STORED,
        data="examples", accuracy=0.99, device="cpu", verdict=verdict, seconds=4.0,
    )  # fmt: skip


def trace(stream):
    rounds = tuple(
        HardeningRound(
            number=n, pairs=((0, 1, 5.0),), loss=0.1 / (n + 1), learning_rate=1e-4, accuracy=0.99, taken_back=n == 2
        )
        for n in range(4)
    )
    return HardeningTrace(
        hardener="moth", settings={}, seed=1, data="examples", accuracy_before=0.99,
        accuracy_after=0.99 - stream.random() / 100, held_images=30, rounds=rounds, stopped="done", seconds=9.0,
    )  # fmt: skip


def write_triggers(root, model_id, stage="before", size=32):
    """A trigger for the first candidate of a scan, as rescan keeps it beside the record."""
    record = Journal(root).path(model_id, stage)
    best = read_record(ScanRecord, record).verdict.evidence[0]
    mask = torch.zeros(1, size, size)
    mask[:, 4:8, 4:8] = 1.0
    one = Trigger(best.victim, best.target, mask, torch.ones(3, size, size))
    images = ImagePool(torch.full((2, 3, size, size), 0.3), torch.tensor([best.victim, best.target]))
    preprocessing = Preprocessing(stored_size=size, size=size)
    keep_triggers(
        record, SimpleNamespace(triggers=(one,)), SimpleNamespace(preprocessing=preprocessing),
        Samples(images, images, images, ""),
    )  # fmt: skip
    return best


def write_distances(folder, matrix, after):
    """class_distances.json of a model, as ``card`` leaves it, from two matrices."""
    more = {"weights_sha256": "", "seed": 0, "data": "", "features": "", "notes": ()}
    measured = {"pasted": {(0, 1): 3.0}, "similarity": {(0, 1): 0.9}}
    bounds = combine(matrix, after, measured, area=32 * 32, settings=BoundSettings(), **more)
    origin = Origin(data=DataSettings(), on="held", seed=0)
    record = make_record(matrix, after, bounds, Outcome(), origin, (32, 32))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "class_distances.json").write_text(to_json(record))
    assert isinstance(matrix.settings, DistanceSettings)
