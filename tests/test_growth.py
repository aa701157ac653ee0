"""Growth of a pair beside its controls: planted sizes whose residual is known."""

import math

import numpy as np
import pytest

from trojai_moth.blind import growth

PAIRS = [(v, t) for v in range(5) for t in range(5) if v != t]


def planted(slope=0.5, middle=2.0, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    before = {pair: float(math.exp(rng.uniform(1, 5))) for pair in PAIRS}
    after = {p: math.exp(middle + slope * math.log(d) + noise * rng.standard_normal()) for p, d in before.items()}
    return before, after


def test_a_pair_on_the_line_has_no_residual_and_one_off_it_has():
    before, after = planted()
    own, controls = PAIRS[0], PAIRS[1:]
    before[own] = 2.0
    after[own] = math.exp(2.0 + 0.5 * math.log(2.0))
    assert abs(growth.growth_residual(own, before, after, controls)) < 0.5
    after[own] *= math.exp(1.0)
    # One unit of logarithms, in scatters that are not believed below the floor.
    assert growth.growth_residual(own, before, after, controls) == pytest.approx(1 / growth.SCATTER_FLOOR, abs=0.5)


def test_small_triggers_that_grow_as_small_ones_do_are_not_remarkable():
    before, after = planted(slope=0.5, noise=0.0)
    smallest = min(before, key=before.get)
    controls = [pair for pair in PAIRS if pair != smallest]
    grown = growth.log_growth(smallest, before, after)
    assert grown > growth.median_growth(controls, before, after) + 0.5
    assert growth.growth_residual(smallest, before, after, controls) == pytest.approx(0, abs=1e-3)


def test_one_wild_control_does_not_move_the_line():
    before, after = planted(noise=0.0)
    own, controls = PAIRS[0], PAIRS[1:]
    quiet = growth.growth_residual(own, before, after, controls)
    after[controls[3]] = 1e4
    assert growth.growth_residual(own, before, after, controls) == pytest.approx(quiet, abs=0.3)


def test_a_slope_is_kept_between_none_and_one():
    before = {pair: float(i + 1) for i, pair in enumerate(PAIRS)}
    steep = {pair: size**3 for pair, size in before.items()}
    falling = {pair: 1 / size for pair, size in before.items()}
    own, controls = PAIRS[0], PAIRS[1:]
    rest = [2 * math.log(before[pair]) for pair in controls]
    scatter = 1.4826 * np.median(np.abs(np.array(rest) - np.median(rest)))
    assert growth.growth_residual(own, before, steep, controls) == pytest.approx(-np.median(rest) / scatter, rel=1e-3)
    assert growth.growth_residual(own, before, falling, controls) > 0


def test_few_controls_carry_no_slope():
    before, after = {(0, 1): 2.0, (1, 2): 4.0, (2, 3): 8.0}, {(0, 1): 2.0, (1, 2): 8.0, (2, 3): 16.0}
    expected = -math.log(2) / growth.SCATTER_FLOOR
    assert growth.growth_residual((0, 1), before, after, [(1, 2), (2, 3)]) == pytest.approx(expected)


@pytest.mark.parametrize("controls", [[], [(0, 1)], [(3, 4)]])
def test_without_controls_there_is_no_residual(controls):
    assert growth.growth_residual((0, 1), {(0, 1): 2.0}, {(0, 1): 3.0}, controls) is None


def test_what_is_missing_is_none():
    assert growth.log_growth((0, 1), {}, {(0, 1): 1.0}) is None
    assert growth.log_size((0, 1), {}) is None
    assert growth.asymmetry((0, 1), {(0, 1): 1.0}) is None
    assert growth.rank_jump((0, 1), {(0, 1): 1.0}, {(0, 1): 1.0}) is None
    assert growth.median_growth([], {}, {}) is None
    assert growth.contrast(None, 1.0) is None


def test_asymmetry_is_the_lead_over_the_way_back():
    assert growth.asymmetry((0, 1), {(0, 1): 2.0, (1, 0): 20.0}) == pytest.approx(math.log(10))
    assert growth.asymmetry((1, 0), {(0, 1): 2.0, (1, 0): 20.0}) == pytest.approx(-math.log(10))


def test_the_contrast_is_what_only_hardening_itself_gave():
    assert growth.contrast(0.1, 1.5) == pytest.approx(1.4)


def test_a_rank_jump_is_a_share_of_all_ranks():
    before = {(0, 1): 1.0, (1, 2): 2.0, (2, 3): 3.0}
    after = {(0, 1): 9.0, (1, 2): 2.0, (2, 3): 3.0}
    assert growth.rank_jump((0, 1), before, after) == 1.0
    assert growth.rank_jump((1, 2), before, after) == -0.5
