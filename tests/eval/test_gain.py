import math
from statistics import NormalDist

import numpy as np
import pytest

from trojai_moth.core.records import from_json, to_json
from trojai_moth.eval.gain import Gain, bootstrap_mean, gains, pair_changes
from trojai_moth.triggers.trigger import SIZE_FLOOR


def matrix(classes, value):
    """value(v, t) off the diagonal."""
    return tuple(tuple(None if v == t else value(v, t) for t in range(classes)) for v in range(classes))


def flat(v, t):
    return 10.0


def test_every_pair_times_three():
    before = matrix(4, lambda v, t: 5.0 + 3 * v + t)
    found = gains(before, matrix(4, lambda v, t: 3 * before[v][t]))
    assert found.pairs == 12 and found.shrunk == found.censored_before == found.censored_after == 0
    assert [found.arithmetic, found.geometric, found.low, found.high] == pytest.approx([2.0] * 4)
    assert found.mean_after == pytest.approx(3 * found.mean_before)


def test_arithmetic_and_geometric_are_not_the_same():
    # Ratios 4 and 1/4, half each: mean 2.125, geometric mean 1.
    found = gains(matrix(3, flat), matrix(3, lambda v, t: 40.0 if v < t else 2.5))
    assert found.arithmetic == pytest.approx(1.125) and found.geometric == pytest.approx(0)
    assert found.shrunk == 3 and found.low < 0 < found.high


def test_censored_pairs_are_counted_and_in_no_mean():
    before = matrix(3, lambda v, t: None if (v, t) == (0, 1) else 10.0)
    after = matrix(3, lambda v, t: None if (v, t) in ((0, 1), (1, 0), (2, 0)) else 20.0)
    found = gains(before, after)
    assert (found.pairs, found.censored_before, found.censored_after) == (3, 1, 3)
    assert (found.mean_before, found.mean_after) == (10.0, 20.0)
    assert found.arithmetic == pytest.approx(1) and found.geometric == pytest.approx(1)


def test_nothing_in_common_is_none_not_zero():
    nothing = matrix(2, lambda v, t: None)
    found = gains(nothing, matrix(2, flat))
    assert found == gains(nothing, matrix(2, flat)) and found.pairs == 0 and found.censored_before == 2
    values = [found.mean_before, found.mean_after, found.arithmetic, found.geometric, found.low, found.high]
    assert values == [None] * 6
    one = gains(matrix(2, lambda v, t: flat(v, t) if v else None), matrix(2, flat))
    assert one.pairs == 1 and one.geometric == pytest.approx(0) and one.low is None is one.high


def test_only_the_pairs_asked_for():
    after = matrix(3, lambda v, t: 20.0 if (v, t) == (2, 1) else None)
    found = gains(matrix(3, flat), after, pairs=[(2, 1)])
    assert found.pairs == 1 and found.censored_after == 0 and found.arithmetic == pytest.approx(1)


def test_a_size_of_nothing_has_a_finite_ratio():
    found = gains(matrix(2, lambda v, t: 0.0), matrix(2, lambda v, t: 1.0))
    assert found.arithmetic == pytest.approx(1 / SIZE_FLOOR - 1)
    assert gains(matrix(2, flat), matrix(2, lambda v, t: -1e-8)).geometric == pytest.approx(SIZE_FLOOR / 10 - 1)


def test_the_interval_has_the_width_that_theory_gives_and_depends_on_the_seed_alone():
    logs = np.random.default_rng(5).normal(0.5, 0.3, 400)
    low, high = bootstrap_mean(logs, seed=1)
    half = NormalDist().inv_cdf(0.975) * logs.std() / math.sqrt(len(logs))
    assert (low, high) == pytest.approx((logs.mean() - half, logs.mean() + half), abs=0.1 * half)
    assert bootstrap_mean(logs, seed=1) == (low, high) != bootstrap_mean(logs, seed=2)
    narrow = bootstrap_mean(logs, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_mean([1.0]) is None


def test_pairs_are_sorted_by_size_before_and_the_censored_come_last():
    before = matrix(3, lambda v, t: None if v == 0 else 10.0 * v + t)
    changes = pair_changes(before, matrix(3, flat))
    assert [(c.victim, c.target) for c in changes] == [(1, 0), (1, 2), (2, 0), (2, 1), (0, 1), (0, 2)]
    assert changes[0].before == 10.0 and changes[-1].before is None and changes[-1].after == 10.0


def test_round_trip():
    for found in (gains(matrix(3, flat), matrix(3, flat)), gains(matrix(2, lambda v, t: None), matrix(2, flat))):
        assert from_json(Gain, to_json(found)) == found


@pytest.mark.parametrize("other", [matrix(2, flat), matrix(3, flat)[:2], [[1.0, 2.0], [3.0], [4.0]]])
def test_shapes_must_agree(other):
    with pytest.raises(ValueError, match="square"):
        gains(matrix(3, flat), other)


def test_impossible_levels_are_refused():
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean([1.0, 2.0], level=95)
