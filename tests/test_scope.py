"""Withheld pairs are never hardened, and a burst hardens nothing else."""

import dataclasses

import numpy as np
import pytest
import torch
from test_moth_parts import SETTINGS
from toys import square_samples, trained_subject

from trojai_moth.hardeners import moth as module
from trojai_moth.hardeners.moth import Moth
from trojai_moth.hardeners.scope import EVERYTHING, Scope, unordered
from trojai_moth.pairs import PairScheduler
from trojai_moth.trigger import Trigger


def visited(trace):
    return unordered((v, t) for one in trace.rounds for v, t, _ in one.pairs)


def hardened(scope, **changes):
    settings = dataclasses.replace(SETTINGS, rounds=3, pairs_per_round=2, **changes)
    return Moth(settings, scope=scope)(trained_subject(), square_samples(), seed=3)


def test_withheld_pairs_are_never_hardened_and_all_others_may_be():
    every = visited(hardened(EVERYTHING, random_share=1.0).trace)
    kept = next(iter(sorted(every)))
    after = visited(hardened(Scope.except_for([kept[::-1]]), random_share=1.0).trace)
    assert kept in every and kept not in after and after


def test_a_burst_hardens_only_its_pairs_and_has_no_universal_round():
    result = hardened(Scope.just([(1, 0)]))
    assert visited(result.trace) == {(0, 1)}
    assert [one.number for one in result.trace.rounds] == [1, 2, 3]


def test_universal_triggers_are_kept_from_withheld_victims(monkeypatch):
    stamped, real = [], module.Trainer.stamped_batch

    def record(trainer, triggers):
        stamped.extend((trigger.victim, trigger.target) for trigger in triggers)
        return real(trainer, triggers)

    monkeypatch.setattr(module.Trainer, "stamped_batch", record)
    monkeypatch.setattr(module, "small_enough", lambda triggers, *_: [Trigger(None, t, triggers[0].mask,
                        triggers[0].pattern) for t in range(3)] if triggers else [])  # fmt: skip
    hardened(Scope.except_for([(0, 1)]), warmup_bound=0.01)
    assert stamped
    assert not {(0, 1), (1, 0), (None, 0), (None, 1)} & set(stamped)


def test_the_scheduler_never_picks_what_is_barred():
    scheduler = PairScheduler(np.ones((4, 4)), 0.5, 10, frozenset({(0, 1), (2, 3)}))
    picked = scheduler.pick(99, 1, torch.Generator())
    assert set(picked) == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_a_scope_knows_its_pairs_whichever_way_they_are_written():
    scope = Scope.except_for([(3, 1)])
    assert not scope.allows((1, 3)) and not scope.allows((3, 1)) and scope.allows((0, 1))
    assert scope.barred(4) == {(1, 3)}
    assert Scope.just([(2, 0)]).barred(3) == {(0, 1), (1, 2)}
    with pytest.raises(ValueError, match="at least one"):
        Scope.just([])
