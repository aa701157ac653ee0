"""The four design parts of MOTH: each does its own, and can be left out."""

import dataclasses
import itertools

import pytest
from toys import square_samples, trained_subject

from trojai_moth.core.errors import SettingsError
from trojai_moth.hardeners import moth as module
from trojai_moth.hardeners.moth import Moth
from trojai_moth.hardeners.moth_settings import MothSettings
from trojai_moth.hardeners.registry import make_hardener

SETTINGS = MothSettings(rounds=2, pairs_per_round=1, turns=3, first_steps=6, later_steps=4, turn_steps=2, sgd_steps=1,
                        warmup_steps=6, batch=12, learning_rate=1e-4)  # fmt: skip


@pytest.fixture
def watched(monkeypatch):
    """Harden the toy without some parts; the calls of the inversion after the warm-up, and the trace."""

    def run(*without, **changes):
        calls, real = [], module.invert

        def invert(subject, x, task, settings, start, **options):
            result = real(subject, x, task, settings, start, **options)
            if "initial_cost" in options:  # the warm-up has none
                calls.append((task, settings, start, options["initial_cost"], result))
            return result

        monkeypatch.setattr(module, "invert", invert)
        settings = dataclasses.replace(SETTINGS, without=without, **changes)
        trace = Moth(settings)(trained_subject(), square_samples(), seed=3).trace
        monkeypatch.setattr(module, "invert", real)
        return calls, trace

    return run


def pairs_of(task):
    return list(zip(task.victims, task.targets.tolist(), strict=True))


def test_symmetric_hardening_takes_both_directions(watched):
    for task, *_ in watched()[0]:
        assert len(task) == 2 and set(pairs_of(task)) == {(t, v) for v, t in pairs_of(task)}
    for task, *_ in watched("symmetric")[0]:
        assert len(task) == 2 and len({frozenset(pair) for pair in pairs_of(task)}) == 2


def test_dynamic_adjustment_goes_on_from_the_last_trigger_in_fewer_steps(watched):
    calls, _ = watched(rounds=4)
    steps = [settings.steps for _, settings, *_ in calls]
    assert steps[:3] == [6, 2, 2] and set(steps) == {6, 4, 2}
    for last, now in itertools.pairwise(calls[:3]):
        assert now[2][0] is last[4].mask and now[2][1] is last[4].pattern
    assert (calls[0][3] == SETTINGS.first_cost).all() and (calls[1][3] == SETTINGS.later_cost).all()
    calls, _ = watched("dynamic")
    assert [settings.steps for _, settings, *_ in calls] == [6] * 6
    assert all((cost == SETTINGS.first_cost).all() for *_, cost, _ in calls)
    assert not any((calls[0][2][0] == other[2][0]).all() for other in calls[1:])


def test_the_warm_up_approximates_pairs_by_their_target(watched, monkeypatch):
    seen = []
    for name in ("warm_up", "pairwise_warm_up"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real: seen.append(real(*a)) or seen[-1])
    watched()
    watched("warmup")
    assert {victim for victim, _ in seen[0].starts} == {None} and len(seen[0].starts) == 3
    assert len(seen[1].starts) == 6 and None not in {victim for victim, _ in seen[1].starts}
    assert not seen[1].universal() and (seen[1].speed != 0).sum() == 6


def test_without_the_scheduler_pairs_are_picked_blindly(watched, monkeypatch):
    """What it does with its scores is tests/hardeners/test_pair_scheduler.py's; here, that it is asked or not."""
    schedulers = []

    class Spy(module.PairScheduler):
        def __post_init__(self):
            super().__post_init__()
            schedulers.append(self)

    monkeypatch.setattr(module, "PairScheduler", Spy)
    watched()
    watched("scheduler")
    assert [scheduler.random_share for scheduler in schedulers] == [SETTINGS.random_share, 1.0]
    assert all(sum(scheduler.picked.values()) > 0 for scheduler in schedulers)


def test_rounds_follow_the_number_of_pairs(watched, monkeypatch):
    sizes = iter(range(1, 99))
    monkeypatch.setattr(module.PairScheduler, "smallest", lambda *_: float(next(sizes)))
    _, trace = watched(rounds=0, visits=3, pairs_per_round=1)
    assert len(trace.rounds) == 1 + 3 * 3 and trace.stopped == "all rounds done"
    visited = {frozenset(pair[:2]) for part in trace.rounds for pair in part.pairs}
    assert len(visited) == 3


def test_it_ends_when_the_smallest_triggers_stop_growing(watched, monkeypatch):
    sizes = iter([10.0, 20.0, 20.1, 99.0])  # after the second sweep of three rounds, the third, the fourth
    monkeypatch.setattr(module.PairScheduler, "smallest", lambda *_: next(sizes))
    _, trace = watched(rounds=0, visits=6, pairs_per_round=1)
    assert len(trace.rounds) == 1 + 4 * 3
    assert trace.stopped == "the smallest triggers stopped growing: 20.0 and 20.1 pixels"


def test_an_unknown_part_is_refused():
    with pytest.raises(SettingsError, match="without"):
        make_hardener("moth", {"without": ["magic"]})
