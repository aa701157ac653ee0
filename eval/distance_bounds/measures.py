"""Measuring the bounds of :mod:`.similarity` on a network and its images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.errors import MothError
from ...core.images import ImagePool
from ...core.messages import Progress, silent
from ...core.seeding import derive_seed
from ...core.standard_logits import standardised
from ...core.subject import Subject
from ...rounds.samples import Samples
from ...synthesis.clean_networks import train_surrogate
from ...synthesis.compose import Composer, as_stored
from ...triggers.distance import measure_pairs, weights_hash
from ...triggers.distance_records import DistanceMatrix
from ...triggers.task import InversionSettings
from ...triggers.trigger import Pair
from .bounds import (
    BoundSettings,
    ClassBounds,
    Values,
    by_pair,
    changed_pixels,
    check_same_model,
    combine,
    cosine_similarity,
)
from .class_leakage import class_leakage
from .feature_layer import last_feature_layer
from .pasted_bound import PastedSettings, pasted_bounds

_BATCH = 64
_WHITE = 255


def measure_bounds(
    subject: Subject,
    samples: Samples,
    before: DistanceMatrix,
    after: DistanceMatrix | None,
    settings: BoundSettings,
    *,
    seed: int,
    foregrounds: Sequence[Path] = (),
    backgrounds: Path | None = None,
    surrogate: bool = False,
    progress: Progress = silent,
) -> ClassBounds:
    """All bounds of the pairs in ``before``, on the held-back images of ``samples``.

    subject: the network that ``after`` was measured on, or ``before`` without it. What cannot be measured, as
    sign_pixels without foregrounds or trojai, is left out with a note. surrogate: also train one, which takes minutes.
    SettingsError for distances of another model or two that cannot be compared.
    """
    started, images, signs = time.perf_counter(), samples.held, (foregrounds, backgrounds)
    _check(subject, before, after)
    pairs, notes = [(pair.victim, pair.target) for pair in before.pairs], _notes(subject, after or before)
    weights, subject = weights_hash(subject), standardised(subject, images)
    progress("pasting pieces of target images")
    measured: dict[str, Values] = {
        "pasted": best_effort(lambda: pasted(subject, images, pairs, settings, seed), "pasted bound", notes)
    }
    alike, layer = likeness(subject, images)
    if foregrounds:
        progress("putting one sign in another's place")
        measured["sign_pixels"] = best_effort(
            lambda: sign_pixels(foregrounds, subject, settings, seed, backgrounds), "sign_pixels", notes
        )
    if surrogate:
        progress("training a surrogate")
        measured["surrogate"] = best_effort(
            lambda: _in_surrogate(subject, samples, pairs, settings, seed, signs, notes), "surrogate", notes
        )
    return combine(
        before,
        after,
        {**measured, **alike},
        area=subject.area,
        settings=settings,
        weights_sha256=weights,
        seed=seed,
        data=samples.description,
        features=layer,
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def _check(subject: Subject, before: DistanceMatrix, after: DistanceMatrix | None) -> None:
    for matrix, name in ((before, "before"), (after, "after")):
        if matrix is not None:
            check_same_model(matrix, subject.source_sha256, name)


def _notes(subject: Subject, last: DistanceMatrix) -> list[str]:
    if weights_hash(subject) == last.weights_sha256:
        return list(last.warnings)
    return [*last.warnings, "pieces and features were measured on other weights than the distances"]


def _in_surrogate(
    subject: Subject,
    samples: Samples,
    pairs: Sequence[Pair],
    settings: BoundSettings,
    seed: int,
    signs: tuple[Sequence[Path], Path | None],
    notes: list[str],
) -> dict[Pair, float | None]:
    """signs: foregrounds and backgrounds."""
    found = train_surrogate(
        subject, samples.train, samples.held, settings.surrogate, seed=seed, foregrounds=signs[0], backgrounds=signs[1]
    )
    if found is None:
        raise MothError(
            f"none came to an accuracy of {settings.surrogate.least_accuracy:.0%} in {settings.surrogate.attempts} "
            "attempts; more images or --data composed may help"
        )
    accuracy = found.accuracy(samples.held.x, samples.held.y)
    notes.append(f"the surrogate is right about {accuracy:.1%} of {len(samples.held)} held-back images")
    return surrogate_distances(found, samples.held, pairs, settings, seed)


def pasted(
    subject: Subject, images: ImagePool, pairs: Sequence[Pair], settings: BoundSettings, seed: int
) -> dict[Pair, float | None]:
    """The pasted bound of every pair with images of both classes, None where no piece works; others are left out."""
    pool = images.first_per_class(settings.images_per_class)
    present = set(pool.y.tolist())
    chosen = [pair for pair in pairs if present.issuperset(pair)]
    tried = PastedSettings(patterns=settings.patterns)
    found = pasted_bounds(subject, pool, chosen, tried, inversion_settings(settings), seed=derive_seed(seed, "pasted"))
    return {pair: bound.size if bound.found else None for pair, bound in found.items()}


def inversion_settings(settings: BoundSettings) -> InversionSettings:
    """How pieces and the surrogate's triggers are searched."""
    return InversionSettings(
        steps=settings.steps, success_bound=settings.success_bound, stall_steps=settings.steps, precision="auto"
    )


def likeness(subject: Subject, images: ImagePool) -> tuple[dict[str, Values], str]:
    """Similarity and leakage of every pair from clean images, and the name of the layer that is compared."""
    features, name = class_features(subject, images)
    cosines = cosine_similarity(features, images.y.tolist(), subject.classes)
    leaked = class_leakage(subject, images)
    return {"similarity": by_pair(cosines), "leakage": by_pair(np.clip(leaked, 0, 1))}, name


@torch.no_grad()
def class_features(subject: Subject, images: ImagePool) -> tuple[np.ndarray, str]:
    """(N, D) float64: the mean per channel of what goes into the last convolutions, or the logits without any."""
    try:
        with last_feature_layer(subject) as cut:
            parts = [cut.features(part.to(subject.device)).mean((2, 3)) for part in images.x.split(_BATCH)]
            return torch.cat(parts).double().cpu().numpy(), cut.name
    except MothError:
        return subject.logits(images.x).double().cpu().numpy(), "logits"


def sign_pixels(
    foregrounds: Sequence[Path], subject: Subject, settings: BoundSettings, seed: int, backgrounds: Path | None = None
) -> dict[Pair, float | None]:
    """Pixels that change when one sign takes another's place in the same scene; MothError without trojai's composer."""
    stored, rng = max(subject.preprocessing.stored_shape), np.random.default_rng(derive_seed(seed, "signs"))
    composer = Composer(foregrounds, stored, rng, backgrounds=backgrounds)
    if composer.classes != subject.classes:
        raise MothError(f"{composer.classes} signs for {subject.classes} classes; sign_pixels needs one per class")
    scenes = [derive_seed(seed, "scene", number) for number in range(settings.scenes)]
    images = [
        as_stored(np.stack([composer.draw(label, np.random.default_rng(scene)) for scene in scenes]))
        for label in range(composer.classes)
    ]
    # Not stretched from 0 to 1, which would change all pixels of an image for the sake of one.
    fitted = torch.stack([subject.preprocessing.fitted(part) for part in images])
    arranged = (fitted.permute(0, 1, 3, 4, 2).double() / _WHITE).numpy()
    return by_pair(changed_pixels(arranged, settings.pixel_change))


def surrogate_distances(
    surrogate: Subject, images: ImagePool, pairs: Sequence[Pair], settings: BoundSettings, seed: int
) -> dict[Pair, float | None]:
    """The distances of the pairs in the surrogate, None where no trigger was found."""
    pool = images.first_per_class(settings.images_per_class)
    found = measure_pairs(surrogate, pool, pairs, inversion_settings(settings), derive_seed(seed, "surrogate pairs"))
    return {pair: size if pair in found.triggers else None for pair, size in found.sizes.items()}


def best_effort(measure: Callable[[], dict[Pair, float | None]], what: str, notes: list[str]) -> Values:
    """What ``measure`` finds; if it cannot, nothing, and a note that says why."""
    try:
        return measure()
    except MothError as reason:
        notes.append(f"{what} not measured: {reason}")
        return {}


def area_share(pixels: float, area: int) -> str:
    """Pixels as a square, in words.

    >>> area_share(16.0, 32 * 32)
    'about 4 x 4 pixels, 1.6 % of the image'
    """
    side = max(1, round(math.sqrt(max(pixels, 0.0))))
    return f"about {side} x {side} pixels, {100 * pixels / area:.1f} % of the image"
