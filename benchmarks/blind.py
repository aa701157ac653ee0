"""The blind experiment: scan, plain MOTH, second scan and blind evidence of every model of a half, a record each.

    python benchmarks/blind.py ROUNDS --half development [--share 0/2]
    python benchmarks/blind.py ROUNDS --half fresh --rule-only
    python benchmarks/blind.py ROUNDS --half fresh --stamps [--naive] [--filters] [--own] [--shipped]
    python benchmarks/blind.py ROUNDS --half twelfth --stamps --data examples --out benchmarks/results/examples

``ROUNDS`` is what benchmarks/blind_rounds.py made. A record holds labels only beside the evidence, which is gathered
without them. What is there is not done again; --share splits the work between processes. With --rule-only a model is
scanned, and only what the rule that ships asks for is gathered: a third of the time, enough to score that rule, but not
naive hardening or any other rule beside it. With --stamps the evidence is that of plain stamps alone, in
results/stamps/, which needs no hardening and is enough to learn and to score a rule of it. All are of composed images,
which every rule was learned with; with --data examples of the few that come with a model, as rescan has it where
there is no more.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from blind_rounds import HALVES, facts, folder_of, settings_of, strata_of

from trojai_moth.core.files import write_text
from trojai_moth.core.records import from_dict, read_record, to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.core.subject import Subject
from trojai_moth.hardeners.moth import Moth
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.model_folder import Case
from trojai_moth.rounds.open_model import open_case
from trojai_moth.rounds.reading import read_round
from trojai_moth.rounds.samples import Samples, collect_samples
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.registry import make_scanner
from trojai_moth.synthesis.clean_networks import train_surrogate
from trojai_moth.synthesis.retrained_copies import relearned_copies
from trojai_moth.synthesis.settings import RoundSummary
from trojai_moth.triggers.known_filters import filter_success, filter_table
from trojai_moth.triggers.stamps import StampTables, conviction_gap
from trojai_moth.verdict.evidence import collect_evidence
from trojai_moth.verdict.features import BlindEvidence
from trojai_moth.verdict.filter_evidence import FILTERS, FilterEvidence, filter_evidence
from trojai_moth.verdict.judge import SHIPPED, cascade, judge
from trojai_moth.verdict.learned_rule import read_rule
from trojai_moth.verdict.settings import EvidenceSettings
from trojai_moth.verdict.stages import STAGES, Cascade

SCANNER = "neural-cleanse"
COMPOSED = "composed"
RESULTS = Path(__file__).parent / "results" / "blind"
STAMP_RESULTS = RESULTS.parent / "stamps"
STAMPED = (*STAGES["stamps"], *STAGES["clean_stamps"])
STAMPS = Cascade(frozenset(STAMPED), settled=lambda *_: None)
# What filters do by the settings that ship, in records of sets that tested others.
SHIPPED_FILTER = "filter_as_shipped"
# What a candidate was found with; the settings stand once in every record's evidence.
_VERDICT = ("outcome", "score", "probability", "reason", "evidence", "seconds")


def examine(case: Case, seed: int, asked: Cascade | None = None, data: str = COMPOSED) -> dict[str, Any]:
    """All stages of one model, or the scan and what is asked for; nothing here knows its label."""
    subject, samples = opened(case, seed, {"data": data})
    scanner = make_scanner(SCANNER, {})
    verdict = scanner(subject, samples, seed=derive_seed(seed, "scan"))
    record = {"architecture": subject.architecture, "classes": subject.classes, "sha256": subject.source_sha256}
    record["data"] = data
    record["before"] = _slim(to_dict(verdict))
    gathered = derive_seed(seed, "evidence")
    if verdict.evidence and asked:
        signs = sorted(case.foregrounds.glob("*.png"))
        settings = EvidenceSettings(complete=asked is STAMPS)
        evidence = collect_evidence(subject, samples, verdict, settings, seed=gathered, cascade=asked, signs=signs)
        record["evidence"] = to_dict(evidence)
    elif verdict.evidence:
        hardened, found = harden_and_scan(scanner, subject, samples, seed)
        complete, signs = EvidenceSettings(complete=True), sorted(case.foregrounds.glob("*.png"))
        evidence = collect_evidence(subject, samples, verdict, complete, seed=gathered, hardened=hardened, signs=signs)
        record |= {**found, "evidence": to_dict(evidence)}
    return record


def opened(
    case: Case, seed: int, record: Mapping[str, Any] | None = None, device: torch.device | None = None
) -> tuple[Subject, Samples]:
    """A model and its images: composed ones, where its record does not say otherwise.

    AssertionError if it is not the one of its record: a round made again on another processor has other weights.
    """
    found, known = open_case(case, device or torch.device("cpu")), record or {}
    sha256 = found.subject.source_sha256
    assert known.get("sha256", sha256) == sha256, f"{case.model_id}: not the record's model"
    settings = DataSettings(source=known.get("data", COMPOSED))
    return found.subject, collect_samples(case, found, settings, derive_seed(seed, "images"))


def harden_and_scan(scanner: Scanner, subject: Subject, samples: Samples, seed: int) -> tuple[Subject, dict[str, Any]]:
    """Naive hardening: the network after plain MOTH, and what a record says of it and of its scan."""
    hardened = Moth()(subject, samples, seed=derive_seed(seed, "harden"))
    trace = hardened.trace
    found = {
        "settings": trace.settings, "accuracy_before": trace.accuracy_before, "accuracy_after": trace.accuracy_after,
        "stopped": trace.stopped, "seconds": trace.seconds,
    }  # fmt: skip
    after = _slim(to_dict(scanner(hardened.subject, samples, seed=derive_seed(seed, "scan"))))
    return hardened.subject, {"harden": found, "after": after}


def add_naive(case: Case, seed: int, file: Path) -> None:
    """Naive hardening of a flagged model whose record has none, as ``examine`` would have done it."""
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["before"]["outcome"] != "flagged" or "after" in record:
        return
    record |= harden_and_scan(make_scanner(SCANNER, {}), *opened(case, seed, record), seed)[1]
    write_text(file, json.dumps(record, indent=1) + "\n")
    print(f"{file.stem}: hardened, {record['after']['outcome']}", flush=True)


def add_filters(case: Case, seed: int, file: Path) -> None:
    """What known filters do, for a flagged model whose record is older than that; as ``examine`` would have it."""
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["before"]["outcome"] != "flagged" or record["evidence"].get("filter"):
        return
    found = beside_clean(case, *opened(case, seed, record), derive_seed(seed, "evidence"))
    record["evidence"]["filter"] = to_dict(found)
    record["evidence"]["settings"][FILTERS] = to_dict(EvidenceSettings().filters)
    write_text(file, json.dumps(record, indent=1) + "\n")
    print(f"{file.stem}: {found.filter}, suspicion {found.suspicion(EvidenceSettings().filters):.1f}", flush=True)


def add_shipped(case: Case, seed: int, file: Path) -> None:
    """What filters do by the settings that ship, where the patches alone would clear the model."""
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["before"]["outcome"] != "flagged":
        return
    settings, known = EvidenceSettings().filters, record.get(SHIPPED_FILTER)
    shown = known and from_dict(FilterEvidence, known, source=file.stem)
    if shown and (shown.unexplained or shown.suspicion(settings) < settings.odds):
        return
    patches = as_shipped(record)["evidence"] | {"filter": None}
    if judge(from_dict(BlindEvidence, patches, source=file.stem), read_rule(SHIPPED)).outcome == "kept":
        return  # a patch keeps it, whatever filters do
    found = beside_clean(case, *opened(case, seed, record), derive_seed(seed, "evidence"))
    write_text(file, json.dumps(record | {SHIPPED_FILTER: to_dict(found)}, indent=1) + "\n")
    print(f"{file.stem}: {found.filter}, suspicion {found.suspicion(settings):.2f}", flush=True)


def as_shipped(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with filters by the settings that ship, where these were added, and their bound."""
    evidence = record["evidence"]
    settings = evidence["settings"] | {FILTERS: to_dict(EvidenceSettings().filters)}
    shown = record.get(SHIPPED_FILTER, evidence["filter"])
    return {**record, "evidence": {**evidence, "settings": settings, "filter": shown}}


def beside_clean(case: Case, subject: Subject, samples: Samples, seed: int) -> FilterEvidence:
    """What known filters do to a model and to clean networks, which are trained whether they matter or not.

    Relearned copies only where it would be kept without.
    """
    whole = EvidenceSettings()
    images, settings = samples.train.first_per_class(whole.images_per_class), whole.filters
    own = filter_table(subject, images)
    clean = [filter_success(network, images) for network in clean_networks(case, subject, samples, seed)]
    found = filter_evidence(own, settings, clean)
    if found.suspicion(settings) < settings.odds:
        return found
    copies = relearned_copies(subject, samples.train, samples.held, whole.relearning, seed=seed)
    return filter_evidence(own, settings, clean, [filter_success(copy, images) for copy in copies])


def clean_networks(case: Case, subject: Subject, samples: Samples, seed: int) -> list[Subject]:
    """Those that the evidence of this seed has."""
    settings, signs, clean = EvidenceSettings(), sorted(case.foregrounds.glob("*.png")), []
    for number in range(settings.clean_networks):
        own = derive_seed(seed, "clean", number)
        network = train_surrogate(
            subject, samples.train, samples.held, settings.clean_training, seed=own, foregrounds=signs
        )
        assert network is not None, f"{case.model_id}: no clean network of its classes"
        clean.append(network)
    return clean


def add_own(case: Case, seed: int, file: Path) -> None:
    """What stamps do to a flagged model itself, and how sure clean networks are, where its record lacks it."""
    record = json.loads(file.read_text(encoding="utf-8"))
    candidates = record.get("evidence", {}).get("candidates", [])
    if not candidates or "stamp_breadth" in candidates[0]:
        return
    subject, samples = opened(case, seed, record)
    tables = StampTables(subject, samples.train, EvidenceSettings().stamps)
    for one in candidates:
        found = tables.features((one["victim"], one["target"]))
        assert abs((found["stamp_success"] or 0) - one["stamp_success"]) < 1e-3, f"{file}: other stamps"
        one |= {name: value for name, value in found.items() if name not in one}
    without = [one for one in candidates if "conviction_gap" not in one]
    networks = clean_networks(case, subject, samples, derive_seed(seed, "evidence")) if without else []
    beside = [tables.on(network, {one["victim"] for one in without}) for network in networks]
    for one in without:
        one["conviction_gap"] = conviction_gap(tables.table, beside, (one["victim"], one["target"]))
    for one in candidates:  # what clean networks do is in the gap (stamps.conviction_gap)
        own, gap = one["stamp_conviction"], one["conviction_gap"]
        one.setdefault("clean_conviction", None if own is None or gap is None else own - gap)
    write_text(file, json.dumps(record, indent=1) + "\n")
    print(f"{file.stem}: {[round(one['stamp_breadth'], 2) for one in candidates]}", flush=True)


def _slim(verdict: dict[str, Any]) -> dict[str, Any]:
    return {name: verdict[name] for name in _VERDICT}


ADDITIONS: Mapping[str, tuple[Callable[[Case, int, Path], None], str]] = {
    "naive": (add_naive, "naive hardening, to records that are there without it"),
    "filters": (add_filters, "known filters, to records that are without them"),
    "own": (add_own, "what stamps do to the model itself, to records that lack part of it"),
    "shipped": (add_shipped, "what filters do by the settings that ship, to records of what patches would clear"),
}


def main() -> None:
    """Examine what has no record yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=Path)
    parser.add_argument("--half", choices=HALVES, required=True, help="or the fresh set")
    parser.add_argument("--share", default="0/1", help="which part of the models, as in 0/2 and 1/2")
    parser.add_argument("--rule-only", action="store_true", help="nothing that the rule that ships does not ask for")
    parser.add_argument("--stamps", action="store_true", help="only the evidence of plain stamps, all of it")
    for name, (_, words) in ADDITIONS.items():
        parser.add_argument(f"--{name}", action="store_true", help=f"add {words}")
    parser.add_argument("--architecture", help="only models of this TrojAI architecture, as in resnet18")
    parser.add_argument("--data", choices=(COMPOSED, "examples"), default=COMPOSED, help="images; examples need --out")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    assert arguments.out or arguments.data == COMPOSED, "--data examples: give --out, for records of their own"
    asked = STAMPS if arguments.stamps else cascade(read_rule(SHIPPED)) if arguments.rule_only else None
    results = arguments.out or (STAMP_RESULTS if arguments.stamps else RESULTS)
    part, parts = map(int, arguments.share.split("/"))
    work = []
    for stratum in strata_of(arguments.half):
        folder = folder_of(arguments.rounds, stratum, arguments.half)
        if folder.is_dir():
            assert read_record(RoundSummary, folder / "make_round.json").settings == settings_of(
                stratum, arguments.half
            )
            work += [(folder, case, stratum) for case in read_round(folder) if isinstance(case, Case)]
    work = [item for item in work if arguments.architecture in (None, item[1].config.architecture)]
    for folder, case, stratum in work[part::parts]:
        file = results / arguments.half / f"{stratum}-{case.model_id}.json"
        seed = derive_seed(0, arguments.half, stratum, case.model_id)
        if file.exists():
            for name, (add, _) in ADDITIONS.items():
                if getattr(arguments, name):
                    add(case, seed, file)
            continue
        began = time.monotonic()
        record = facts(folder, case, stratum, arguments.half) | examine(case, seed, asked, arguments.data)
        record |= {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}
        record["seconds"] = round(time.monotonic() - began, 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(record, indent=1) + "\n")
        print(f"{arguments.half} {stratum} {case.model_id}: {record['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
