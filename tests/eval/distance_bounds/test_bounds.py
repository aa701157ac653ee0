"""Bounds on networks and images where they are known."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from toys import SIZE, make_samples, make_subject

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.eval.distance_bounds.bounds import (
    DEFINITIONS,
    BoundSettings,
    ClassBounds,
    PairBounds,
    by_pair,
    changed_pixels,
    combine,
    cosine_similarity,
)
from trojai_moth.eval.distance_bounds.measures import measure_bounds
from trojai_moth.triggers.distance import measure_distances
from trojai_moth.triggers.distance_records import DistanceSettings

from ...triggers.test_heatmap import matrix

# Classes 0 and 1 are the same picture but for so many pixels; class 2 is another one.
DIFFERENT, OTHER = 6, 30
QUICK = BoundSettings(images_per_class=4, patterns=2, steps=200)


class Twins(nn.Module):
    """Classes 0 and 1 differ in the brightness of six known pixels, and class 2 in thirty others."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        light = x.mean(1).flatten(1)
        one, two = light[:, :DIFFERENT].sum(1), light[:, DIFFERENT : DIFFERENT + OTHER].sum(1)
        return self.scale * torch.stack([0 * one + DIFFERENT / 2, one, DIFFERENT + two - OTHER / 2], 1)


def twin_images(per_class=4, seed=0):
    stream = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat_interleave(per_class)
    x = torch.zeros(len(y), 3, SIZE * SIZE)
    x[:, :, DIFFERENT + OTHER :] = torch.rand(len(y), 3, SIZE * SIZE - DIFFERENT - OTHER, generator=stream)
    x[y == 1, :, :DIFFERENT] = 1.0
    x[y == 2, :, DIFFERENT : DIFFERENT + OTHER] = 1.0
    return ImagePool(x.view(len(y), 3, SIZE, SIZE), y)


@pytest.fixture(scope="module")
def subject():
    return make_subject(Twins())


@pytest.fixture(scope="module")
def distances(subject):
    settings = DistanceSettings(steps=200, seeds=(1,), stall_steps=200)
    return measure_distances(subject, twin_images(seed=1), settings, "toys")


@pytest.fixture(scope="module")
def found(subject, distances):
    samples = make_samples(twin_images(seed=0), twin_images(seed=1))
    return measure_bounds(subject, samples, distances, None, QUICK, seed=0)


def pair(found, victim, target):
    (one,) = [pair for pair in found.pairs if (pair.victim, pair.target) == (victim, target)]
    return one


def test_classes_that_differ_in_k_pixels_are_that_near(subject, found):
    assert subject.accuracy(twin_images().x, twin_images().y) == 1.0
    near, far = pair(found, 0, 1), pair(found, 0, 2)
    # More than half of the six pixels turn the scale, for a trigger and for a piece of the other class alike.
    assert DIFFERENT / 2 <= near.before <= DIFFERENT and DIFFERENT / 2 <= near.pasted <= DIFFERENT
    assert far.pasted > 2 * near.pasted and far.before > 2 * near.before
    assert near.known == min(near.before, near.pasted)


def test_alike_classes_come_first_and_are_most_similar(found):
    assert {(p.victim, p.target) for p in found.pairs[:2]} == {(0, 1), (1, 0)}
    assert pair(found, 0, 1).similarity > pair(found, 0, 2).similarity
    assert pair(found, 0, 1).similarity == pytest.approx(pair(found, 1, 0).similarity)
    assert found.features == "logits"  # there is no convolution to look at


def test_the_record_survives_json_and_carries_its_definitions(found):
    assert from_dict(ClassBounds, json.loads(json.dumps(to_dict(found)))) == found
    measures = {"before", "after", "pasted", "similarity", "leakage", "sign_pixels", "surrogate"}
    assert set(found.definitions) == set(DEFINITIONS) == measures
    assert "upper bound" in DEFINITIONS["before"] and "not prove" in DEFINITIONS["after"]


def given(before, after=None, size=224, **measured):
    more = {"weights_sha256": "", "seed": 0, "data": "", "features": ""}
    return combine(before, after, measured, area=size**2, settings=BoundSettings(), **more)


def test_a_pair_is_at_risk_while_its_last_distance_is_below_the_scanners_bound():
    before = matrix(3, lambda v, t: 100.0 + v)
    after = matrix(3, lambda v, t: {0: 999.0, 1: 1001.0, 2: None}[v])
    risks = {(p.victim, p.target) for p in given(before, after).at_risk}
    assert risks == {(0, 1), (0, 2)}
    assert len(given(before).at_risk) == 6 and not given(before).hardened
    # 1000 pixels of 224 x 224 are 250 of 112 x 112
    assert given(before, after, size=112).risk_bound == 250.0 and not given(before, after, size=112).at_risk


def test_censored_pairs_come_last_and_unmeasured_values_stay_unknown():
    before = matrix(3, lambda v, t: None if v == 0 else 10.0 * v + t)
    rows = given(before, pasted={(1, 0): 5.0}).pairs
    assert [(p.victim, p.target) for p in rows] == [(1, 0), (1, 2), (2, 0), (2, 1), (0, 1), (0, 2)]
    assert rows[0].known == 5.0 and rows[1].pasted is None and rows[-1].known is None and not rows[-1].at_risk


def test_distances_of_another_model_are_refused(subject, distances):
    other = matrix(3, lambda v, t: 5.0)
    with pytest.raises(SettingsError, match="before: holds distances of another model file"):
        measure_bounds(subject, make_samples(twin_images(), twin_images()), other, None, QUICK, seed=0)
    with pytest.raises(SettingsError, match="not comparable"):
        given(distances, matrix(3, lambda v, t: 5.0))


def test_cosines_of_known_features():
    features = np.array([[3.0, 0.0], [3.0, 0.2], [-3.0, 0.0], [0.0, 0.1]])
    cosines = cosine_similarity(features, [0, 0, 1, 3], 4)
    assert cosines[0, 1] == pytest.approx(-1, abs=0.01) and np.isnan(cosines[2]).all()
    assert by_pair(cosines)[2, 0] is None
    assert np.isnan(cosine_similarity(np.ones((2, 3)), [0, 1], 2)).all()  # no class differs from the middle


def test_changed_pixels_are_counted_per_scene():
    images = np.zeros((3, 2, 4, 4, 3))
    images[1, 0, 0, :3, 1] = 0.5
    images[1, 1, 0, 0, 2] = 0.5
    images[2] = 0.05  # less than what counts
    assert changed_pixels(images, 0.1).tolist() == [[0, 2, 0], [2, 0, 2], [0, 2, 0]]


@pytest.mark.parametrize("wrong", [{"leakage": 1.5}, {"pasted": -1.0}, {"similarity": 2.0}, {"unknown": 1.0}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(SettingsError):
        from_dict(PairBounds, {"victim": 0, "target": 1, "at_risk": False, **wrong})
