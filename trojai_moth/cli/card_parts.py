"""What ``card`` is put together from once the distances are there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from ..core.errors import SettingsError
from ..core.files import write_text
from ..core.images import ImagePool
from ..core.messages import Progress
from ..core.records import to_dict, to_json
from ..core.seeding import derive_seed
from ..core.subject import Subject
from ..eval.cards.card import CardRecord, Outcome
from ..eval.cards.pair_pictures import draw_pairs, pair_picture
from ..eval.cards.text import HEAT_MAP, PAIRS, SIDE_FILE, card_text
from ..eval.distance_bounds.bounds import BoundSettings, ClassBounds
from ..eval.distance_bounds.measures import inversion_settings, measure_bounds
from ..rounds.data_settings import DataSettings
from ..rounds.model import Model
from ..triggers.distance import image_hashes, measure_pairs
from ..triggers.distance_records import DistanceMatrix, plot_change


def card_bounds(
    model: Model,
    subject: Subject,
    images: ImagePool,
    before: DistanceMatrix,
    after: DistanceMatrix | None,
    settings: BoundSettings,
    progress: Progress,
    *,
    surrogate: bool,
) -> ClassBounds:
    """The bounds on the very images that the distances were measured on; SettingsError when these are others."""
    _check_images(images, subject.classes, before)
    return measure_bounds(
        subject,
        replace(model.samples, held=images),
        before,
        after,
        settings,
        seed=derive_seed(model.seed, "bounds"),
        foregrounds=model.signs,
        backgrounds=Path(model.data.backgrounds) if model.data.backgrounds else None,
        surrogate=surrogate,
        progress=progress,
    )


def _check_images(images: ImagePool, classes: int, matrix: DistanceMatrix) -> None:
    ours = image_hashes(images.first_per_class(matrix.settings.images_per_class), classes)
    # Where some pairs alone were measured, there were images of their victims alone.
    if any(theirs and own != theirs for own, theirs in zip(ours, matrix.image_sha256, strict=True)):
        raise SettingsError(
            "card: the distances were measured on other images; give the --data, --seed, --on and --set data... that "
            "`distance` was given, or let card measure"
        )


def accuracy_outcome(model: Model, hardened: Subject | None) -> Outcome:
    """Accuracies on the held-back images that are not augmented; nothing where there are none."""
    clean = model.samples.clean
    if len(clean) == 0:
        return Outcome()
    before, after = (subject.accuracy(clean.x, clean.y) if subject else None for subject in (model.subject, hardened))
    return Outcome(accuracy_before=before, accuracy_after=after, images=f"{len(clean)} images held back")


def publish(card: CardRecord, path: Path, subject: Subject, images: ImagePool) -> None:
    """Write the side file, the pictures and then the card, which holds their hashes."""
    from ..eval.cards.file import pointers, results, write_card

    folder = path.parent
    write_text(folder / SIDE_FILE, to_json(card))
    if card.after is None:
        card.before.plot(folder / HEAT_MAP)
    else:
        plot_change(card.before, card.after, folder / HEAT_MAP)
    (folder / PAIRS).unlink(missing_ok=True)
    if card.riskiest:
        _draw_riskiest(card, folder / PAIRS, subject, images)
    write_card(path, card_text(card), pointers(card, folder), results(card), card.model_id)


def _draw_riskiest(card: CardRecord, path: Path, subject: Subject, images: ImagePool) -> None:
    """Distances keep no triggers, so those of these few pairs are searched once more."""
    pairs = [(pair.victim, pair.target) for pair in card.riskiest]
    pool = images.first_per_class(card.bounds.settings.images_per_class)
    found = measure_pairs(subject, pool, pairs, inversion_settings(card.bounds.settings), card.last.settings.seeds[0])
    pictures = [pair_picture(pool, v, t, found.triggers.get((v, t)), card.labels) for v, t in pairs]
    draw_pairs(pictures, path)


def data_assignments(data: DataSettings) -> tuple[str, ...]:
    """The settings of the images as --set takes them, apart from those with options of their own."""
    values = to_dict(data)
    return tuple(
        f"data.{name}={json.dumps(value)}" for name, value in values.items() if name not in ("source", "backgrounds")
    )
