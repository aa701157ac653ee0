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
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .errors import SettingsError
from .records import to_dict
from .samples import Samples
from .scanner import Candidate, Scanner, Verdict, make_scanner, scanners
from .subject import Subject


class SeveralScanners(Scanner):
    """Runs its members one after the other; each sees the same images and seed as if it were alone."""

    settings_type: ClassVar[type] = dict
    settings: dict[str, Any]

    def __init__(self, members: Sequence[tuple[str, Scanner]]) -> None:
        """Take (name, scanner) pairs; the settings are those of all members, by name, as plain JSON types."""
        super().__init__({name: to_dict(member.settings) for name, member in members})
        self.members = tuple(members)

    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> Verdict:
        """Ask every member and combine what they say."""
        verdicts = [(name, member(subject, samples, seed=seed)) for name, member in self.members]
        for _, member in self.members:
            for trigger in member.triggers:
                self.show(trigger)
        return combine(self.name, verdicts)


def make_several(names: str, options: Mapping[str, Any]) -> Scanner:
    """The scanners named in ``a,b`` as one of that name; ``options`` maps each name to its scanner's settings."""
    chosen = split_names(names)
    for key, value in options.items():
        if key not in chosen or not isinstance(value, Mapping):
            raise SettingsError(
                f"--set scanner.{key}: with several scanners write scanner.NAME.SETTING=VALUE with NAME one of "
                f"{', '.join(chosen)}"
            )
    members = [(name, make_scanner(name, options.get(name, {}))) for name in chosen]

    class Chosen(SeveralScanners):
        name: ClassVar[str] = ",".join(chosen)

    return Chosen(members)


def split_names(names: str) -> list[str]:
    """The names of ``--scanner``; SettingsError when one is given twice, since its settings could not be told apart.

    >>> split_names("k-arm, filter")
    ['k-arm', 'filter']
    """
    found = [name.strip() for name in names.split(",")]
    if "" in found:
        raise SettingsError(f"--scanner {names}: a name is missing; write names with one comma between them")
    twice = [name for position, name in enumerate(found) if name in found[:position]]
    if twice:
        raise SettingsError(f"--scanner {names}: {twice[0]} is named twice; name each scanner once")
    return found


def settings_groups(names: str) -> dict[str, type]:
    """What --set calls the settings of ``--scanner``: scanner.* of one, scanner.NAME.* of each of several."""
    chosen, known = split_names(names), scanners()
    for name in chosen:
        if name not in known:
            raise SettingsError(f"--scanner {name}: not installed; choose from {', '.join(sorted(known))}")
    if len(chosen) == 1:
        return {"scanner": known[chosen[0]].settings_type}
    return {f"scanner.{name}": known[name].settings_type for name in chosen}


def combine(name: str, verdicts: Sequence[tuple[str, Verdict]]) -> Verdict:
    """One verdict from those of several scanners, (scanner's name, verdict), by the rule of this module.

    The evidence begins with the scanner that has the largest score and keeps each scanner's own order, since the sizes
    of different kinds of triggers can not be compared; every candidate says which scanner found it.
    """
    ranked = sorted(verdicts, key=lambda pair: -pair[1].score if pair[1].score is not None else float("inf"))
    silent = any(verdict.flagged is None for _, verdict in verdicts)
    flagged = any(verdict.flagged for _, verdict in verdicts)
    scores = [verdict.score for _, verdict in verdicts if verdict.score is not None]
    probabilities = [verdict.probability for _, verdict in verdicts if verdict.probability is not None]
    judged = flagged or not silent
    return Verdict(
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


def _words(verdict: Verdict) -> str:
    return f"not judged: {verdict.reason}" if verdict.flagged is None else verdict.reason


def _marked(candidate: Candidate, name: str) -> Candidate:
    return dataclasses.replace(candidate, scanner=name)
