"""How well scanners tell a labelled round's poisoned models from its clean ones, and how long they take.

    python benchmarks/scanners.py ROUND --scanner k-arm --scanner k-arm:arms_at_once=1 --out FILE

Every model is scanned once per seed with images of its own; a scanner is given as NAME or NAME:SETTING=VALUE,....
Beside the scanner's own verdicts stand those of a calibration that is learned from the other models, twins kept
together, so that no figure of the learned side is measured on what it was learned from. Models that could not be judged
are listed.
"""

import time
from pathlib import Path
from typing import Any

import torch
from record import Record, parser

from trojai_moth.cli.options import parse_assignments
from trojai_moth.core.records import read_record, to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.eval.calibration.learn import LearnSettings, ScoredModel, Source, learn
from trojai_moth.eval.calibration.scans import read_groups
from trojai_moth.eval.labels import read_labels
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_round
from trojai_moth.rounds.samples import collect_samples
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.calibration import LeftOut
from trojai_moth.scanners.registry import make_scanner
from trojai_moth.synthesis.make_round import SUMMARY_FILE
from trojai_moth.synthesis.settings import RoundSummary


def main() -> None:
    """Scan every model by every scanner with every seed, then the figures."""
    options = parser(__doc__)
    options.add_argument("round", type=Path)
    options.add_argument("--scanner", action="append", required=True, help="NAME or NAME:SETTING=VALUE,SETTING=VALUE")
    options.add_argument("--data", choices=["examples", "composed"], default="examples")
    options.add_argument("--seeds", type=int, default=3, help="scans of each model")
    chosen = options.parse_args()
    scanners = {words: scanner_of(words) for words in chosen.scanner}
    record = Record("scanners", chosen, scanners={words: to_dict(s.settings) for words, s in scanners.items()})
    record.data["round"] = about(chosen.round)
    cases = [case for case in read_round(chosen.round) if isinstance(case, ModelFolder)]
    for case in cases:
        for words, scanner in scanners.items():
            record.part(f"{case.model_id} {words}", lambda c=case, s=scanner: scans(c, s, chosen, record.device))
    labels, groups = read_labels(chosen.round), read_groups(chosen.round)
    data = DataSettings(source=chosen.data)
    figures = {
        words: summary(record.data["parts"], words, scanner, Source(chosen.round.name, (), scanner.name, {}, data),
                       labels, groups)
        for words, scanner in scanners.items()
    }  # fmt: skip
    record.finish(**figures)
    for words, found in figures.items():
        print(f"{words}: {line(found)}")


def scanner_of(words: str) -> Scanner:
    """k-arm:steps=9 -> that scanner."""
    name, _, assignments = words.partition(":")
    settings = parse_assignments([f"scanner.{part}" for part in assignments.split(",") if part], ["scanner"])
    return make_scanner(name, settings["scanner"])


def about(round_dir: Path) -> dict[str, Any]:
    """What kind of round it is and how long it took to make, where make-round made it."""
    file = round_dir / SUMMARY_FILE
    if not file.is_file():
        return {"name": round_dir.resolve().name}
    made = read_record(RoundSummary, file)
    return {"settings": to_dict(made.settings), "minutes": made.seconds / 60, "dropped": len(made.dropped)}


def scans(case: ModelFolder, scanner: Scanner, chosen: Any, device: torch.device) -> dict[str, Any]:
    """One model by one scanner, with all seeds; as ``rescan`` with that seed would begin."""
    opened = open_folder(case, device)
    verdicts, seconds = [], []
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        own = derive_seed(seed, case.model_id)
        samples = collect_samples(case, opened, DataSettings(source=chosen.data), derive_seed(own, "images"))
        begun = time.perf_counter()
        verdict = scanner(opened.subject, samples, seed=derive_seed(own, "scan"))
        seconds.append(time.perf_counter() - begun)
        verdicts.append({key: value for key, value in to_dict(verdict).items() if key not in ("settings", "seconds")})
    subject = opened.subject
    return {
        "architecture": subject.architecture,
        "sha256": subject.source_sha256,
        "seconds": seconds,
        "verdicts": verdicts,
    }


def summary(
    parts: dict[str, Any], words: str, scanner: Scanner, source: Source, labels: dict[str, bool], groups: dict[str, str]
) -> dict[str, Any]:
    """One scanner's counts, quality as it is and calibrated, and minutes."""
    models, left_out, seconds, flags = [], [], [], {True: [0, 0], False: [0, 0]}
    for name, part in parts.items():
        model_id, _, by = name.partition(" ")
        if by != words:
            continue
        seconds += part["seconds"]
        verdicts = part["verdicts"]
        if any(verdict["outcome"] == "not judged" for verdict in verdicts):
            left_out.append(LeftOut(model_id=model_id, reason=verdicts[0]["reason"]))
            continue
        model = scored(model_id, part, labels[model_id], groups)
        flags[model.poisoned][0] += model.flags[0]
        flags[model.poisoned][1] += 1
        models.append(model)
    count = len(models[0].scores) if models else 0
    known = Source(source.round, tuple(range(count)), source.scanner, to_dict(scanner.settings), source.data)
    learned = learn(models, left_out, known, LearnSettings())
    return {
        "true_positives": flags[True],
        "false_positives": flags[False],
        "not_judged": [to_dict(model) for model in left_out],
        "minutes_per_model": sum(seconds) / 60 / max(len(seconds), 1),
        "threshold": learned.threshold,
        "metrics": to_dict(learned.metrics),
    }


def scored(model_id: str, part: dict[str, Any], poisoned: bool, groups: dict[str, str]) -> ScoredModel:
    """A model's verdicts as calibration wants them."""
    verdicts = part["verdicts"]
    return ScoredModel(
        model_id=model_id,
        sha256=part["sha256"],
        group=groups.get(model_id, model_id),
        poisoned=poisoned,
        scores=tuple(verdict["score"] for verdict in verdicts),
        probabilities=tuple(verdict["probability"] for verdict in verdicts),
        flags=tuple(verdict["outcome"] == "flagged" for verdict in verdicts),
    )


def line(found: dict[str, Any]) -> str:
    """One scanner in one line."""
    words = [
        f"true positives {found['true_positives'][0]} of {found['true_positives'][1]}",
        f"false positives {found['false_positives'][0]} of {found['false_positives'][1]}",
        f"not judged {len(found['not_judged'])}",
        f"{found['minutes_per_model']:.2f} minutes a model",
    ]
    for side in ("scanner", "learned"):
        quality = found["metrics"][side]
        rates = [quality[name]["value"] for name in ("true_positive_rate", "false_positive_rate", "roc_auc")]
        words.append(
            f"{side}: TPR {rates[0]:.2f}, FPR {rates[1]:.2f}, AUC {rates[2]:.2f}, cross-entropy "
            f"{quality['cross_entropy']['value']:.3f}, same verdict {quality['same_verdict']['value'] or 0:.2f}"
        )
    return "; ".join(words)


if __name__ == "__main__":
    main()
