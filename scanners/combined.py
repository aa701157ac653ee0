"""Several scanners as one: ``--scanner k-arm,filter``.

The rule. Flagged if any of them flags; else not judged if any could not judge, since nobody then looked for the kind of
trigger that this one finds; else clean. Score: the largest. Probability: the largest too. The obvious rival, one minus
the product of (1 - p), takes the scanners for independent witnesses. They are not: they look at the same network and
the same images, and classes that look alike give all of them small triggers at once, so that it would turn several mild
suspicions of one natural backdoor into near certainty, and the more so the more scanners are listed. The largest claims
no more than the best witness says. It is not calibrated; ``trojai-moth calibrate --scanner k-arm,filter`` learns what a
combined score means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from ..core.records import to_dict
from ..core.subject import Subject
from ..rounds.samples import Samples
from .base import Scanner
from .result import Candidate, ScanResult


class CombinedScanner(Scanner):
    """Runs its members one after the other; each sees the same images and seed as if it were alone."""

    settings_type: ClassVar[type] = dict
    settings: dict[str, Any]

    def __init__(self, members: Sequence[tuple[str, Scanner]]) -> None:
        """Take (name, scanner) pairs; the settings are those of all members, by name, as plain JSON types."""
        super().__init__({name: to_dict(member.settings) for name, member in members})
        self.members = tuple(members)

    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> ScanResult:
        """Ask every member and combine what they say."""
        verdicts = [(name, member(subject, samples, seed=seed)) for name, member in self.members]
        for _, member in self.members:
            for trigger in member.triggers:
                self.show(trigger)
        return combine(self.name, verdicts)


def combine(name: str, verdicts: Sequence[tuple[str, ScanResult]]) -> ScanResult:
    """One verdict from those of several scanners, (scanner's name, verdict), by the rule of this module.

    The evidence begins with the scanner that has the largest score and keeps each scanner's own order, since the sizes
    of different kinds of triggers cannot be compared; every candidate says which scanner found it.
    """
    ranked = sorted(verdicts, key=lambda pair: -pair[1].score if pair[1].score is not None else float("inf"))
    silent = any(verdict.flagged is None for _, verdict in verdicts)
    flagged = any(verdict.flagged for _, verdict in verdicts)
    scores = [verdict.score for _, verdict in verdicts if verdict.score is not None]
    probabilities = [verdict.probability for _, verdict in verdicts if verdict.probability is not None]
    judged = flagged or not silent
    return ScanResult(
        scanner=name,
        outcome="flagged" if flagged else "not judged" if silent else "clean",
        score=max(scores) if judged else None,
        probability=max(probabilities, default=None) if judged else None,
        reason="; ".join(f"{one}: {_words(verdict)}" for one, verdict in verdicts),
        evidence=tuple(_marked(candidate, one) for one, verdict in ranked for candidate in verdict.evidence),
        incomplete=flagged and silent,
        member_scores={one: verdict.score for one, verdict in verdicts if verdict.score is not None},
        traceback="\n".join(verdict.traceback for _, verdict in verdicts if verdict.traceback) or None,
    )


def _words(verdict: ScanResult) -> str:
    return f"not judged: {verdict.reason}" if verdict.flagged is None else verdict.reason


def _marked(candidate: Candidate, name: str) -> Candidate:
    return dataclasses.replace(candidate, scanner=name)
