"""When stamps are tried on a relearned copy of the network, and what is then known of a pair."""

import dataclasses

import pytest
from toys import square_samples

from trojai_moth.blind import gather
from trojai_moth.blind.collect import collect_evidence
from trojai_moth.blind.stages import Cascade
from trojai_moth.errors import MothError

from .test_collect import SETTINGS, candidate, subject, verdict  # noqa: F401

ASKED = Cascade(frozenset({"stamp_weakest", "conviction_gap", "stamp_conviction", "copy_conviction"}), lambda *_: None)


class Copies:
    """One copy, of which it is counted how often it was asked for."""

    def __init__(self, copy):
        self.copy, self.asked = copy, 0

    def first(self):
        self.asked += 1
        if self.copy is None:
            raise MothError("it stays inaccurate")
        return self.copy


def collected(monkeypatch, subject, copies, far_outside, **settings):  # noqa: F811
    monkeypatch.setattr(gather, "RelearnedCopies", lambda *_: copies)
    monkeypatch.setattr(gather, "FAR_OUTSIDE", far_outside)
    chosen = dataclasses.replace(SETTINGS, suspects=2, **settings)
    return collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), chosen, seed=5, cascade=ASKED)


def test_a_copy_that_does_the_same_explains_it_and_is_made_once(monkeypatch, subject):  # noqa: F811
    copies = Copies(subject)
    found = collected(monkeypatch, subject, copies, float("-inf"))
    assert copies.asked == 1 and len(found.candidates) > 1
    for pair in found.candidates:
        assert pair.copy_conviction == pytest.approx(pair.stamp_conviction, abs=1e-5)


def test_no_copy_is_made_for_stamps_that_no_rule_keeps(monkeypatch, subject):  # noqa: F811
    copies = Copies(subject)
    found = collected(monkeypatch, subject, copies, float("inf"))
    assert copies.asked == 0 and not found.skipped
    assert all(pair.copy_conviction is None for pair in found.candidates)


def test_without_a_copy_it_is_not_known_and_the_rest_is(monkeypatch, subject):  # noqa: F811
    found = collected(monkeypatch, subject, Copies(None), float("-inf"))
    assert found.skipped == {"relearned_stamps": "it stays inaccurate"}
    assert {pair.copy_conviction for pair in found.candidates} == {None}
    assert all(pair.conviction_gap is not None for pair in found.candidates)
