"""How much evidence is gathered on a flagged model."""

from __future__ import annotations

from ..core.records import Field, record
from ..synthesis.clean_networks import SurrogateSettings
from ..synthesis.retrained_copies import RetrainSettings
from ..triggers.precision import PrecisionChoice
from ..triggers.stamps import StampSettings
from ..triggers.task import InversionSettings
from .filter_evidence import FilterCheckSettings


@record
class EvidenceSettings:
    """Pairs, images and steps; what enters a rule's features must be as it was learned."""

    complete: bool = Field(
        default=False,
        description="gather what the rule does not use, too, to learn a rule from; else only what can decide",
    )
    candidates: int = Field(
        default=3, gt=0, le=1_000_000, description="suspicious pairs that are looked into (protocol: 3 to 5)"
    )
    suspects: int = Field(
        default=2,
        ge=0,
        le=1_000_000,
        description="pairs beside those, whose plain stamps work best and are explained least",
    )
    stamps: StampSettings = Field(default_factory=StampSettings, description="which plain stamps are tried")
    clean_networks: int = Field(
        default=2,
        gt=0,
        le=1_000_000,
        description="clean networks of the same classes on which the same stamps are tried",
    )
    clean_training: SurrogateSettings = Field(
        default_factory=lambda: SurrogateSettings(network="plain"), description="how those networks are trained"
    )
    filters: FilterCheckSettings = Field(
        default_factory=FilterCheckSettings, description="known photo filters, which are no patch and keep a flag"
    )
    relearning: RetrainSettings = Field(
        default_factory=RetrainSettings, description="copies that are retrained where a known filter would keep a flag"
    )
    images_per_class: int = Field(
        default=16, gt=0, le=100_000, description="images that a pair's trigger is inverted on"
    )
    steps: int = Field(default=250, gt=0, le=1_000_000, description="inversion steps; fewer than 250 measure nothing")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a trigger must reach")
    precision: PrecisionChoice = Field(default="auto", description="auto: bf16 where that is faster")

    @property
    def inversion(self) -> InversionSettings:
        """How distances are measured."""
        return InversionSettings(steps=self.steps, success_bound=self.success_bound, precision=self.precision)
