"""What is measured on a flagged class pair, what each number says about it, and its name in words.

``sign`` is the direction in which a feature speaks for an injected trigger: +1 where larger does, -1 where smaller,
0 where it may be either. A learned rule may not use a feature against its sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..records import Field, record
from .filtered import FilterEvidence


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature: its sign and what it means when it speaks for an injected trigger and for a natural one."""

    sign: int
    injected: str
    natural: str


@record
class PairFeatures:
    """The evidence on one directed pair victim -> target; None where it was not, or could not be, measured.

    Sizes are in pixels (L1 of the mask), growths are natural logarithms of a ratio of sizes, rates are shares in
    [0, 1], residuals are in robust standard deviations.
    """

    victim: int
    target: int
    size: float | None = Field(default=None, ge=0)
    log_size: float | None = None
    held_success: float | None = Field(default=None, ge=0, le=1)
    left_out_success: float | None = Field(default=None, ge=0, le=1)
    jitter_success: float | None = Field(default=None, ge=0, le=1)
    transfer: float | None = Field(default=None, ge=0, le=1)
    asymmetry: float | None = None
    similarity_residual: float | None = None
    shared_channels: float | None = Field(default=None, ge=0)
    shared_channels_trigger: float | None = Field(default=None, ge=0)
    cross_accuracy: float | None = Field(default=None, ge=0, le=1)
    suppressed_growth: float | None = None
    bound_ratio: float | None = None
    stamp_success: float | None = Field(default=None, ge=0, le=1)
    stamp_conviction: float | None = None
    stamp_peak: float | None = None
    stamp_breadth: float | None = Field(default=None, ge=0, le=1)
    removal_success: float | None = Field(default=None, ge=0, le=1)
    stamp_gap: float | None = None
    conviction_gap: float | None = None
    stamp_weakest: float | None = None
    clean_conviction: float | None = None
    surrogate_gap: float | None = None
    surrogate_success: float | None = Field(default=None, ge=0, le=1)
    growth_residual: float | None = None
    rank_jump: float | None = None
    asymmetry_change: float | None = None
    hardened_success: float | None = Field(default=None, ge=0, le=1)
    withheld_residual: float | None = None
    burst_residual: float | None = None
    burst_contrast: float | None = None
    withheld_success: float | None = Field(default=None, ge=0, le=1)
    burst_drop: float | None = None


FEATURES: Mapping[str, Feature] = MappingProxyType(
    {
        "log_size": Feature(sign=-1, injected="its trigger is small", natural="its trigger is large"),
        "held_success": Feature(
            sign=1,
            injected="its trigger works on images it was not made for",
            natural="its trigger fails on images it was not made for",
        ),
        "left_out_success": Feature(
            sign=1,
            injected="its trigger does not depend on any one image",
            natural="its trigger depends on the images it was made for",
        ),
        "jitter_success": Feature(
            sign=1,
            injected="its trigger works on shifted and turned images",
            natural="its trigger fails on shifted and turned images",
        ),
        "transfer": Feature(
            sign=0, injected="its trigger's reach over other classes", natural="its trigger's reach over other classes"
        ),
        "asymmetry": Feature(
            sign=1, injected="the way back needs a far larger trigger", natural="the way back is as short"
        ),
        "similarity_residual": Feature(
            sign=-1,
            injected="its trigger is smaller than the likeness of the classes explains",
            natural="the likeness of the classes explains its trigger",
        ),
        "shared_channels": Feature(
            sign=-1,
            injected="the trigger uses other channels than the difference of the classes",
            natural="the trigger uses the channels that tell the classes apart",
        ),
        "shared_channels_trigger": Feature(
            sign=-1,
            injected="few of the trigger's channels are those of the class difference",
            natural="most of the trigger's channels are those of the class difference",
        ),
        "cross_accuracy": Feature(
            sign=-1,
            injected="exchanging the trigger's channels does not exchange the classes",
            natural="exchanging the trigger's channels exchanges the classes",
        ),
        "suppressed_growth": Feature(
            sign=-1,
            injected="its trigger does without the target's own features",
            natural="its trigger needs the target's own features",
        ),
        "bound_ratio": Feature(
            sign=1,
            injected="its trigger is far smaller than the pasted piece of a target image that does the same",
            natural="a piece of a target image of that size does the same",
        ),
        "stamp_success": Feature(
            sign=1,
            injected="a plain stamp does it almost anywhere on the sign",
            natural="no plain stamp does it wherever it is put",
        ),
        "stamp_conviction": Feature(
            sign=1,
            injected="a plain stamp convinces it nearly as much as the target's own images do",
            natural="no plain stamp convinces it as the target's own images do",
        ),
        "stamp_peak": Feature(
            sign=1,
            injected="where it does most, a plain stamp convinces it as the target's own images do",
            natural="no plain stamp convinces it as the target's own images do, wherever it is put",
        ),
        "stamp_breadth": Feature(
            sign=1,
            injected="stamps of other colours do it, too",
            natural="it takes a stamp of just that colour",
        ),
        "removal_success": Feature(
            sign=-1,
            injected="the target is no image of the victim with a detail added",
            natural="without one detail the target is taken for the victim",
        ),
        "stamp_gap": Feature(
            sign=1,
            injected="the stamp does nothing to clean networks of the same classes",
            natural="the stamp turns clean networks of the same classes as well",
        ),
        "conviction_gap": Feature(
            sign=1,
            injected="the stamp convinces it far more than it does clean networks of the same classes",
            natural="the stamp convinces it hardly more than it does clean networks of the same classes",
        ),
        "stamp_weakest": Feature(
            sign=1,
            injected="a plain stamp does it, no detail of the target explains that, and clean networks do not give way",
            natural="no plain stamp does it, or a detail of the target or clean networks of these classes explain it",
        ),
        "clean_conviction": Feature(
            sign=-1,
            injected="the stamp leaves clean networks of the same classes convinced of the victim",
            natural="the stamp comes near to convincing clean networks of the same classes",
        ),
        "surrogate_gap": Feature(
            sign=1,
            injected="a clean network of the same classes needs a far larger trigger",
            natural="a clean network of the same classes has as small a trigger",
        ),
        "surrogate_success": Feature(
            sign=-1,
            injected="its trigger does nothing to a clean network of the same classes",
            natural="its trigger also turns a clean network of the same classes",
        ),
        "growth_residual": Feature(
            sign=1,
            injected="hardening enlarged its trigger more than other pairs'",
            natural="hardening enlarged its trigger as it did other pairs'",
        ),
        "rank_jump": Feature(
            sign=1,
            injected="hardening moved it far up among all pairs",
            natural="it stays among the smallest pairs after hardening",
        ),
        "asymmetry_change": Feature(
            sign=-1,
            injected="hardening took its lead over the way back",
            natural="hardening left its lead over the way back",
        ),
        "hardened_success": Feature(
            sign=0,
            injected="its old trigger on the hardened network",
            natural="its old trigger on the hardened network",
        ),
        # Injected triggers break when anything else is hardened: gate E1 (benchmarks/blind_gates.py) found the opposite
        # of what the idea of a private shortcut supposes.
        "withheld_residual": Feature(
            sign=1,
            injected="its trigger broke although only other pairs were hardened",
            natural="its trigger held like others while only other pairs were hardened",
        ),
        "burst_residual": Feature(
            sign=1,
            injected="a short hardening of it alone enlarged it more than others",
            natural="a short hardening of it alone did no more than for others",
        ),
        "burst_contrast": Feature(
            sign=-1,
            injected="it grew before it was hardened itself, and hardly when it was",
            natural="it grew when it was hardened itself",
        ),
        "withheld_success": Feature(
            sign=-1,
            injected="its old trigger was lost when only other pairs were hardened",
            natural="its old trigger survived the hardening of the other pairs",
        ),
        "burst_drop": Feature(
            sign=1,
            injected="its old trigger was lost only when it was hardened itself",
            natural="hardening it itself took nothing more from its old trigger",
        ),
    }
)


@record
class BlindEvidence:
    """Everything measured on one flagged model before the rule speaks; candidates most suspicious first.

    controls: pairs whose growth the candidates' was compared with; censored: share of all measured distances for which
    no trigger was found; filter: of the known photo filters, None where patches alone keep the flag; skipped: stages
    that failed, and why; accuracies on images held back from hardening. unneeded: stages that were left out because the
    rule does not use them or they could no longer change its verdict; left_open: the features that are therefore not
    known, which is not the same as missing.
    """

    candidates: tuple[PairFeatures, ...]
    classes: int
    images_per_class: int
    pairs_measured: int
    controls: int
    censored: float = Field(ge=0, le=1)
    withheld_growth: float | None = None
    trained_growth: float | None = None
    accuracy_before: float
    accuracy_withheld: float | None = None
    accuracy_burst: float | None = None
    filter: FilterEvidence | None = None
    skipped: dict[str, str] = Field(default_factory=dict)
    unneeded: dict[str, str] = Field(default_factory=dict)
    left_open: tuple[str, ...] = ()
    settings: dict[str, object] = Field(default_factory=dict)
    seed: int = 0
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    seconds: float = 0.0
