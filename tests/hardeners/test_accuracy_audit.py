"""The last look at what hardening cost, on networks and images whose every answer is known."""

from dataclasses import replace

import torch
from fake_hardener import Scale, ScaleSettings
from torch import nn

from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_json, to_json
from trojai_moth.core.subject import Preprocessing, Subject
from trojai_moth.hardeners.accuracy_guard import MARGIN, SHARES, audit, drop_bound
from trojai_moth.hardeners.trace import HardeningTrace
from trojai_moth.rounds.samples import Samples

# Brightness of an image against a threshold: class 1 above it, class 0 below.
LEVELS = torch.linspace(0.05, 0.95, 100)


class Threshold(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))

    def forward(self, x):
        score = x.mean(dim=(1, 2, 3)) - self.at
        return torch.stack([-score, score], dim=1)


def subject(at):
    return Subject("toy", Threshold(at), "toy", 2, Preprocessing(stored_size=2, size=2), torch.device("cpu"), "0" * 64)


def pool(levels=LEVELS):
    return ImagePool(levels[:, None, None, None].expand(-1, 3, 2, 2), (levels > 0.5).long())


def test_what_costs_little_is_kept_whole():
    work = subject(0.51)
    found = audit(subject(0.5), work, pool(), limit=0.05)
    assert found.share == 1.0 and work.module.at.item() == torch.tensor(0.51)
    assert (found.images, found.accuracy_before, found.accuracy_after) == (100, 1.0, 0.99)


def test_what_costs_too_much_goes_back_as_far_as_needed():
    """Two fifths of the way lose 9 of 100, whose bound is 0.12, and a fifth loses 4, whose bound is 0.06."""
    work = subject(0.7)
    found = audit(subject(0.5), work, pool(), limit=0.07)
    assert found.share == 0.2
    assert torch.isclose(work.module.at, torch.tensor(0.54))
    assert found.accuracy_after == 0.96


def test_nothing_is_left_of_what_costs_too_much_at_once():
    work = subject(0.7)
    found = audit(subject(0.5), work, pool(), limit=0.0)
    assert found.share == 0.0 and work.module.at.item() == 0.5 and found.accuracy_after == 1.0


def test_without_a_limit_it_only_measures():
    work = subject(0.9)
    found = audit(subject(0.5), work, pool(), limit=None)
    assert found.share == 1.0 and found.accuracy_after < 0.6 and work.module.at.item() == torch.tensor(0.9)


def test_without_images_there_is_no_audit():
    for none in (None, pool(LEVELS[:0])):
        assert audit(subject(0.5), subject(0.9), none, limit=0.0) is None


def test_the_bound_counts_what_changed():
    before = torch.tensor([True] * 90 + [False] * 10)
    after = before.clone()
    assert drop_bound(before, after) == 0
    after[:4] = False
    assert drop_bound(before, after) == (4 + MARGIN * 2) / 100
    after[90:95] = True  # five won, four lost: still as uncertain as nine that changed
    assert drop_bound(before, after) == (-1 + MARGIN * 3) / 100
    assert drop_bound(before, before) < drop_bound(before, after) < drop_bound(before, ~before)


def test_shares_are_tried_from_the_largest():
    assert list(SHARES) == sorted(SHARES, reverse=True) and all(0 < share < 1 for share in SHARES)


class Limited(Scale):
    """Moves the threshold, and says what it may cost."""

    name = "limited"

    def __init__(self, factor, limit):
        super().__init__(ScaleSettings(factor=factor))
        self.limit = limit

    @property
    def settings(self):
        return type("Both", (), {"factor": self._own.factor, "error": "", "without": (), "accuracy_limit": self.limit})

    @settings.setter
    def settings(self, own):
        self._own = own


def test_every_hardener_is_audited(monkeypatch):
    monkeypatch.setattr("trojai_moth.hardeners.base.to_dict", lambda settings: {"factor": settings.factor})
    watched = pool(LEVELS[::25])  # four images on which even a bad threshold is right
    samples = Samples(pool(), watched, watched, "toys", pool())
    given = subject(0.5)
    hardened = Limited(factor=1.4, limit=0.07)(given, samples, seed=0)
    trace = hardened.trace
    assert trace.audit.share == 0.2 and "20% of the way was kept" in trace.stopped
    assert trace.cost == (trace.audit.accuracy_before, trace.audit.accuracy_after, 100)
    assert torch.isclose(hardened.subject.module.at, torch.tensor(0.54)) and given.module.at.item() == 0.5
    assert from_json(HardeningTrace, to_json(trace)) == trace

    unaudited = Limited(factor=1.4, limit=0.07)(given, replace(samples, unseen=None), seed=0).trace
    assert unaudited.audit is None and unaudited.cost == (1.0, unaudited.accuracy_after, len(watched))
    assert unaudited.stopped == "scaled"
