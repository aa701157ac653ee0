"""The features of a flagged class pair, each declared once: its stage, range, sign and words; and the evidence record.

``sign`` is the direction in which a feature speaks for an injected trigger: +1 where larger does, -1 where smaller.
A learned rule may not use a feature against its sign.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from ..core.records import Field, record
from .filter_evidence import FilterEvidence
from .records import Outcome

# In the order in which they run, the cheap ones first.
Stage = Literal["before", "stamps", "clean_stamps"]
# A margin counts as no more than so many times the target's own, either way (triggers/stamps.py).
_MOST_MARGIN = 2.0
_FEATURE = "feature"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """What a feature's number means.

    stage: the one that measures it. injected, natural: what it says when it speaks for such a trigger. low, high: all
    that it can be. signed: read as +1.0 rather than as a share. needs: evidence settings that change it and no other.
    """

    stage: Stage
    sign: Literal[-1, 1]
    injected: str
    natural: str
    low: float
    high: float
    signed: bool
    needs: tuple[str, ...]


_STAMPED = ("stamps",)
_BESIDE_CLEAN = ("stamps", "clean_networks", "clean_training")


def _feature(
    stage: Stage,
    sign: Literal[-1, 1],
    *,
    injected: str,
    natural: str,
    low: float = -math.inf,
    high: float = math.inf,
    needs: tuple[str, ...] = (),
) -> Any:
    """A field of PairFeatures that is a feature; without a range it is any number, and read with its sign."""
    bounds = {name: value for name, value in (("ge", low), ("le", high)) if math.isfinite(value)}
    told = Feature(
        stage=stage, sign=sign, injected=injected, natural=natural, low=low, high=high, signed=not bounds, needs=needs
    )
    return Field(default=None, json_schema_extra={_FEATURE: told}, **bounds)  # type: ignore[arg-type, call-overload]


@record
class PairFeatures:
    """The evidence on one directed pair victim -> target; None where it was not, or could not be, measured.

    size is that of the smallest trigger in pixels (L1 of the mask), log_size its natural logarithm. What the others
    are is said by ``FEATURES`` and where they are measured: ``held_success`` in triggers/success.py, the rest in
    triggers/stamps.py.
    """

    victim: int
    target: int
    size: float | None = Field(default=None, ge=0)
    log_size: float | None = _feature("before", -1, injected="its trigger is small", natural="its trigger is large")
    held_success: float | None = _feature(
        "before", 1, low=0, high=1,
        injected="its trigger works on images it was not made for",
        natural="its trigger fails on images it was not made for",
    )  # fmt: skip
    stamp_success: float | None = _feature(
        "stamps", 1, low=0, high=1, needs=_STAMPED,
        injected="a plain stamp does it almost anywhere on the sign",
        natural="no plain stamp does it wherever it is put",
    )  # fmt: skip
    stamp_peak: float | None = _feature(
        "stamps", 1, low=-_MOST_MARGIN, high=_MOST_MARGIN, needs=_STAMPED,
        injected="where it does most, a plain stamp convinces it as the target's own images do",
        natural="no plain stamp convinces it as the target's own images do, wherever it is put",
    )  # fmt: skip
    stamp_breadth: float | None = _feature(
        "stamps", 1, low=0, high=1, needs=_STAMPED,
        injected="stamps of other colours do it, too",
        natural="it takes a stamp of just that colour",
    )  # fmt: skip
    removal_success: float | None = _feature(
        "stamps", -1, low=0, high=1, needs=_STAMPED,
        injected="the target is no image of the victim with a detail added",
        natural="without one detail the target is taken for the victim",
    )  # fmt: skip
    stamp_gap: float | None = _feature(
        "clean_stamps", 1, needs=_BESIDE_CLEAN,
        injected="the stamp does nothing to clean networks of the same classes",
        natural="the stamp turns clean networks of the same classes as well",
    )  # fmt: skip
    clean_conviction: float | None = _feature(
        "clean_stamps", -1, low=-_MOST_MARGIN, high=_MOST_MARGIN, needs=_BESIDE_CLEAN,
        injected="the stamp leaves clean networks of the same classes convinced of the victim",
        natural="the stamp comes near to convincing clean networks of the same classes",
    )  # fmt: skip


def _declared() -> Mapping[str, Feature]:
    fields: Mapping[str, Any] = PairFeatures.__pydantic_fields__  # type: ignore[attr-defined]
    extras = {name: info.json_schema_extra or {} for name, info in fields.items()}
    return MappingProxyType({name: extra[_FEATURE] for name, extra in extras.items() if _FEATURE in extra})


FEATURES: Mapping[str, Feature] = _declared()


@record
class BlindEvidence:
    """Everything measured on one flagged model before the rule speaks; candidates most suspicious first.

    censored: share of all measured distances for which no trigger was found; filter: of the known photo filters, None
    where patches alone keep the flag; skipped: stages that failed, and why; accuracy_before: on clean images.
    unneeded: stages that were left out because the rule does not use them or they could no longer change its verdict;
    left_open: the features that are therefore not known, which is not the same as missing.
    """

    candidates: tuple[PairFeatures, ...]
    classes: int
    images_per_class: int
    pairs_measured: int
    censored: float = Field(ge=0, le=1)
    accuracy_before: float
    filter: FilterEvidence | None = None
    skipped: dict[str, str] = Field(default_factory=dict)
    unneeded: dict[str, str] = Field(default_factory=dict)
    left_open: tuple[str, ...] = ()
    settings: dict[str, object] = Field(default_factory=dict)
    seed: int = 0
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    seconds: float = Field(default=0.0, ge=0)


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
