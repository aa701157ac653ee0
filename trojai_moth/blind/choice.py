"""Which pairs of a flagged model are looked into, and which they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..hardeners.scope import unordered
from ..pairs import Pair
from ..scanner import Candidate, Verdict
from .settings import EvidenceSettings


def shown(verdict: Verdict) -> tuple[Candidate, ...]:
    """What a verdict shows; nothing where one of several scanners flagged the model for what is no patch.

    Patches alone are looked into, and must not take back the flag of a scanner that saw something else.
    """
    other = any(one.kind != "patch" and one.scanner in verdict.flagged_by for one in verdict.evidence)
    return () if other else verdict.evidence


@dataclass(frozen=True)
class ChosenPairs:
    """candidates: suspicious directed pairs, worst first; withheld, trained: directed control pairs."""

    candidates: tuple[Pair, ...]
    withheld: tuple[Pair, ...]
    trained: tuple[Pair, ...]

    @property
    def held_out(self) -> frozenset[Pair]:
        """What hardening may not touch, as unordered pairs."""
        return unordered([*self.candidates, *self.withheld])

    @property
    def measured(self) -> tuple[Pair, ...]:
        """All directed pairs whose distance is needed, each once: candidates, their ways back, controls."""
        backs = [(t, v) for v, t in self.candidates]
        return tuple(dict.fromkeys([*self.candidates, *backs, *self.withheld, *self.trained]))


def choose_pairs(
    evidence: Sequence[Candidate], present: Sequence[int], classes: int, settings: EvidenceSettings,
    stream: torch.Generator, stamped: Callable[[], Sequence[Pair]] = tuple, *, withholding: bool = True,
) -> ChosenPairs:  # fmt: skip
    """The scanner's smallest working patches of one victim class each, and random controls among the other pairs.

    ``stamped``: asked for more candidates, worst first, where the scanner has any; up to ``suspects`` are added.
    Without ``withholding`` no hardening depends on what is left of the pairs, and candidates are not limited by it.
    ``present``: classes with images. Candidates and withheld controls are at most ``withheld_share`` of the unordered
    pairs, and at least one candidate; controls are unordered pairs apart from the candidates', in a random direction.
    """
    every = [(a, b) for a in range(classes) for b in range(a + 1, classes)]
    most = max(1, int(settings.withheld_share * len(every)))
    found = [(c.victim, c.target) for c in evidence if c.kind == "patch" and c.size is not None and c.victim in present]
    candidates: list[Pair] = []

    def add(pairs: Sequence[Pair], limit: int) -> None:
        for pair in pairs:
            fits = not withholding or len(unordered([*candidates, pair])) <= max(1, most - 1)
            if pair not in candidates and fits and len(candidates) < limit:
                candidates.append(pair)

    add([(int(victim or 0), target) for victim, target in found], settings.candidates)
    # A model whose scanner shows no patch was not flagged for one, and patches can not take its flag back.
    if candidates and settings.suspects:
        add(stamped(), len(candidates) + settings.suspects)
    others = [pair for pair in every if pair not in unordered(candidates)]
    order = [others[at] for at in torch.randperm(len(others), generator=stream).tolist()]
    turned = [_turned(pair, present, stream) for pair in order]
    usable = [pair for pair in turned if pair is not None]
    room = min(settings.controls, max(0, most - len(unordered(candidates))))
    return ChosenPairs(tuple(candidates), tuple(usable[:room]), tuple(usable[room : room + settings.controls]))


def _turned(pair: Pair, present: Sequence[int], stream: torch.Generator) -> Pair | None:
    """One direction of a pair whose victim has images, at random; None if neither class has any."""
    ways = [way for way in (pair, (pair[1], pair[0])) if way[0] in present]
    return ways[int(torch.randint(len(ways), (), generator=stream))] if ways else None
