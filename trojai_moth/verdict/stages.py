"""The three stages of the evidence, which features each gives, and what a rule asks of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, get_args

from .features import FEATURES, PairFeatures, Stage
from .records import Outcome

STAGES: Mapping[Stage, tuple[str, ...]] = MappingProxyType(
    {stage: tuple(name for name, one in FEATURES.items() if one.stage == stage) for stage in get_args(Stage)}
)
# Always gathered: any evaluation asks for them.
ALWAYS: Final = frozenset(STAGES["before"])


@dataclass(frozen=True)
class Question:
    """What a rule asks of the evidence.

    features: those it uses. settled(pairs, open): the verdict on these candidates if the features ``open``, not known
    yet, cannot change it whether they are measured or not; None if they can.
    """

    features: frozenset[str]
    settled: Callable[[Sequence[PairFeatures], frozenset[str]], Outcome | None]


def wanted_features(question: Question | None) -> frozenset[str]:
    """The features that are gathered; without a question all."""
    return frozenset(FEATURES) if question is None else question.features | ALWAYS


def stages_for(features: frozenset[str]) -> list[Stage]:
    """The stages that give these features, in order; clean networks are compared by what the stamps do."""
    wanted = [stage for stage, given in STAGES.items() if not features.isdisjoint(given)]
    return list(STAGES) if "clean_stamps" in wanted else wanted
