import math

import numpy as np
import pytest
import torch

from trojai_moth.hardeners.pair_scheduler import PairScheduler

SPEED = np.array([[0.0, 0.9, 0.1], [0.8, 0.0, 0.2], [0.1, 0.3, 0.0]])


def scheduler(random_share=0.0):
    return PairScheduler(SPEED, random_share)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_fastest_pair_comes_first_both_directions_counted():
    assert scheduler().pick(3, stream()) == [(0, 1), (1, 2), (0, 2)]


def test_never_more_pairs_than_there_are_and_none_twice():
    picked = scheduler(random_share=0.5).pick(99, stream())
    assert sorted(picked) == [(0, 1), (0, 2), (1, 2)]


def test_every_pair_has_its_turn_before_one_comes_again():
    bandit = scheduler()
    for _ in range(3):
        bandit.observe({pair: 1.0 for pair in bandit.pick(1, stream())})
    assert set(bandit.picked.values()) == {1}


@pytest.mark.parametrize("classes", [5, 12, 45])
def test_with_random_picks_too_three_sweeps_leave_no_pair_out(classes):
    bandit = PairScheduler(np.zeros((classes, classes)), 0.3)
    draws = stream()
    for number in range(3 * (classes - 1) // 2):
        bandit.observe({pair: float(number + pair[0]) for pair in bandit.pick(classes, draws)})
    assert min(bandit.picked.values()) >= 1


def test_afterwards_the_pair_with_the_smallest_trigger_comes_first_whichever_direction_it_has():
    bandit = scheduler()
    bandit.pick(3, stream())
    bandit.observe({(0, 1): 20.0, (1, 0): 30.0, (0, 2): 40.0, (2, 0): 10.0, (1, 2): 15.0, (2, 1): 16.0})
    assert bandit.pick(3, stream()) == [(0, 2), (1, 2), (0, 1)]
    bandit.observe({(2, 0): 50.0, (0, 2): 60.0})
    assert bandit.pick(1, stream()) == [(1, 2)]


def test_a_pair_without_a_trigger_comes_last():
    bandit = scheduler()
    bandit.pick(3, stream())
    bandit.observe({(1, 2): 15.0, (0, 2): 300.0})
    assert bandit.order()[-1] == (0, 1)


def test_random_picks_reach_every_pair_and_depend_on_the_stream_only():
    picks = [scheduler(random_share=1.0).pick(1, stream(seed))[0] for seed in range(30)]
    assert set(picks) == set(scheduler().pairs)
    assert picks == [scheduler(random_share=1.0).pick(1, stream(seed))[0] for seed in range(30)]


def test_the_smallest_are_a_share_of_the_sizes_that_are_known():
    bandit = scheduler()
    assert math.isnan(bandit.smallest(0.5))
    bandit.observe({(0, 1): 2.0, (1, 0): 8.0, (0, 2): 100.0, (2, 0): 200.0})
    assert bandit.smallest(0.5) == pytest.approx(4.0)
    assert bandit.smallest(0.01) == pytest.approx(2.0)
