"""How alike classes are to a network, and what their likeness leaves unexplained."""

import math

import numpy as np
import pytest
from toys import BRIGHT, GAIN, PlantedNet, make_subject, planted_images

from trojai_moth.blind.similarity import Similarity, class_similarity, similarity_residuals

PAIRS = [(v, t) for v in range(4) for t in range(4) if v != t]


def test_margins_and_leakage_of_the_planted_network_are_its_brightness():
    found = class_similarity(make_subject(PlantedNet()), planted_images())
    for victim, bright in enumerate(BRIGHT):
        others = [label for label in range(len(BRIGHT)) if label != victim]
        # The other rows are dark, so the margin is the own row's brightness.
        assert found.margin[victim, others] == pytest.approx([GAIN * bright] * 2, rel=1e-5)
        assert found.margin[victim, victim] == 0
        assert found.leakage[victim].sum() == pytest.approx(1)
        assert found.leakage[victim, others].max() < found.leakage[victim, victim]


def test_a_class_without_images_is_not_known():
    images = planted_images()
    found = class_similarity(make_subject(PlantedNet()), images.take(images.positions(1)))
    assert np.isnan(found.margin[0]).all() and np.isfinite(found.margin[1]).all()
    assert set(similarity_residuals({(0, 1): 1.0, (1, 0): 1.0}, found)) == {(1, 0)}


def planted(seed=0):
    """Likeness drawn at random, and sizes that follow from the margin but for a little noise."""
    rng = np.random.default_rng(seed)
    margin = rng.uniform(1, 9, (4, 4))
    likeness = Similarity(np.exp(-margin + 0.1 * rng.standard_normal((4, 4))), margin)
    sizes = {pair: 0.5 * margin[pair] + 0.05 * rng.standard_normal() for pair in PAIRS}
    return sizes, likeness


def test_a_trigger_that_likeness_does_not_explain_stands_out():
    sizes, likeness = planted()
    unlike = max(PAIRS, key=lambda pair: likeness.margin[pair])
    sizes[unlike] -= 3.0
    found = similarity_residuals(sizes, likeness)
    assert min(found, key=found.get) == unlike and found[unlike] < -3


def test_a_small_trigger_of_alike_classes_is_explained():
    sizes, likeness = planted()
    alike = min(PAIRS, key=lambda pair: likeness.margin[pair])
    found = similarity_residuals(sizes, likeness)
    centred = {pair: size - np.median(list(sizes.values())) for pair, size in sizes.items()}
    assert abs(found[alike]) < 1.5
    # Few pairs carry no regression, and then the same trigger stands out.
    few = {pair: sizes[pair] for pair in sorted(PAIRS, key=lambda pair: likeness.margin[pair])[:7]}
    assert centred[alike] < -0.5 and similarity_residuals(few, likeness)[alike] < -0.5


def test_nothing_and_equal_sizes_are_no_trouble():
    _, likeness = planted()
    assert similarity_residuals({}, likeness) == {}
    found = similarity_residuals(dict.fromkeys(PAIRS, math.log(5)), likeness)
    assert list(found.values()) == pytest.approx([0.0] * len(PAIRS), abs=1e-9)
