"""Which pairs of a flagged model are looked into."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..scanners.result import Candidate, ScanResult
from ..triggers.trigger import Pair
from .settings import EvidenceSettings


def shown(verdict: ScanResult) -> tuple[Candidate, ...]:
    """What a verdict shows; nothing where one of several scanners flagged the model for what is no patch.

    Patches alone are looked into, and must not take back the flag of a scanner that saw something else.
    """
    other = any(one.kind != "patch" and one.scanner in verdict.flagged_by for one in verdict.evidence)
    return () if other else verdict.evidence


def choose_candidates(
    evidence: Sequence[Candidate], present: Sequence[int], settings: EvidenceSettings,
    stamped: Callable[[], Sequence[Pair]] = tuple,
) -> tuple[Pair, ...]:  # fmt: skip
    """The scanner's smallest working patches of one victim class each, worst first.

    ``stamped``: asked for more candidates, worst first, where the scanner has any; up to ``suspects`` are added.
    ``present``: classes with images.
    """
    found = [(c.victim, c.target) for c in evidence if c.kind == "patch" and c.size is not None and c.victim in present]
    candidates = tuple(dict.fromkeys((int(victim or 0), target) for victim, target in found))[: settings.candidates]
    # A model whose scanner shows no patch was not flagged for one, and patches cannot take its flag back.
    if not candidates or not settings.suspects:
        return candidates
    return tuple(dict.fromkeys([*candidates, *stamped()]))[: len(candidates) + settings.suspects]
