import itertools

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from trojai_moth.eval import metrics


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(7)
    poisoned = rng.random(60) < 0.4
    # Rounded, so that there are ties for the ROC curve and values on the threshold.
    return np.round(rng.random(60), 1).clip(0.05, 0.95), poisoned


def test_scores_agree_with_scikit_learn(sample):
    p, y = sample
    assert metrics.cross_entropy(p, y) == pytest.approx(log_loss(y, p), rel=1e-12)
    assert metrics.brier(p, y) == pytest.approx(brier_score_loss(y, p), rel=1e-12)
    assert metrics.roc_auc(p, y) == pytest.approx(roc_auc_score(y, p), rel=1e-12)


def test_roc_auc_is_the_share_of_ordered_pairs(sample):
    p, y = sample
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(p[y], p[~y])]
    assert metrics.roc_auc(p, y) == pytest.approx(np.mean(wins), rel=1e-12)


@pytest.mark.parametrize("truth", [True, False])
def test_roc_auc_of_one_class_is_none(truth):
    assert metrics.roc_auc([0.2, 0.8], [truth, truth]) is None


def test_certain_and_wrong_costs_what_the_clip_says():
    assert metrics.cross_entropy([0.0], [True]) == pytest.approx(-np.log(1e-12))
    assert metrics.cross_entropy([1.0], [False]) == pytest.approx(-np.log(1 - (1 - 1e-12)))
    assert metrics.cross_entropy([0.0, 1.0], [False, True]) == pytest.approx(0, abs=1e-11)


@pytest.mark.parametrize(("level", "z"), [(0.90, 1.64), (0.95, 1.96), (0.98, 2.33), (0.99, 2.58)])
def test_half_width_by_hand(level, z):
    # Losses a, a, b: mean (2a + b) / 3, population variance 2/9 (b - a)^2.
    a, b = -np.log(0.9), -np.log(0.3)
    expected = z * np.sqrt(2 / 9) * (b - a) / np.sqrt(3)
    half = metrics.cross_entropy_half_width([0.9, 0.1, 0.3], [1, 0, 1], level=level)
    assert half == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("total", [1, 2, 7, 32])
def test_clopper_pearson_leaves_the_right_tails(total):
    for count in range(total + 1):
        low, high = metrics.clopper_pearson(count, total, level=0.9)
        assert 0 <= low <= count / total <= high <= 1
        # The definition: at either end, what was seen or more extreme has probability 5 %.
        assert count == 0 or binom.sf(count - 1, total, low) == pytest.approx(0.05, rel=1e-6)
        assert count == total or binom.cdf(count, total, high) == pytest.approx(0.05, rel=1e-6)


def test_clopper_pearson_known_values():
    assert metrics.clopper_pearson(6, 32) == pytest.approx((0.072, 0.364), abs=5e-4)
    assert metrics.clopper_pearson(0, 20) == pytest.approx((0, 0.168), abs=5e-4)
    assert metrics.clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_confusion_agrees_with_scikit_learn(sample, threshold):
    p, y = sample
    (tn, fp), (fn, tp) = confusion_matrix(y, p >= threshold, labels=[False, True])
    assert metrics.confusion(p, y, threshold=threshold) == metrics.Confusion(
        true_positives=tp, false_positives=fp, false_negatives=fn, true_negatives=tn
    )


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([], [], "shapes"),
        ([0.5], [True, False], "shapes"),
        ([[0.5]], [[True]], "shapes"),
        ([0.5, np.nan], [True, False], "nan"),
        ([0.5, np.inf], [True, False], "inf"),
        ([-0.01], [True], "-0.01"),
        ([1.01], [True], "1.01"),
        ([0.5], [2], "True and False"),
        ([0.5], [np.nan], "True and False"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [metrics.cross_entropy, metrics.cross_entropy_half_width, metrics.brier, metrics.roc_auc, metrics.confusion],
)
def test_bad_input_is_refused(function, p, y, message):
    with pytest.raises(ValueError, match=message):
        function(p, y)


@pytest.mark.parametrize(("count", "total"), [(-1, 3), (4, 3), (0, -1)])
def test_impossible_counts_are_refused(count, total):
    with pytest.raises(ValueError, match="count"):
        metrics.clopper_pearson(count, total)


def test_impossible_levels_and_thresholds_are_refused():
    with pytest.raises(ValueError, match="level"):
        metrics.clopper_pearson(1, 3, level=95)
    with pytest.raises(ValueError, match="level"):
        metrics.cross_entropy_half_width([0.5], [True], level=0.5)
    with pytest.raises(ValueError, match="threshold"):
        metrics.confusion([0.5], [True], threshold=1.5)
