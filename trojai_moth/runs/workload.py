"""How much work rescan's settings ask for, in images: to go through a network and back, and to be made."""

from __future__ import annotations

import math

from ..core.records import record, to_dict
from ..hardeners.moth_settings import MothSettings
from ..rounds.data_settings import DataSettings
from ..scanners.neural_cleanse import NeuralCleanse, NeuralCleanseSettings
from ..synthesis import clean_networks
from ..synthesis.training import most_epochs
from ..triggers.stamps import COLOURS
from ..verdict.features import stages_for, wanted_features
from ..verdict.judge import question, shipped_rule
from ..verdict.settings import EvidenceSettings

# A training step also has gradients of weights: half as much again as one of images alone.
_TRAINING = 1.5
# Looking at images without any gradient.
_LOOK = 1 / 3
# A step of a clean network, small but at the full size of the image, beside one image through the model and back.
_CLEAN_STEP = 2.0


@record
class Work:
    """Images for one model, at most: a scan's, a hardening's and the evidence's go through the network and back.

    made: composed or augmented before the first scan; made_to_harden: composed for the audit of a hardening.
    """

    scan: float
    harden: float
    evidence: float
    made: float
    made_to_harden: float


def work(
    classes: int,
    scanner: NeuralCleanseSettings,
    hardener: MothSettings,
    data: DataSettings,
    evidence: EvidenceSettings | None,
) -> Work:
    """The most work that these settings ask for; searches that settle early take less. evidence: of a blind verdict.

    >>> work(2, NeuralCleanseSettings(), MothSettings(), DataSettings(), None).scan  # 2 pairs: 2 * 5 * 60, 2 * 16 * 100
    3800.0
    """
    pairs = classes * (classes - 1)
    screened = pairs * scanner.screen_images * scanner.screen_steps
    inverted = min(pairs, scanner.screen_keep) * scanner.images_per_class * scanner.steps
    universal = classes * (classes - 1) * scanner.images_per_class * scanner.steps
    scan = {"pairwise": screened + inverted, "universal": universal, "both": screened + inverted + universal}
    composed = "composed" in data.sources
    return Work(
        scan=float(scan[scanner.mode]),
        harden=_hardening(classes, hardener, data),
        evidence=_evidence(classes, evidence, data) if evidence else 0.0,
        made=float(classes * (data.train_per_class + data.held_per_class)),
        made_to_harden=float(classes * math.ceil(data.unseen_images / classes)) if composed else 0.0,
    )


def _hardening(classes: int, hardener: MothSettings, data: DataSettings) -> float:
    warm = classes * min(hardener.warmup_images, classes * hardener.warmup_per_class) * hardener.warmup_steps
    directions = 2 * hardener.pairs_at_once(classes)
    steps = hardener.first_steps + (hardener.turns - 1) * hardener.turn_steps
    trained = hardener.turns * hardener.sgd_steps * hardener.batch * _TRAINING
    looked = classes * data.held_per_class * _LOOK
    a_round = directions * hardener.images_per_direction * steps + trained + looked
    return warm + hardener.planned_rounds(classes) * a_round


def _evidence(classes: int, settings: EvidenceSettings, data: DataSettings) -> float:
    """What the package's own rule asks for where it fits, else the bounds; as if no stage could be left out."""
    rule = shipped_rule(NeuralCleanse.name, data.source, to_dict(settings))
    stages = stages_for(wanted_features(None if settings.complete else question(rule)))
    most = settings.candidates + (settings.suspects if "stamps" in stages else 0)
    measured = min(most, classes * (classes - 1)) * settings.images_per_class * settings.steps
    stamped = _stamps(classes, settings, data) if "stamps" in stages else 0.0
    copied = len(settings.relearning.kept) * classes * data.train_per_class
    retrained = copied * most_epochs() * _TRAINING
    return measured + stamped + retrained


def _stamps(classes: int, settings: EvidenceSettings, data: DataSettings) -> float:
    """Stamps and pieces taken away, clean networks trained and stamped, on at most every class."""
    stamps, recipe = settings.stamps, clean_networks.RECIPE
    images = classes * stamps.images_per_class
    stamped = images * COLOURS * stamps.grid**2 * _LOOK
    removed = images * stamps.removal_grid**2 * _LOOK
    epochs = recipe.base_epochs + recipe.own_epochs
    steps = data.train_per_class * epochs + settings.clean_training.easy_per_class * recipe.easy_epochs
    clean = settings.clean_networks * (classes * steps * _CLEAN_STEP + stamped)
    return stamped + removed + clean
