"""What known filters do to labelled models beside clean networks: where the bounds on them may lie.

    trojai-moth make-round ROUND --models 12 --classes 5 --size 32 --architecture resnet18,squeezenetv1_1 \
        --images-per-class 10 --lookalikes 1 --trigger filter --seed 40
    python benchmarks/filter_odds.py ROUND ROUNDS --out benchmarks/results/filter_odds.json

``ROUNDS`` is what blind_rounds.py made. All models of ROUND, and of the SETS the flagged ones that are clean or were
taught a filter, with the images and the clean networks of their records. The weight of conviction and the bounds that
ship (trojai_moth/verdict/filter_evidence.py) were set on these models, and must not be judged on them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blind import STAMP_RESULTS, beside_clean, opened
from blind_gates import read_records
from blind_rounds import folder_of
from blind_rule import FIVE_CONVINCED, has_filters
from record import Record, parser

from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.eval.labels import read_labels
from trojai_moth.rounds.model_folder import Case
from trojai_moth.rounds.reading import read_round
from trojai_moth.verdict.filter_evidence import FilterEvidence, FilterSettings
from trojai_moth.verdict.settings import EvidenceSettings

SETS = FIVE_CONVINCED
ROUND = "filter round"


def main() -> None:
    """Every model, then how the two kinds lie."""
    options = parser(__doc__)
    options.add_argument("round", type=Path)
    options.add_argument("rounds", type=Path)
    chosen = options.parse_args()
    record = Record("filter odds", chosen, sets=list(SETS))
    for name, poisoned, case, own, known in [*models(chosen.round), *flagged(chosen.rounds)]:
        record.part(name, lambda c=case, b=poisoned, s=own, k=known: {"poisoned": b} | looked(c, s, k, record))
    parts = record.data["parts"]
    pulls = {bad: sorted(suspicion(one) for one in parts.values() if one["poisoned"] is bad) for bad in (True, False)}
    bound = FilterSettings().odds
    record.finish(
        poisoned=pulls[True],
        clean=pulls[False],
        bound=bound,
        kept={str(bad): [sum(value >= bound for value in pulls[bad]), len(pulls[bad])] for bad in pulls},
    )
    print(record.data["summary"])


Model = tuple[str, bool, Case, int, Mapping[str, Any] | None]


def models(folder: Path) -> Iterator[Model]:
    """Name, label, case, seed and record, of which there is none, of all models of the filter round."""
    labels = read_labels(folder)
    for case in read_round(folder):
        if isinstance(case, Case):
            yield f"{ROUND} {case.model_id}", labels[case.model_id], case, derive_seed(0, case.model_id), None


def flagged(rounds: Path) -> Iterator[Model]:
    """The same of the flagged models of the sets that are clean or were taught a filter."""
    for half in SETS:
        records = {(one["stratum"], one["model_id"]): one for one in read_records(STAMP_RESULTS / half)}
        for stratum in dict.fromkeys(stratum for stratum, _ in records):
            for case in read_round(folder_of(rounds, stratum, half)):
                known = records.get((stratum, case.model_id), {})
                if not isinstance(case, Case) or "evidence" not in known:
                    continue
                if known["poisoned"] and not has_filters(known):
                    continue
                seed = derive_seed(0, half, stratum, case.model_id)
                yield f"{half} {stratum} {case.model_id}", known["poisoned"], case, seed, known


def suspicion(part: Mapping[str, Any]) -> float:
    """By the settings that ship."""
    found = {name: part[name] for name in FilterEvidence.__dataclass_fields__}
    return from_dict(FilterEvidence, found, source="the record").suspicion(FilterSettings())


def looked(case: Case, seed: int, known: Mapping[str, Any] | None, record: Record) -> dict[str, Any]:
    """As rescan with composed images does it, with clean networks for every model."""
    subject, samples = opened(case, seed, known, device=record.device)
    found = beside_clean(case, subject, samples, derive_seed(seed, "evidence"))
    return {
        "architecture": subject.architecture, "clean_networks": EvidenceSettings().clean_networks,
        **to_dict(found),
    }  # fmt: skip


if __name__ == "__main__":
    main()
