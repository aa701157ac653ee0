"""Which class pairs a hardening may touch: all, all but some that are withheld, or some only (a burst).

Hardening erases what it trains on. To see whether a pair's trigger was a private shortcut or goes with its neighbours,
the pair is withheld while the others are hardened, and hardened alone afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..pairs import Pair
from ..trigger import Trigger


@dataclass(frozen=True)
class Scope:
    """Class pairs as {a, b}, lower class first, since both directions of a pair are hardened together.

    withheld: never hardened; only: nothing else is hardened, None for no such bound.
    """

    withheld: frozenset[Pair] = frozenset()
    only: frozenset[Pair] | None = None

    @staticmethod
    def except_for(pairs: Iterable[Pair]) -> Scope:
        """Everything but these directed pairs and their ways back.

        >>> sorted(Scope.except_for([(3, 1)]).withheld)
        [(1, 3)]
        """
        return Scope(withheld=unordered(pairs))

    @staticmethod
    def just(pairs: Iterable[Pair]) -> Scope:
        """These directed pairs and their ways back, and nothing else; ValueError for none at all."""
        only = unordered(pairs)
        if not only:
            raise ValueError("a burst needs at least one class pair")
        return Scope(only=only)

    def barred(self, classes: int) -> frozenset[Pair]:
        """The pairs of ``classes`` classes that may not be hardened."""
        every = {(a, b) for a in range(classes) for b in range(a + 1, classes)}
        return frozenset(pair for pair in every if not self.allows(pair))

    def allows(self, pair: Pair) -> bool:
        """Whether a pair may be hardened, whichever way it is written."""
        one = (min(pair), max(pair))
        return one not in self.withheld and (self.only is None or one in self.only)

    def without_withheld(self, trigger: Trigger, present: Sequence[int]) -> list[Trigger]:
        """A universal trigger as it may be trained on: as it is, or for each class whose pair is allowed."""
        if self == EVERYTHING:
            return [trigger]
        victims = [label for label in present if label != trigger.target and self.allows((label, trigger.target))]
        return [Trigger(victim, trigger.target, trigger.mask, trigger.pattern) for victim in victims]


def unordered(pairs: Iterable[Pair]) -> frozenset[Pair]:
    """Directed pairs as {a, b}, lower class first, each once."""
    return frozenset((min(pair), max(pair)) for pair in pairs)


EVERYTHING = Scope()
