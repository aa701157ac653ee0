"""Two class-distance matrices of one model, before and after hardening: what may be compared, and what changed."""

from __future__ import annotations

from ..core.errors import SettingsError
from ..core.records import Field, record
from ..triggers.distance_records import DistanceMatrix, protocol
from .gain import Gain, PairChange, gains, pair_changes

SMALLEST = 5


@record
class DistanceChange:
    """How the class distances of one model changed."""

    model_id: str
    classes: int
    source_sha256: str
    weights_before: str = Field(description="hash of the weights")
    weights_after: str = Field(description="hash of the weights")
    settings: dict[str, object] = Field(description="what both were measured with")
    gain: Gain
    smallest: tuple[PairChange, ...] = Field(description="the smallest before with what became of them")
    notes: tuple[str, ...]


def compare_distances(
    before: DistanceMatrix, after: DistanceMatrix, *, names: tuple[str, str] = ("before", "after"), seed: int = 0
) -> DistanceChange:
    """SettingsError, naming both by ``names``, unless both have the same classes, pairs, images, settings and seeds."""
    difference = _difference(before, after)
    if difference:
        raise SettingsError(f"{names[0]} and {names[1]}: not comparable: {difference}; measure both in the same way")
    pairs = [(pair.victim, pair.target) for pair in before.pairs]
    changes = pair_changes(before.distances, after.distances, pairs)
    return DistanceChange(
        model_id=before.model_id,
        classes=before.classes,
        source_sha256=before.source_sha256,
        weights_before=before.weights_sha256,
        weights_after=after.weights_sha256,
        settings=protocol(before.settings),
        gain=gains(before.distances, after.distances, pairs=pairs, seed=seed),
        smallest=changes[:SMALLEST],
        notes=_notes(before, after),
    )


def _difference(before: DistanceMatrix, after: DistanceMatrix) -> str | None:
    """The first thing that makes a comparison meaningless, in words."""
    if before.classes != after.classes:
        return f"{before.classes} classes and {after.classes}"
    ours, theirs = protocol(before.settings), protocol(after.settings)
    for name, value in ours.items():
        if value != theirs[name]:
            return f"{name} is {value} and {theirs[name]}"
    sets = [{(pair.victim, pair.target) for pair in matrix.pairs} for matrix in (before, after)]
    if sets[0] != sets[1]:
        victim, target = min(sets[0] ^ sets[1])
        return f"{victim}->{target} was measured in one of them only"
    for label, (one, other) in enumerate(zip(before.image_sha256, after.image_sha256, strict=True)):
        if one != other:
            return f"other images of class {label}"
    return None


def _notes(before: DistanceMatrix, after: DistanceMatrix) -> tuple[str, ...]:
    notes = list(before.warnings)
    if before.source_sha256 != after.source_sha256:
        notes.append("the two were made from different model files")
    if before.weights_sha256 == after.weights_sha256:
        notes.append("the two have the same weights: what differs is rounding")
    for name in ("version", "torch", "device"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if ours != theirs:
            notes.append(f"{name}: {ours} before, {theirs} after")
    return tuple(notes)
