import numpy as np
import torch

from trojai_moth.hardeners.pair_scheduler import PairScheduler

SPEED = np.array([[0.0, 0.9, 0.1], [0.8, 0.0, 0.2], [0.1, 0.3, 0.0]])


def scheduler(random_share=0.0, ramp_rounds=20):
    return PairScheduler(SPEED, random_share, ramp_rounds)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_fastest_pair_comes_first_both_directions_counted():
    assert scheduler().pick(3, 0, stream()) == [(0, 1), (1, 2), (0, 2)]


def test_never_more_pairs_than_there_are_and_none_twice():
    picked = scheduler(random_share=0.5).pick(99, 0, stream())
    assert sorted(picked) == [(0, 1), (0, 2), (1, 2)]


def test_gain_takes_over_as_rounds_go_by():
    bandit = scheduler()
    bandit.observe({(0, 2): 10.0, (2, 0): 10.0, (0, 1): 10.0, (1, 0): 10.0, (1, 2): 10.0, (2, 1): 10.0})
    bandit.observe({(0, 2): 30.0, (2, 0): 30.0, (0, 1): 11.0, (1, 0): 11.0, (1, 2): 11.0, (2, 1): 11.0})
    assert bandit.pick(1, 0, stream()) == [(0, 1)]
    assert bandit.pick(1, 20, stream()) == [(0, 2)]


def test_gain_is_the_running_mean_of_growth_by_direction():
    bandit = scheduler()
    bandit.observe({(0, 1): 10.0})
    assert np.isnan(bandit.gain[0, 1])  # one size is no growth
    bandit.observe({(0, 1): 20.0})
    bandit.observe({(0, 1): 20.0})
    assert bandit.gain[0, 1] == 0.5  # (1 + 0) / 2
    assert np.isnan(bandit.size[1, 0]) and np.isnan(bandit.gain[1, 0])  # the reverse was not observed


def test_size_and_gain_are_two_matrices():
    bandit = scheduler()
    assert not np.shares_memory(bandit.size, bandit.gain)
    bandit.observe({(0, 1): 10.0})
    assert np.isnan(bandit.gain).all()


def test_random_picks_reach_every_pair_and_depend_on_the_stream_only():
    bandit = scheduler(random_share=1.0)
    picks = [bandit.pick(1, 50, stream(seed))[0] for seed in range(30)]
    assert set(picks) == set(bandit.pairs)
    assert picks == [bandit.pick(1, 50, stream(seed))[0] for seed in range(30)]


def test_priority_does_not_depend_on_the_scale_of_speeds():
    big = PairScheduler(SPEED * 1000, 0.0, 20)
    assert np.allclose(big.priority(3), scheduler().priority(3))
