"""What the evidence that is off by default tells apart: D5, D11 and D12 of the blind verdict on one network's models.

    python benchmarks/blind_optional.py ROUNDS --half twelfth --architecture squeezenetv1_1 --out FILE

``ROUNDS`` is what benchmarks/blind_rounds.py made of that half, of which the polygons at 32 pixels are taken. The
candidates are those of results/stamps: the scanner's and the pairs whose stamps work best. A clean surrogate of the
model's own architecture is trained for each model, which is what takes the time. Figures: ROC-AUC of injected pairs
against all candidates of clean models, and of models by their most suspicious candidate, each in the direction that the
feature is said to speak in.
"""

import json
from pathlib import Path
from typing import Any

from blind import SCANNER, STAMP_RESULTS, opened
from blind_rounds import HALVES, folder_of, settings_of, strata_of
from record import Record, parser
from sklearn.metrics import roc_auc_score

from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.rounds.model_folder import Case
from trojai_moth.rounds.reading import read_round
from trojai_moth.scanners.result import Verdict
from trojai_moth.verdict.evidence import collect_evidence
from trojai_moth.verdict.features import FEATURES
from trojai_moth.verdict.filter_evidence import FilterSettings
from trojai_moth.verdict.settings import EvidenceSettings
from trojai_moth.verdict.stages import OPTIONAL, STAGES, Cascade

ASKED = tuple(name for stage in OPTIONAL for name in STAGES[stage])
# Stamps choose the candidates; filters and their clean networks are not needed.
CASCADE = Cascade(frozenset({*ASKED, "stamp_success"}), settled=lambda *_: None)
SETTINGS = EvidenceSettings(pasted=True, suppressed=True, surrogate=True, filters=FilterSettings(odds=99.0))


def main() -> None:
    """Every flagged model, then how each feature lies."""
    options = parser(__doc__)
    options.add_argument("rounds", type=Path)
    options.add_argument("--half", choices=HALVES, required=True, help="whose records are in results/stamps")
    options.add_argument("--architecture", help="only models of this TrojAI architecture, as in resnet18")
    chosen = options.parse_args()
    record = Record("optional evidence", chosen, evidence=to_dict(SETTINGS))
    for stratum in patched(chosen.half):
        for case in read_round(folder_of(chosen.rounds, stratum, chosen.half)):
            if not isinstance(case, Case) or chosen.architecture not in (None, case.config.architecture):
                continue
            file = STAMP_RESULTS / chosen.half / f"{stratum}-{case.model_id}.json"
            known = json.loads(file.read_text(encoding="utf-8"))
            if known["before"]["outcome"] == "flagged":
                record.part(f"{stratum} {case.model_id}", lambda c=case, k=known: looked(c, k, record))
    figures = {name: figure(list(record.data["parts"].values()), name) for name in ASKED}
    record.finish(**figures)
    for name, found in figures.items():
        print(f"{name}: {found}")


def patched(half: str) -> list[str]:
    """Its strata of polygons at 32 pixels."""
    made = {stratum: settings_of(stratum, half) for stratum in strata_of(half)}
    return [stratum for stratum, one in made.items() if (one.trigger, one.size) == ("polygon", 32)]


def looked(case: Case, known: dict[str, Any], record: Record) -> dict[str, Any]:
    """The optional evidence on one model, with the images and seeds of benchmarks/blind.py."""
    seed = derive_seed(0, known["half"], known["stratum"], case.model_id)
    subject, samples = opened(case, seed, known, record.device)
    verdict = from_dict(Verdict, {"scanner": SCANNER, **known["before"]}, source=case.model_id)
    found = collect_evidence(
        subject, samples, verdict, SETTINGS, seed=derive_seed(seed, "evidence"), cascade=CASCADE,
        signs=sorted(case.foregrounds.glob("*.png")),
    )  # fmt: skip
    pairs = [
        {"pair": [one.victim, one.target], **{name: getattr(one, name) for name in ASKED}} for one in found.candidates
    ]
    return {
        "poisoned": known["poisoned"], "injected_pairs": known["injected_pairs"], "pairs": pairs,
        "skipped": found.skipped, "stage_seconds": found.stage_seconds,
    }  # fmt: skip


def figure(models: list[dict[str, Any]], feature: str) -> dict[str, Any]:
    """ROC-AUC by pair and by model, and how many pairs have the feature; None where one side has none."""
    sign = FEATURES[feature].sign or 1
    valued = [(one, pair, sign * pair[feature]) for one in models for pair in one["pairs"] if pair[feature] is not None]
    injected = [value for one, pair, value in valued if pair["pair"] in one["injected_pairs"]]
    natural = [value for one, _, value in valued if not one["poisoned"]]
    largest = [
        (one["poisoned"], max(values)) for one in models if (values := [v for own, _, v in valued if own is one])
    ]
    return {
        "injected_pairs": len(injected),
        "natural_pairs": len(natural),
        "models": len(largest),
        "roc_auc_pairs": area([True] * len(injected) + [False] * len(natural), injected + natural),
        "roc_auc_models": area([bad for bad, _ in largest], [value for _, value in largest]),
    }


def area(labels: list[bool], values: list[float]) -> float | None:
    """ROC-AUC, None where only one kind is there."""
    return round(float(roc_auc_score(labels, values)), 3) if len(set(labels)) == 2 else None


if __name__ == "__main__":
    main()
