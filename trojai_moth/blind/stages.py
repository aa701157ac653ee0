"""Which stage of the evidence gives which features, which pairs these need, and what a verdict can do without.

A rule needs its own features only. What it does not use is not gathered, and a stage that can no longer change the
verdict, whatever it would show, is left out: a cascade, the cheap stages first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ..pairs import Pair
from .choice import ChosenPairs
from .features import FEATURES, PairFeatures
from .settings import EvidenceSettings
from .verdict import Outcome

# In the order in which they run. What needs a further hardening comes last.
STAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "before": ("log_size", "held_success", "asymmetry"),
        "stamps": ("stamp_success", "stamp_conviction", "stamp_peak", "stamp_breadth", "removal_success"),
        "clean_stamps": ("stamp_gap", "conviction_gap", "clean_conviction", "stamp_weakest"),
        "success": ("jitter_success", "transfer"),
        "similarity": ("similarity_residual",),
        "differencing": ("shared_channels", "shared_channels_trigger", "cross_accuracy"),
        "pasted": ("bound_ratio",),
        "suppressed": ("suppressed_growth",),
        "surrogate": ("surrogate_gap", "surrogate_success"),
        "hardened": ("growth_residual", "rank_jump", "asymmetry_change", "hardened_success"),
        "withheld": ("withheld_residual", "withheld_success"),
        "burst": ("burst_residual", "burst_contrast", "burst_drop"),
    }
)
# Unproven or costly, so only where the setting of the same name asks for them.
OPTIONAL: Final = ("pasted", "suppressed", "surrogate")
# Always gathered: any evaluation asks for them, and they cost next to nothing.
ALWAYS: Final = frozenset({"log_size", "held_success"})
# Stages that work on what another one made, which may itself be one of these.
_NEEDED: Mapping[str, str] = MappingProxyType({"clean_stamps": "stamps", "burst": "withheld"})
# Features that compare a pair with its way back, or with the control pairs.
_WITH_BACK: Final = frozenset({"asymmetry", "asymmetry_change"})
_WITH_CONTROLS: Final = frozenset(
    {"similarity_residual", "surrogate_gap", "growth_residual", "rank_jump", "withheld_residual", "burst_residual"}
)


@dataclass(frozen=True)
class Cascade:
    """What a rule asks of the evidence.

    features: those it uses. settled(pairs, open): the verdict on these candidates if the features ``open``, not known
    yet, can not change it whether they are measured or not; None if they can.
    """

    features: frozenset[str]
    settled: Callable[[Sequence[PairFeatures], frozenset[str]], Outcome | None]


def stages_for(cascade: Cascade | None, settings: EvidenceSettings) -> list[str]:
    """The stages that are run, in order; without a cascade all, apart from what the settings do not ask for."""
    asked = [stage for stage in STAGES if stage not in OPTIONAL or getattr(settings, stage)]
    if cascade is None:
        return asked
    wanted = {stage for stage in asked if stage == "before" or cascade.features & set(STAGES[stage])}
    for stage, needed in _NEEDED.items():
        wanted |= {needed} if stage in wanted else set()
    return [stage for stage in asked if stage in wanted]


def features_for(cascade: Cascade | None, settings: EvidenceSettings) -> frozenset[str]:
    """The features that are gathered."""
    given = frozenset(name for stage in stages_for(cascade, settings) for name in STAGES[stage])
    return given if cascade is None else given & (cascade.features | ALWAYS)


def pairs_for(features: frozenset[str], chosen: ChosenPairs) -> tuple[Pair, ...]:
    """The directed pairs whose distances these features need, each once."""
    if features & _WITH_CONTROLS:
        return chosen.measured
    backs = [(target, victim) for victim, target in chosen.candidates] if features & _WITH_BACK else []
    return tuple(dict.fromkeys([*chosen.candidates, *backs]))


def unasked() -> tuple[str, ...]:
    """Features that no stage gives: ``left_out_success``, which a scanner's own evidence may hold."""
    return tuple(name for name in FEATURES if not any(name in given for given in STAGES.values()))
