"""Evidence on a toy: which pairs are looked into, what is measured, and what is left out when a stage fails."""

import dataclasses

import pytest
import torch
from learned_rules import learned
from rewritings import rewritten, times
from toys import square_samples, trained_subject

from trojai_moth.core.errors import MothError
from trojai_moth.core.records import from_json, to_json
from trojai_moth.scanners.result import Candidate, ScanResult
from trojai_moth.synthesis.clean_networks import SurrogateSettings
from trojai_moth.synthesis.retrained_copies import RetrainSettings
from trojai_moth.triggers.distance import measure_pairs
from trojai_moth.triggers.stamps import StampSettings
from trojai_moth.verdict import evidence as module
from trojai_moth.verdict.evidence import UNUSED, choose_candidates, collect_evidence
from trojai_moth.verdict.features import FEATURES, STAGES, BlindEvidence, Question
from trojai_moth.verdict.judge import judge, question
from trojai_moth.verdict.learned_rule import Term
from trojai_moth.verdict.settings import EvidenceSettings

SETTINGS = EvidenceSettings(
    candidates=1,
    suspects=0,
    stamps=StampSettings(images_per_class=1, grid=3, removal_grid=3),
    clean_networks=1,
    clean_training=SurrogateSettings(network="plain", least_accuracy=0.0, attempts=1, epochs=1),
    relearning=RetrainSettings(kept=()),
    images_per_class=4,
    steps=30,
    precision="fp32",
)
OF_STAMPS = learned(terms=[Term(feature="stamp_success", centre=0.5, scale=0.1, weight=1.5)], threshold=-0.4)


def candidate(victim, target, size=5.0, **facts):
    return Candidate(victim=victim, target=target, size=size, success=1.0, held_success=None, held_images=0,
                     converged=size is not None, **facts)  # fmt: skip


def verdict(*candidates):
    return ScanResult(scanner="toy", outcome="flagged", score=1.0, probability=0.7, reason="", evidence=candidates)


def chosen(*candidates, present=range(6), stamped=(), **changes):
    settings = EvidenceSettings(**{"candidates": 3} | changes)
    return choose_candidates(candidates, list(present), settings, lambda: stamped)


def test_candidates_are_the_first_patches_of_one_victim_each():
    pairs = chosen(candidate(None, 1), candidate(0, 1), candidate(0, 1), candidate(2, 3, None), candidate(4, 5),
                   candidate(1, 2, kind="filter"), candidate(5, 0), candidate(3, 1))  # fmt: skip
    assert pairs == ((0, 1), (4, 5), (5, 0))


def test_pairs_whose_stamps_work_come_after_the_scanners_and_only_beside_them():
    every, more = [candidate(0, 1), candidate(1, 2), candidate(2, 3)], [(3, 0), (0, 1), (1, 3), (3, 2)]
    assert chosen(*every, stamped=more, suspects=2) == ((0, 1), (1, 2), (2, 3), (3, 0), (1, 3))
    assert chosen(*every, stamped=more, suspects=0) == ((0, 1), (1, 2), (2, 3))
    assert chosen(candidate(0, 1, None), stamped=more, suspects=2) == ()


def test_a_class_without_images_is_no_victim():
    assert chosen(candidate(5, 0), candidate(0, 5), present=range(5)) == ((0, 5),)


@pytest.fixture(scope="module")
def subject():
    return trained_subject()


@pytest.fixture(scope="module")
def evidence(subject):
    return gathered(subject)


def gathered(subject, settings=SETTINGS, *candidates, **facts):
    flagged = verdict(*(candidates or (candidate(0, 1),)))
    return collect_evidence(subject, square_samples(), flagged, settings, **{"seed": 5} | facts)


def test_every_stage_leaves_its_numbers(evidence):
    (pair,) = evidence.candidates
    assert (pair.victim, pair.target) == (0, 1)
    assert all(getattr(pair, name) is not None for name in FEATURES)
    assert list(evidence.stage_seconds) == ["stamps", "before", "clean_stamps", "filters"]
    assert not evidence.skipped and not evidence.unneeded and not evidence.left_open


def test_evidence_survives_json_and_is_the_same_again(subject, evidence):
    assert from_json(BlindEvidence, to_json(evidence)) == evidence
    assert gathered(subject).candidates == evidence.candidates


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_a_factor_on_all_logits_changes_no_number(subject, evidence, factor):
    (pair,) = gathered(rewritten(subject, times(factor))).candidates
    (expected,) = evidence.candidates
    for name in FEATURES:
        assert getattr(pair, name) == pytest.approx(getattr(expected, name), rel=0.03, abs=0.003), name


def test_a_question_gives_the_same_numbers_of_what_its_rule_uses_and_says_what_it_left_out(subject, evidence):
    cut = gathered(subject, question=question(OF_STAMPS))
    (pair,), (full,) = cut.candidates, evidence.candidates
    assert pair.stamp_success == pytest.approx(full.stamp_success, rel=1e-3) and pair.stamp_peak is None
    assert pair.size == pytest.approx(full.size, rel=1e-3) and pair.held_success == full.held_success
    assert set(cut.stage_seconds) >= {"before", "stamps"} and cut.pairs_measured == 1
    assert cut.unneeded == {"clean_stamps": UNUSED}
    assert "clean_conviction" in cut.left_open and "stamp_success" not in cut.left_open
    assert judge(cut, OF_STAMPS).outcome == judge(evidence, OF_STAMPS).outcome
    assert from_json(BlindEvidence, to_json(cut)) == cut


def test_no_clean_network_is_trained_once_the_verdict_cannot_change(subject, monkeypatch):
    monkeypatch.setattr(module, "train_surrogate", None)
    kept = Question(frozenset({"stamp_peak", "clean_conviction"}), lambda pairs, unknown: "kept")
    found = gathered(subject, question=kept)
    assert set(found.stage_seconds) == {"before", "stamps"}  # choosing pairs looked at stamps already
    assert found.unneeded == dict.fromkeys(("stamps", "clean_stamps"), "kept whatever it would show")
    assert {"stamp_peak", "clean_conviction"} <= set(found.left_open)


def test_a_rule_is_asked_stage_by_stage(subject):
    seen = []

    def settled(pairs, unknown):
        seen.append((pairs[0].stamp_peak is not None, sorted(unknown)))

    gathered(subject, question=Question(frozenset({"stamp_peak", "clean_conviction"}), settled))
    assert seen == [(False, ["clean_conviction", "stamp_peak"]), (True, ["clean_conviction"]), (True, [])]


def test_pairs_whose_stamps_work_are_looked_into_beside_the_scanners(subject):
    asked = Question(frozenset({"stamp_success", "removal_success", "stamp_gap"}), lambda *_: None)
    settings = dataclasses.replace(SETTINGS, suspects=2)
    found = gathered(subject, settings, question=asked)
    first, *added = found.candidates
    assert (first.victim, first.target) == (0, 1) and 1 <= len(added) <= 2
    assert all(None not in (pair.stamp_success, pair.removal_success, pair.stamp_gap) for pair in found.candidates)
    assert set(found.stage_seconds) == {"before", "stamps", "clean_stamps", "filters"}
    assert not gathered(subject, settings, candidate(0, 1, kind="filter"), question=asked).candidates


@pytest.mark.parametrize("feature", [*STAGES["stamps"], *STAGES["clean_stamps"]])
def test_a_rule_of_any_stamp_feature_has_the_stamped_pairs_looked_into(subject, feature):
    """Rules that have one of them alone were tested with these candidates."""
    settings = dataclasses.replace(SETTINGS, suspects=2)
    found = gathered(subject, settings, question=Question(frozenset({feature}), lambda *_: None))
    assert len(found.candidates) > 1
    assert all(getattr(pair, feature) is not None for pair in found.candidates)


def test_a_clean_network_that_learns_nothing_leaves_the_gap_open(subject):
    never = SurrogateSettings(network="plain", least_accuracy=1.0, attempts=1, epochs=1)
    settings = dataclasses.replace(SETTINGS, clean_training=never)
    found = gathered(subject, settings, question=Question(frozenset({"stamp_success", "stamp_gap"}), lambda *_: None))
    (pair,) = found.candidates
    assert "no clean network" in found.skipped["clean_stamps"]
    assert pair.stamp_gap is None and pair.stamp_success is not None


def test_the_subject_is_left_as_it_was(subject):
    before = {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}
    gathered(subject)
    assert all(torch.equal(before[name], tensor) for name, tensor in subject.module.state_dict().items())


def test_a_stage_that_fails_is_named_and_its_features_are_missing(subject, monkeypatch):
    def refuse(*_, **__):
        raise MothError("no training today")

    monkeypatch.setattr(module, "train_surrogate", refuse)
    found = gathered(subject)
    assert found.skipped == dict.fromkeys(("clean_stamps", "filters"), "no training today")
    (pair,) = found.candidates
    assert pair.size and pair.stamp_peak is not None and pair.stamp_gap is pair.clean_conviction is None


def test_without_sizes_nothing_else_is_looked_at(subject, monkeypatch):
    def refuse(*_, **__):
        raise MothError("no inversion today")

    monkeypatch.setattr(module, "measure_pairs", refuse)
    found = gathered(subject)
    assert found.skipped == {"before": "no inversion today"} and not found.candidates and found.filter is None


def test_without_candidates_there_is_nothing_to_look_into(subject):
    found = gathered(subject, SETTINGS, candidate(None, 1))
    assert found.candidates == () and found.stage_seconds == {}


def test_a_pair_without_a_trigger_stands_at_the_image(subject):
    settings = dataclasses.replace(SETTINGS.inversion, steps=1)
    found = measure_pairs(subject, square_samples().train, [(0, 1)], settings, 1)
    assert found.sizes[0, 1] == subject.size**2 and not found.triggers and found.censored == 1.0
    assert measure_pairs(subject, square_samples().train, [], settings, 1).censored == 0.0
