"""Scan and blind evidence of every model of a set, and what plain hardening makes of it: a record each.

    python benchmarks/gather_evidence.py ROUNDS --set twelfth --naive --out FILE
    python benchmarks/gather_evidence.py ROUNDS --set twelfth --data examples --out FILE

ROUNDS is what model_sets.py made. Evidence is gathered in full and without a model's label, which stands beside it.
Models whose record is in FILE are not examined again. A round made on another processor has other weights, so its
records do not replace the committed ones. Images are composed of a model's signs, as the rule asks for; with --data
examples they are the few that come with it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from model_sets import SCANNER, SETS, facts
from set_records import read_records, write_records

from trojai_moth.core.records import to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.core.subject import Subject
from trojai_moth.hardeners.moth import Moth
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_round
from trojai_moth.rounds.samples import Samples, collect_samples
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.registry import make_scanner
from trojai_moth.scanners.result import ScanResult
from trojai_moth.verdict.evidence import collect_evidence
from trojai_moth.verdict.settings import EvidenceSettings


def examine(case: ModelFolder, seed: int, data: str, naive: bool) -> dict[str, Any]:
    """All stages of one model; nothing here knows its label."""
    opened = open_folder(case, torch.device("cpu"))
    subject = opened.subject
    samples = collect_samples(case, opened, DataSettings(source=data), derive_seed(seed, "images"))
    scanner = make_scanner(SCANNER, {})
    verdict = scanner(subject, samples, seed=derive_seed(seed, "scan"))
    record = {
        "architecture": subject.architecture,
        "classes": subject.classes,
        "sha256": subject.source_sha256,
        "data": data,
        "before": _short(verdict),
    }
    if verdict.evidence:
        settings, signs = EvidenceSettings(complete=True), sorted(case.foregrounds.glob("*.png"))
        own = derive_seed(seed, "evidence")
        record["evidence"] = to_dict(collect_evidence(subject, samples, verdict, settings, seed=own, signs=signs))
    if naive and verdict.outcome == "flagged":
        record |= harden_and_scan(scanner, subject, samples, seed)
    return record


def harden_and_scan(scanner: Scanner, subject: Subject, samples: Samples, seed: int) -> dict[str, Any]:
    """Naive hardening: what plain MOTH did, and the scan of the network after it."""
    hardened = Moth()(subject, samples, seed=derive_seed(seed, "harden"))
    trace = hardened.trace
    found = {
        "settings": trace.settings,
        "accuracy_before": trace.accuracy_before,
        "accuracy_after": trace.accuracy_after,
        "stopped": trace.stopped,
        "seconds": trace.seconds,
    }
    return {"harden": found, "after": _short(scanner(hardened.subject, samples, seed=derive_seed(seed, "scan")))}


def _short(verdict: ScanResult) -> dict[str, Any]:
    whole = to_dict(verdict)
    return {name: whole[name] for name in ("outcome", "score", "probability", "reason", "seconds")}


def main() -> None:
    """Examine what has no record yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=Path)
    parser.add_argument("--set", choices=SETS, required=True, dest="name")
    parser.add_argument("--data", choices=("composed", "examples"), default="composed")
    parser.add_argument("--naive", action="store_true", help="also harden flagged models plainly and scan them again")
    parser.add_argument("--out", type=Path, required=True, help="a .jsonl.xz")
    chosen = parser.parse_args()
    records = list(read_records(chosen.out)) if chosen.out.exists() else []
    known = {(record["stratum"], record["model_id"]) for record in records}
    for stratum in SETS[chosen.name].strata:
        for case in read_round(chosen.rounds / chosen.name / stratum):
            if not isinstance(case, ModelFolder) or (stratum, case.model_id) in known:
                continue
            seed, began = derive_seed(0, chosen.name, stratum, case.model_id), time.monotonic()
            record = facts(chosen.rounds, chosen.name, stratum, case)
            record |= examine(case, seed, chosen.data, chosen.naive)
            record |= {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}
            record["seconds"] = round(time.monotonic() - began, 1)
            records.append(record)
            write_records(chosen.out, records)
            print(f"{chosen.name} {stratum} {case.model_id}: {record['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
