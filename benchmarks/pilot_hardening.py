"""What MOTH, as it ships, does to every model of a round: change of distances, accuracy lost, backdoors, seconds.

    python benchmarks/pilot_hardening.py ROUND --out FILE

Distances of all directed pairs are inverted before and after on the same newly composed images, accuracy is measured on
more of those; no method and no accuracy guard saw any of them. Attack success is that of the folder's poisoned example
images, which nothing else looks at. Seconds are those of the hardening call alone, composing and measuring left out.
"""

import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contest import accuracy
from record import Record, parser
from subjects import Model, model_with_images

from trojai_moth.core.records import to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.core.subject import Subject
from trojai_moth.eval.gain import Gain, gains
from trojai_moth.hardeners.moth import Moth
from trojai_moth.hardeners.moth_settings import MothSettings
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.rounds.poisoned_examples import attack_success, read_poisoned
from trojai_moth.rounds.reading import read_round
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import FAST, DistanceSettings


def main() -> None:
    """All models, then the figures over them."""
    options = parser(__doc__)
    options.add_argument("round", type=Path)
    options.add_argument("--images", type=int, default=6, help="fresh images per class that distances are inverted on")
    options.add_argument("--rounds", type=int, default=MothSettings().rounds, help="rounds of MOTH")
    chosen = options.parse_args()
    settings = MothSettings(rounds=chosen.rounds)
    meter = DistanceSettings(**{**FAST, "images_per_class": chosen.images})
    record = Record("pilot hardening", chosen, hardener=to_dict(settings), distance=to_dict(meter))
    for case in read_round(chosen.round):
        if isinstance(case, ModelFolder):
            record.part(case.model_id, lambda case=case: one_model(case, settings, meter, chosen, record))
    record.finish(**summary(record.data["parts"]))
    for name, part in record.data["parts"].items():
        print(name, line(part))


def one_model(
    case: ModelFolder, settings: MothSettings, meter: DistanceSettings, chosen: Any, record: Record
) -> dict[str, Any]:
    """One row."""
    model = model_with_images(case, chosen.seed, record.device)
    poisoned = read_poisoned(case, model.subject)
    before = sizes(model, model.subject, meter)
    begun = time.perf_counter()
    hardened = Moth(settings)(model.subject, model.samples, seed=derive_seed(chosen.seed, case.model_id))
    seconds = time.perf_counter() - begun
    after = sizes(model, hardened.subject, meter)
    return {
        "seconds": seconds,
        "distances": [before, after],
        "accuracy": [accuracy(model, model.subject), accuracy(model, hardened.subject)],
        "fresh_images": len(model.fresh),
        "audit": to_dict(hardened.trace.audit) if hardened.trace.audit else None,
        "guarded_accuracy": [hardened.trace.accuracy_before, hardened.trace.accuracy_after],
        "attack_success": [attack_success(s, poisoned) for s in (model.subject, hardened.subject)]
        if poisoned
        else None,
        "rounds": len(hardened.trace.rounds),
        "taken_back": sum(part.taken_back for part in hardened.trace.rounds),
        "stopped": hardened.trace.stopped,
    }


def sizes(model: Model, subject: Subject, meter: DistanceSettings) -> tuple[tuple[float | None, ...], ...]:
    """The distance matrix on fresh images."""
    return measure_distances(subject, model.fresh, meter, "fresh images").distances


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """Figures over the models."""
    models = list(parts.values())
    found = {name: gains(*part["distances"]) for name, part in parts.items()}
    injected = [part["attack_success"] for part in models if part["attack_success"]]
    return {
        "models": len(models),
        "gain": {name: to_dict(gain) for name, gain in found.items()},
        **{f"change_of_{name.replace(' ', '_')}": values for name, values in over_models(found.values()).items()},
        "largest_accuracy_loss": max(part["accuracy"][0] - part["accuracy"][1] for part in models),
        "mean_accuracy_loss": sum(part["accuracy"][0] - part["accuracy"][1] for part in models) / len(models),
        "largest_attack_success_after": max((after for _, after in injected), default=None),
        "largest_seconds": max(part["seconds"] for part in models),
    }


def over_models(found: Iterable[Gain]) -> dict[str, dict[str, float]]:
    """The least, the median and the largest change of each figure; without models that have no pair to compare."""
    changes: dict[str, list[float]] = {}
    for gain in found:
        for name, change in gain.changes:
            changes.setdefault(name, []).append(change.change)
    return {
        name: {"least": min(values), "median": statistics.median(values), "largest": max(values)}
        for name, values in changes.items()
    }


def line(part: dict[str, Any]) -> str:
    """One model."""
    gain, accuracy_, attack = gains(*part["distances"]), part["accuracy"], part["attack_success"]
    changes = (f"{name} {c.before:.1f} -> {c.after:.1f} pixels, {c.words}" for name, c in gain.changes)
    words = (
        f"{'; '.join(changes)}; {gain.pairs} pairs, {gain.shrunk} shrank, accuracy {accuracy_[0]:.2%} -> "
        f"{accuracy_[1]:.2%}, {part['seconds']:.0f} s"
    )
    return words if attack is None else f"{words}, attack success {attack[0]:.0%} -> {attack[1]:.0%}"


if __name__ == "__main__":
    main()
