"""Intervals over groups of twins: whole groups are drawn, and what cannot be known is said to be unknown."""

import numpy as np
import pytest

from trojai_moth.eval.metrics import group_bootstrap


def noisy(groups, copies=1):
    stream = np.random.default_rng(0)
    poisoned = np.tile([True, False], groups)
    probability = np.clip(0.5 + 0.15 * (2 * poisoned - 1) + 0.2 * stream.standard_normal(2 * groups), 0.02, 0.98)
    names = np.repeat([f"g{i}" for i in range(groups)], 2)
    return [np.tile(part, copies).tolist() for part in (probability, poisoned, names)]


def width(interval):
    return interval[1] - interval[0]


def test_copies_within_a_group_make_nothing_surer_and_more_groups_do():
    shapes = ((12, 1), (12, 5), (120, 1))
    once, often, more = (group_bootstrap(*noisy(*shape), resamples=200) for shape in shapes)
    for name in ("roc_auc", "cross_entropy"):
        assert width(often[name]) == pytest.approx(width(once[name]), rel=1e-6)
        assert 0 < width(more[name]) < 0.7 * width(once[name])


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    data = noisy(12)
    one, again, other = (group_bootstrap(*data, resamples=50, seed=seed) for seed in (0, 0, 1))
    assert one == again != other


def test_what_one_group_or_one_label_can_not_tell_is_none():
    assert group_bootstrap([0.2, 0.9], [False, True], ["a", "a"]) == {"roc_auc": None, "cross_entropy": None}
    found = group_bootstrap([0.2, 0.9], [True, True], ["a", "b"])
    assert found["roc_auc"] is None and found["cross_entropy"] is not None
