"""What known filters do to a labelled round's models beside clean networks: where the bound on their odds may lie.

    trojai-moth make-round ROUND --models 12 --classes 5 --size 32 --architecture resnet18,squeezenetv1_1 \
        --images-per-class 10 --lookalikes 1 --trigger filter --seed 40
    python benchmarks/blind_rounds.py ROUNDS --half second --only filter --only plain --only few
    python benchmarks/filter_odds.py ROUND ROUNDS/second/filter [...] --out benchmarks/results/filter_odds.json

The folders of the second set were called second-filter and so on for the record. The weight of conviction and the bound
that ship (trojai_moth/blind/filtered.py) were set on these models, and on the third, fourth and anew sets of
blind_rounds.py, and must not be judged on them. Of the poisoned ones, those of the strata plain and few have polygons.
The pairs of the record were chosen with conviction counted four times, as was usual then.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blind import beside_clean, opened
from record import Record, parser

from trojai_moth.blind.filtered import FilterEvidence, FilterSettings
from trojai_moth.blind.settings import EvidenceSettings
from trojai_moth.eval.labels import read_labels
from trojai_moth.records import from_dict, to_dict
from trojai_moth.rounds import Case, read_round
from trojai_moth.seeding import derive_seed


def main() -> None:
    """Every model, then how the two kinds lie."""
    options = parser(__doc__)
    options.add_argument("rounds", type=Path, nargs="+")
    chosen = options.parse_args()
    folders = chosen.rounds
    chosen.rounds = [folder.name for folder in folders]
    record = Record("filter odds", chosen)
    for folder in folders:
        labels = read_labels(folder)
        for case in read_round(folder):
            if isinstance(case, Case):
                name = f"{folder.name} {case.model_id}"
                record.part(name, lambda c=case, bad=labels[case.model_id]: {"poisoned": bad} | looked(c, record))
    parts = record.data["parts"]
    odds = {bad: sorted(suspicion(one) for one in parts.values() if one["poisoned"] is bad) for bad in (True, False)}
    record.finish(
        poisoned=odds[True],
        clean=odds[False],
        bound=FilterSettings().odds,
        kept={str(bad): [sum(value >= FilterSettings().odds for value in odds[bad]), len(odds[bad])] for bad in odds},
    )
    print(record.data["summary"])


def suspicion(part: Mapping[str, Any]) -> float:
    """By the settings that ship."""
    found = {name: part[name] for name in FilterEvidence.__dataclass_fields__}
    return from_dict(FilterEvidence, found, source="the record").suspicion(FilterSettings())


def looked(case: Case, record: Record) -> dict[str, Any]:
    """As rescan with composed images does it, with clean networks for every model."""
    own = derive_seed(0, case.model_id)
    subject, samples = opened(case, own, device=record.device)
    found = beside_clean(case, subject, samples, own)
    return {
        "architecture": subject.architecture, "clean_networks": EvidenceSettings().clean_networks,
        **to_dict(found),
    }  # fmt: skip


if __name__ == "__main__":
    main()
