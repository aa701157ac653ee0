"""The threshold on scores whose ranks are known, and its promise on many drawn ones."""

import math

import numpy as np
import pytest

from trojai_moth.core.errors import SettingsError
from trojai_moth.eval.calibration.fit_rule import retention_threshold, with_room, with_tail

DRAWS, SEED = 40_000, 7


@pytest.mark.parametrize(
    ("count", "tolerate", "k"),
    [(9, 0.1, 1), (8, 0.1, 0), (19, 0.1, 2), (49, 0.02, 1), (48, 0.02, 0), (99, 0.29, 29), (5, 0.0, 0)],
)
def test_the_threshold_is_the_kth_smallest(count, tolerate, k):
    scores = np.random.default_rng(SEED).permutation(count).astype(float).tolist()
    found = retention_threshold(scores, tolerate)
    assert (found.k, found.true_positives, found.tolerate_loss) == (k, count, tolerate)
    assert found.threshold == max(k, 1) - 1
    assert found.bound == pytest.approx(max(k, 1) / (count + 1))
    assert (found.bound <= tolerate + 1e-12) == (k > 0)  # too few models promise less than was asked, and say so


def test_one_model_promises_a_half():
    assert retention_threshold([3.0], 0.02).bound == 0.5


@pytest.mark.parametrize(("count", "tolerate"), [(9, 0.1), (19, 0.2), (10, 0.02)])
def test_the_loss_is_the_bound_for_exchangeable_scores(count, tolerate):
    """Of continuous scores a further one is below the k-th of n with a chance of exactly k / (n + 1)."""
    scores = np.random.default_rng(SEED).standard_cauchy((DRAWS, count + 1))
    found = [retention_threshold(row[:-1].tolist(), tolerate) for row in scores]
    lost = np.mean([row[-1] < one.threshold for row, one in zip(scores, found, strict=True)])
    bound = found[0].bound
    assert lost == pytest.approx(bound, abs=4 * math.sqrt(bound * (1 - bound) / DRAWS))


def test_ties_lose_less_never_more():
    scores = np.random.default_rng(SEED).integers(0, 3, (DRAWS, 20)).astype(float)
    lost = np.mean([row[-1] < retention_threshold(row[:-1].tolist(), 0.2).threshold for row in scores])
    assert lost < 0.2 - 0.05


def test_none_of_those_it_was_set_on_is_lost_where_too_few():
    scores = [0.3, -0.2, 4.0]
    assert not any(score < retention_threshold(scores, 0.02).threshold for score in scores)


@pytest.mark.parametrize(
    ("scores", "tolerate", "words"),
    [([], 0.1, "at least one"), ([math.nan], 0.1, "every score a number"), ([1.0], 1.0, r"tolerate_loss is 1\.0")],
)
def test_impossible_input_is_refused(scores, tolerate, words):
    with pytest.raises(SettingsError, match=words):
        retention_threshold(scores, tolerate)


def test_room_is_left_down_to_the_next_clean_score_and_never_above():
    found = retention_threshold([2.0, 3.0], 0.02)
    assert with_room(found, [1.0, 0.0, 2.5]).threshold == 1.5
    assert with_room(found, [2.5]) == found == with_room(found, [])
    assert with_room(found, [1.0]).bound == found.bound


def test_the_tail_of_normal_scores_lowers_the_threshold_and_never_raises_it():
    scores = np.random.default_rng(SEED).normal(4.0, 2.0, 400).tolist()
    found = retention_threshold(scores[:20], 0.02)
    assert with_tail(found, scores, 0.001).threshold == pytest.approx(4.0 - 3.09 * 2.0, abs=0.5)
    assert with_tail(found, scores, 0.5) == found
    assert with_tail(found, scores, 0.001).bound == found.bound
    assert with_tail(found, [1.0], 0.01) == found
    assert with_tail(retention_threshold([1.0, 1.0], 0.02), [1.0, 1.0], 0.01).threshold == 1.0


def test_further_normal_scores_are_below_the_tail_about_as_often_as_asked():
    """Of 40 scores, and of a further one, both normal: their spread is estimated, so a little more often."""
    scores = np.random.default_rng(SEED).normal(size=(4000, 41))
    by_rank = [retention_threshold(row[:-1].tolist(), 0.02) for row in scores]
    by_tail = [with_tail(one, row[:-1].tolist(), 0.01) for one, row in zip(by_rank, scores, strict=True)]
    ranked, lost = (np.mean(scores[:, -1] < [one.threshold for one in ones]) for ones in (by_rank, by_tail))
    assert 0.005 < lost < 0.02 and lost < ranked


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_an_impossible_tail_is_refused(share):
    with pytest.raises(SettingsError, match="tail_loss"):
        with_tail(retention_threshold([1.0, 2.0], 0.02), [1.0, 2.0], share)
