"""A learned rule as a record: weights, threshold, what both were learned from, and how good they were out of fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal

from ..core.learned_file import read_learned, refuse_other
from ..core.records import Field, fingerprint, record
from ..scanners.calibration import Estimate, LeftOut, LogisticCurve
from .explanation import contribute
from .features import FEATURES, PairFeatures
from .records import Contribution, measured

# A hand-full of models bears no more.
MOST_FEATURES: Final = 8
# Evidence settings that change no number of a feature: what is gathered, and what is done about photo filters.
_NO_FEATURE: Final = frozenset({"complete", "filters", "relearning"})
# Evidence settings that change some features only.
_SOME_FEATURES: Final = frozenset(name for feature in FEATURES.values() for name in feature.needs)
# One measurement far outside of all that was learned from may not decide alone.
STANDARD_LIMIT: Final = 4.0


@record
class Term:
    """One feature's part: weight * (value - centre) / scale, in log odds; the standardised value is cut at +-4."""

    feature: str
    centre: float = Field(allow_inf_nan=False)
    scale: float = Field(gt=0, allow_inf_nan=False)
    weight: float = Field(allow_inf_nan=False)

    def __post_init__(self) -> None:
        """ValueError for an unknown feature, or one used against its sign."""
        if self.feature not in FEATURES:
            raise ValueError(f"{self.feature!r:.40} is no feature")
        if self.weight * FEATURES[self.feature].sign < 0:
            raise ValueError(f"{self.feature} is used against its sign")

    def standardised(self, value: float | None) -> float:
        """0 for what was not measured: it speaks for neither side."""
        return self.cut(value) if measured(value) else 0.0

    def cut(self, value: float) -> float:
        """The standardised value of any number, infinity included."""
        return min(max((value - self.centre) / self.scale, -STANDARD_LIMIT), STANDARD_LIMIT)


@record
class Retention:
    """A threshold that true positives keep: cleared is what scores below it, with room down to the next clean score.

    Of models exchangeable with the true_positives whose scores it was set on, a share of at most bound is lost on
    average (split conformal prediction): k / (true_positives + 1), or 1 / (true_positives + 1) where k is 0.
    """

    threshold: float = Field(allow_inf_nan=False)
    tolerate_loss: float = Field(ge=0, lt=1, description="share of true positives that may be lost")
    true_positives: int = Field(ge=1)
    k: int = Field(ge=0, description="threshold: the k-th smallest score, or below; 0: too few models, the smallest")
    bound: float = Field(gt=0, le=1)


@record
class RuleModel:
    """A model that was learned from; score: its own, by a rule that was fitted without its fold. None: not judged."""

    model_id: str
    sha256: str
    group: str = Field(description="twins share a group, and a group is never split between folds")
    poisoned: bool
    right_pair: bool = Field(description="an injected pair is among its candidates")
    fold: int = Field(ge=0)
    score: float | None


@record
class RuleRound:
    """One run of one round."""

    round: str = Field(description="name of the round's folder")
    seed: int
    settings_sha256: str = Field(description="of all settings of the run")
    version: str = Field(description="of the package that made the run")


@record
class RuleProvenance:
    """What a rule was learned from. It holds no date, so that the same work gives the same file."""

    rounds: tuple[RuleRound, ...]
    clean: int = Field(ge=1, description="false positives of the scanner")
    poisoned: int = Field(ge=1, description="true positives of the scanner")
    right_pairs: int = Field(ge=0, description="of those, the ones with an injected pair among the candidates")
    candidates: int = Field(ge=1, description="pairs that weights were fitted to")
    folds: int = Field(ge=2)
    versions: dict[str, str]
    models: tuple[RuleModel, ...]
    left_out: tuple[LeftOut, ...] = ()


@record
class RuleMetrics:
    """How good the rule is on models it was not fitted to; the intervals are at 95 %.

    Weights, threshold and curve come from the other folds alone. The final rule has its threshold and curve from all of
    them, so these numbers are of a rule that was learned from a little less.
    """

    roc_auc: float | None
    cross_entropy: float | None
    cleared: Estimate = Field(description="share of the clean models whose flag is taken back")
    lost: Estimate = Field(description="share of the poisoned models whose flag is taken back")
    unjudged: int = Field(ge=0, description="models that kept their flag because too much was missing")


@record
class LearnedRule:
    """Score of a pair = intercept + sum over terms, in log odds of the pair being injected; of a model, the largest."""

    option: ClassVar[str] = "--rule"
    again: ClassVar[str] = "learn a rule anew with calibrate-rule"
    form: ClassVar[int] = 1
    format: Literal[1] = 1
    version: str = Field(description="of the package")
    scanner: str = Field(description="name of the scanner whose flags it judges")
    data: str = Field(description="source of the images, as of DataSettings")
    evidence_settings: dict[str, object] = Field(
        default_factory=dict,
        description="how evidence was measured, as far as it was alike for all models learned from",
    )
    terms: tuple[Term, ...] = Field(max_length=MOST_FEATURES)
    intercept: float = Field(allow_inf_nan=False)
    curve: LogisticCurve = Field(description="a model's score to its probability of holding an injected backdoor")
    retention: Retention
    metrics: RuleMetrics
    provenance: RuleProvenance

    def __post_init__(self) -> None:
        """ValueError for a feature that is used twice."""
        if len(set(self.features)) < len(self.terms):
            raise ValueError("a feature is used twice")

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features used."""
        return tuple(term.feature for term in self.terms)

    @property
    def identity(self) -> str:
        """SHA-256 of its content."""
        return fingerprint(self)

    @property
    def threshold(self) -> float:
        """Cleared below it."""
        return self.retention.threshold

    @property
    def fitted_files(self) -> frozenset[str]:
        """SHA-256 of the files of all models learned from."""
        return frozenset(model.sha256 for model in self.provenance.models)

    def check(self, scanner: str, data: str, evidence_settings: Mapping[str, object] | None = None) -> None:
        """SettingsError when a run's scanner, images or ways of measuring evidence are not those learned with.

        ``evidence_settings`` as ``BlindEvidence.settings`` holds them, in plain JSON types; None: not compared. Those
        that no feature of the rule depends on may differ.
        """
        learned: dict[str, object] = {"--scanner": self.scanner, "--data": self.data}
        used: dict[str, object] = {"--scanner": scanner, "--data": data}
        for key in filter(self._depends_on, self.evidence_settings if evidence_settings is not None else ()):
            learned[f"evidence setting {key}"] = self.evidence_settings[key]
            used[f"evidence setting {key}"] = (evidence_settings or {}).get(key)
        refuse_other(self, learned, used)

    def _depends_on(self, setting: str) -> bool:
        """Whether a feature of this rule is another number under another value of this evidence setting."""
        if setting in _SOME_FEATURES:
            return any(setting in FEATURES[name].needs for name in self.features)
        return setting not in _NO_FEATURE


def contributions(terms: Iterable[Term], pair: PairFeatures) -> tuple[Contribution, ...]:
    """What each measured feature adds to a pair's score."""
    values = [(term, getattr(pair, term.feature)) for term in terms]
    return tuple(
        contribute(term.feature, value, term.weight * term.standardised(value))
        for term, value in values
        if measured(value)
    )


def read_rule(path: Path) -> LearnedRule:
    """Read what ``trojai-moth calibrate-rule`` wrote; SettingsError names the file and what is wrong with it."""
    return read_learned(LearnedRule, path)
