import math
from statistics import NormalDist

import numpy as np
import pytest

from trojai_moth.core.records import from_json, to_json
from trojai_moth.eval.gain import Change, Gain, gains, pair_changes, size_gains
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
    assert [name for name, _ in found.changes] == ["mean", "geometric mean", "smallest"]
    for _, change in found.changes:
        assert [change.change, change.low, change.high] == pytest.approx([2.0] * 3)
        assert change.after == pytest.approx(3 * change.before)
    assert found.mean.before == pytest.approx(11.0) and found.smallest.before == 6.0


def test_the_three_figures_are_not_the_same():
    # Before 10 everywhere; after 40 and 2.5, half each.
    found = gains(matrix(3, flat), matrix(3, lambda v, t: 40.0 if v < t else 2.5))
    assert (found.mean.before, found.mean.after, found.mean.change) == pytest.approx((10.0, 21.25, 1.125))
    assert (found.geometric.before, found.geometric.change) == pytest.approx((10.0, 0.0), abs=1e-12)
    assert (found.smallest.after, found.smallest.change) == (2.5, -0.75)
    assert found.shrunk == 3 and found.geometric.low < 0 < found.geometric.high


def test_a_model_whose_mean_distance_falls_by_half_is_reported_as_fallen():
    """Half of its pairs are small and grow threefold, half are large and shrink: the pairs' ratios rise on average."""
    before = matrix(4, lambda v, t: 10.0 if v < t else 400.0)
    after = matrix(4, lambda v, t: 30.0 if v < t else 160.0)
    ratios = [after[v][t] / before[v][t] for v in range(4) for t in range(4) if v != t]
    assert sum(ratios) / len(ratios) - 1 == pytest.approx(0.7)  # which is reported nowhere
    found = gains(before, after)
    assert found.mean.change == pytest.approx(190 / 410 - 1) and found.mean.words.startswith("-54% (")
    assert found.geometric.change == pytest.approx(math.sqrt(1.2) - 1) and found.smallest.change == 2.0


def test_the_smallest_may_be_another_pair_after():
    found = size_gains([4.0, 9.0, 20.0], [12.0, 6.0, 20.0])
    assert (found.smallest.before, found.smallest.after, found.smallest.change) == (4.0, 6.0, 0.5)
    # Draws without the first pair fall by a third, those without the second one grow threefold.
    assert (found.smallest.low, found.smallest.high) == pytest.approx((-1 / 3, 2.0))


def test_censored_pairs_are_counted_and_in_no_figure():
    before = matrix(3, lambda v, t: None if (v, t) == (0, 1) else 10.0)
    after = matrix(3, lambda v, t: None if (v, t) in ((0, 1), (1, 0), (2, 0)) else 20.0)
    found = gains(before, after)
    assert (found.pairs, found.censored_before, found.censored_after) == (3, 1, 3)
    assert (found.mean.before, found.mean.after) == (10.0, 20.0)
    assert [change.change for _, change in found.changes] == pytest.approx([1.0] * 3)


def test_nothing_in_common_is_none_not_zero():
    nothing = matrix(2, lambda v, t: None)
    found = gains(nothing, matrix(2, flat))
    assert found == gains(nothing, matrix(2, flat)) and found.pairs == 0 and found.censored_before == 2
    assert found.mean is found.geometric is found.smallest is None and found.changes == ()
    one = gains(matrix(2, lambda v, t: flat(v, t) if v else None), matrix(2, flat))
    assert one.pairs == 1
    for _, change in one.changes:
        assert change.change == 0 and change.low is None is change.high and change.words == "+0%"


def test_only_the_pairs_asked_for():
    after = matrix(3, lambda v, t: 20.0 if (v, t) == (2, 1) else None)
    found = gains(matrix(3, flat), after, pairs=[(2, 1)])
    assert found.pairs == 1 and found.censored_after == 0 and found.mean.change == 1.0


def test_a_size_of_nothing_has_a_finite_ratio():
    found = gains(matrix(2, lambda v, t: 0.0), matrix(2, lambda v, t: 1.0))
    assert [change.change for _, change in found.changes] == pytest.approx([1 / SIZE_FLOOR - 1] * 3)
    least = gains(matrix(2, flat), matrix(2, lambda v, t: -1e-8))
    assert [change.change for _, change in least.changes] == pytest.approx([SIZE_FLOOR / 10 - 1] * 3)


def test_the_intervals_have_the_width_that_theory_gives_and_depend_on_the_seed_alone():
    stream = np.random.default_rng(5)
    before = stream.lognormal(2.0, 0.4, 400)
    logs = stream.normal(0.5, 0.3, 400)
    after = before * np.exp(logs)
    found = size_gains(before.tolist(), after.tolist(), resamples=2000, seed=1)
    z = NormalDist().inv_cdf(0.975)
    half = z * logs.std() / math.sqrt(400)
    ends = (math.log1p(found.geometric.low), math.log1p(found.geometric.high))
    assert ends == pytest.approx((logs.mean() - half, logs.mean() + half), abs=0.15 * half)
    # Of a ratio of means, by the delta method.
    ratio = after.mean() / before.mean()
    half = z * (after - ratio * before).std() / before.mean() / math.sqrt(400)
    ends = (1 + found.mean.low, 1 + found.mean.high)
    assert ends == pytest.approx((ratio - half, ratio + half), abs=0.15 * half)
    assert size_gains(before.tolist(), after.tolist(), resamples=2000, seed=1) == found
    assert size_gains(before.tolist(), after.tolist(), resamples=2000, seed=2).mean.low != found.mean.low


def test_many_pairs_are_drawn_in_portions(monkeypatch):
    before, after = [1.0 + n for n in range(30)], [2.0 + 3 * n for n in range(30)]
    whole = size_gains(before, after, resamples=200)
    monkeypatch.setattr("trojai_moth.eval.gain._DRAWN_TOGETHER", 70)
    portions = size_gains(before, after, resamples=200)
    assert portions.mean.low == pytest.approx(whole.mean.low, abs=0.1) and portions.mean.before == whole.mean.before


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


def test_lists_must_be_of_the_same_pairs():
    with pytest.raises(ValueError, match=r"longer|shorter"):
        size_gains([1.0, 2.0], [1.0])


def test_a_change_in_words():
    assert Change(before=8.0, after=4.0, change=-0.5, low=-0.8, high=0.25).words == "-50% (-80% to +25%)"
