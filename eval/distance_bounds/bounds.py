"""What bounds a class distance from outside: real images, the likeness of two classes, and an independent network.

Pure functions and records; :mod:`.similarity_measures` measures what goes in. Nothing here proves that a pair is safe:
an inverted trigger, a pasted piece and a surrogate's trigger are each the smallest that a search has found, so the true
distance may always be smaller. :data:`DEFINITIONS` says of every number what it is and what it does not prove.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import SettingsError
from ...core.records import Field, record
from ...synthesis.clean_networks import SurrogateSettings
from ...triggers.distance_records import DistanceMatrix
from ...triggers.trigger import Pair, pixels_at
from ..gain import check_comparable

DEFINITIONS: Mapping[str, str] = MappingProxyType(
    {
        "before": "Class distance of the model as it came: pixels of the smallest trigger found that turns images of "
        "the victim into the target. A search found it, so it is an upper bound of the true distance.",
        "after": "The same for the hardened model. It too is an upper bound: that no smaller trigger was found does "
        "not prove that there is none.",
        "pasted": "Pixels of the smallest piece of a real target image that, pasted over the victim's images where it "
        "stood, turns them into the target. An upper bound of the distance from natural images alone, for the network "
        "it was measured on. A larger one does not prove that the classes are unlike: few pieces were tried.",
        "similarity": "Cosine between the mean features of two classes' clean images, after the mean of all classes is "
        "taken off: 1 alike, 0 or less unlike. It ranks pairs; it is no bound and has no unit of pixels.",
        "leakage": "Mean probability that the network gives the target on clean images of the victim. It ranks pairs "
        "too, and depends on how sure of itself the network is.",
        "sign_pixels": "Mean number of pixels that change when the target's sign takes the place of the victim's in "
        "the same scene. An image so changed is one of the target, so no right network needs more than that for one "
        "image. It is not bounded for a trigger that is the same on all images.",
        "surrogate": "The same distance in a clean network of the same architecture, trained here from random weights. "
        "Small there too: the classes are alike. Large there: the model's own doing, which training can do as well as "
        "an attacker.",
    }
)


@record
class BoundSettings:
    """What the bounds are measured with."""

    images_per_class: int = Field(
        default=20, gt=0, le=100_000, description="images of a class that pieces are pasted on"
    )
    patterns: int = Field(
        default=4, gt=0, le=1_000_000, description="images of the target that pieces are cut from, for each pair"
    )
    steps: int = Field(default=250, gt=0, le=1_000_000, description="inversion steps at most")
    success_bound: float = Field(default=0.9, gt=0, le=1, description="success rate that a piece must reach")
    scenes: int = Field(default=20, gt=0, le=100_000, description="scenes in which every sign is put for sign_pixels")
    pixel_change: float = Field(
        default=0.1, gt=0, lt=1, description="change of a colour value, of 1, from which a pixel counts as changed"
    )
    risk_pixels: float = Field(
        default=1000.0,
        gt=0,
        le=1e12,
        description="largest trigger that the scanner takes for injected, in pixels of 224 x 224 (K-Arm's pair bound)",
    )
    surrogate: SurrogateSettings = Field(
        default_factory=SurrogateSettings, description="how a surrogate is trained, where one is asked for"
    )


@record
class PairBounds:
    """One directed pair; None where it was not measured or nothing was found. Sizes are in pixels."""

    victim: int
    target: int
    before: float | None = Field(default=None, ge=0)
    after: float | None = Field(default=None, ge=0)
    pasted: float | None = Field(default=None, ge=0, description="None where no piece tried turns the victim")
    similarity: float | None = Field(default=None, ge=-1.001, le=1.001)
    leakage: float | None = Field(default=None, ge=0, le=1)
    sign_pixels: float | None = Field(default=None, ge=0)
    surrogate: float | None = Field(default=None, ge=0)
    at_risk: bool = Field(description="the last distance measured is below what the scanner takes for injected")

    @property
    def known(self) -> float | None:
        """The smallest change known to work on the network last measured: trigger or piece; None without either."""
        return min((size for size in (self.last, self.pasted) if size is not None), default=None)

    @property
    def last(self) -> float | None:
        """The distance after hardening, or before where that is all there is."""
        return self.before if self.after is None else self.after


@record
class ClassBounds:
    """All pairs, those with the smallest last distance first and those without one at the end."""

    model_id: str
    classes: int
    source_sha256: str = Field(description="of the model file")
    weights_sha256: str = Field(description="of the weights that pieces and features were measured on")
    hardened: bool = Field(description="whether there are distances after hardening")
    risk_bound: float = Field(gt=0, description="pixels below which a pair is at risk, at this model's image size")
    settings: BoundSettings
    seed: int
    data: str
    features: str = Field(description="the layer whose mean output per channel the similarity compares")
    pairs: tuple[PairBounds, ...]
    notes: tuple[str, ...] = ()
    definitions: dict[str, str] = Field(default_factory=lambda: dict(DEFINITIONS))
    seconds: float = 0.0

    @property
    def at_risk(self) -> tuple[PairBounds, ...]:
        """The pairs at risk, smallest first."""
        return tuple(pair for pair in self.pairs if pair.at_risk)


Values = Mapping[Pair, float | None]


def combine(
    before: DistanceMatrix,
    after: DistanceMatrix | None,
    measured: Mapping[str, Values],
    *,
    area: int,
    settings: BoundSettings,
    **given: Any,
) -> ClassBounds:
    """Distances and ``measured`` (field of PairBounds -> pair -> value) in one table.

    area: of the input in pixels. A pair that was censored after hardening is not at risk as far as is known: no
    trigger was found. SettingsError if the two matrices cannot be compared.
    """
    if after is not None:
        check_comparable(before, after)
    bound = pixels_at(area, settings.risk_pixels)
    pairs = []
    for victim, target in ((pair.victim, pair.target) for pair in before.pairs):
        last = (after or before).distances[victim][target]
        pairs.append(
            PairBounds(
                victim=victim,
                target=target,
                before=before.distances[victim][target],
                after=after.distances[victim][target] if after else None,
                at_risk=last is not None and last < bound,
                **{name: values.get((victim, target)) for name, values in measured.items()},  # type: ignore[arg-type]
            )
        )
    chosen = after or before
    key = {(pair.victim, pair.target): chosen.distances[pair.victim][pair.target] for pair in pairs}
    return ClassBounds(
        model_id=before.model_id,
        classes=before.classes,
        source_sha256=before.source_sha256,
        hardened=after is not None,
        risk_bound=bound,
        settings=settings,
        pairs=tuple(sorted(pairs, key=lambda pair: _order(key[pair.victim, pair.target]))),
        **given,
    )


def check_same_model(matrix: DistanceMatrix, source_sha256: str, name: str) -> None:
    """SettingsError unless the distances are of this model file; ``name`` is what the user gave."""
    if matrix.source_sha256 != source_sha256:
        raise SettingsError(f"{name}: holds distances of another model file ({matrix.model_id}); measure this one")


def cosine_similarity(features: NDArray[np.float64], y: Sequence[int], classes: int) -> NDArray[np.float64]:
    """(K, K) cosines of the class means of features (N, D), the mean of the class means taken off; y (N,) labels.

    nan for classes without images, and where a class lies exactly in the middle of all.

    >>> cosine_similarity(np.array([[1.0, 0.0], [0.0, 1.0]]), [0, 1], 2).round(3).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    labels = np.asarray(y)
    present = [label for label in range(classes) if (labels == label).any()]
    means = np.full((classes, features.shape[1]), np.nan)
    for label in present:
        means[label] = features[labels == label].mean(0)
    centred = means - means[present].mean(0)
    length = np.linalg.norm(centred, axis=1)
    length[length == 0] = np.nan
    unit = centred / length[:, None]
    cosines: NDArray[np.float64] = np.clip(unit @ unit.T, -1, 1)
    return cosines


def by_pair(matrix: NDArray[np.float64]) -> dict[Pair, float | None]:
    """A square matrix as a value per directed pair, None for nan.

    >>> by_pair(np.array([[0.0, 2.0], [np.nan, 0.0]]))
    {(0, 1): 2.0, (1, 0): None}
    """
    classes = range(len(matrix))
    return {
        (v, t): float(matrix[v, t]) if np.isfinite(matrix[v, t]) else None for v in classes for t in classes if v != t
    }


def changed_pixels(images: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Mean over scenes of the pixels in which two classes' images differ by at least ``least`` in some channel.

    images (K, S, H, W, 3) in [0, 1]: scene s with the sign of class k. Returns (K, K), symmetric, 0 on the diagonal.
    """
    classes = len(images)
    found = np.zeros((classes, classes))
    for one in range(classes):
        for other in range(one):
            change = np.abs(images[one] - images[other]).max(-1) >= least
            found[one, other] = found[other, one] = change.sum((1, 2)).mean()
    return found


def _order(size: float | None) -> tuple[bool, float]:
    return size is None, size or 0.0
