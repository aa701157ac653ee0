"""Ours against the published algorithm on one model: same images, same meter, seconds of both."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from figures import growth, seconds_to
from reference.inversion import Search
from reference.meter import measure
from reference.moth import Checkpoint, Published, harden
from subjects import Model, random_pairs

from trojai_moth.core.records import to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.core.subject import Subject
from trojai_moth.hardeners.moth import Moth
from trojai_moth.hardeners.moth_settings import MothSettings


@dataclass(frozen=True)
class Meter:
    """The published inversion on fresh images, which neither side was hardened or watched on."""

    pairs: int
    images: int
    steps: int
    seed: int

    def sizes(self, model: Model, subject: Subject) -> list[float | None]:
        """Sizes of the model's pairs on one version of its weights."""
        settings = Search(steps=self.steps, weight_gradients=False)
        pairs = random_pairs(subject.classes, self.pairs, self.seed)
        return measure(subject, model.fresh, pairs, settings, self.seed, self.images)

    def pair_list(self, model: Model) -> list[list[int]]:
        """The pairs that are measured."""
        return [list(pair) for pair in random_pairs(model.subject.classes, self.pairs, self.seed)]


def ours(model: Model, meter: Meter, settings: MothSettings, seed: int) -> dict[str, Any]:
    """Harden with MOTH as it ships; seconds are those of the whole call."""
    begun = time.perf_counter()
    hardened = Moth(settings)(model.subject, model.samples, seed=derive_seed(seed, "ours"))
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "settings": to_dict(settings),
        "stopped": hardened.trace.stopped,
        "rounds": len(hardened.trace.rounds),
        "sizes": meter.sizes(model, hardened.subject),
        "accuracy": accuracy(model, hardened.subject),
    }


def accuracy(model: Model, subject: Subject) -> float:
    """On the fresh images."""
    return subject.accuracy(model.fresh.x, model.fresh.y)


def theirs(
    model: Model, meter: Meter, settings: Published, seed: int, before: list[float | None], wanted: float | None,
    every: float, save: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """Harden as published, measuring at most every so many seconds; stop when ``wanted`` is reached."""
    seen: list[dict[str, Any]] = []

    def look(checkpoint: Checkpoint) -> None:
        sizes = meter.sizes(model, checkpoint.subject)
        kept = accuracy(model, checkpoint.subject)
        seen.append(
            {
                "step": checkpoint.step,
                "seconds": checkpoint.seconds,
                "sizes": sizes,
                "gain": growth(sizes, before),
                "accuracy": kept,
            }
        )
        save({"checkpoints": seen, "unfinished": True})

    def watch(checkpoint: Checkpoint) -> bool:
        if checkpoint.seconds - (seen[-1]["seconds"] if seen else 0.0) < every:
            return False
        look(checkpoint)
        gain = seen[-1]["gain"]
        return wanted is not None and gain is not None and gain >= wanted

    last = harden(model.subject, model.samples.train, settings, derive_seed(seed, "theirs"), watch)
    if not seen or seen[-1]["step"] != last.step:
        look(last)
    return {"settings": to_dict(settings), "seconds": last.seconds, "checkpoints": seen}


def verdict(before: list[float | None], mine: dict[str, Any], rival: dict[str, Any]) -> dict[str, Any]:
    """Seconds to the same gain, which is the geometric mean of after / before: it decides the race, and no more.

    Where the rival was stopped first, the ratio of the seconds is a lower bound and says so.

    Where ours gained nothing there is nothing to reach, and no ratio.
    """
    gain = growth(mine["sizes"], before)
    seconds = [seen["seconds"] for seen in rival["checkpoints"]]
    gains = [seen["gain"] for seen in rival["checkpoints"]]
    gained = gain is not None and gain > 1
    reached = seconds_to(gain, seconds, gains) if gained else None
    until = reached if reached is not None else rival["seconds"]
    return {
        "gain": gain,
        "seconds": mine["seconds"],
        "reference_gain": gains[-1],
        "reference_seconds": until,
        "reference_reached_it": reached is not None,
        "time_ratio": until / mine["seconds"] if gained else None,
        "time_ratio_is_lower_bound": gained and reached is None,
        "accuracy": mine["accuracy"],
        "reference_accuracy": rival["checkpoints"][-1]["accuracy"],
    }
