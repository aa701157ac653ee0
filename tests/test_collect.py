"""Evidence on a toy: which pairs are looked into, what is measured, and what is left out when a stage fails."""

import dataclasses

import pytest
import torch
from toys import square_samples, trained_subject

from trojai_moth.blind import gather as module
from trojai_moth.blind.choice import choose_pairs
from trojai_moth.blind.collect import UNUSED, collect_evidence
from trojai_moth.blind.differencing import DifferencingSettings
from trojai_moth.blind.features import BlindEvidence
from trojai_moth.blind.filtered import FilterSettings
from trojai_moth.blind.learned import Term
from trojai_moth.blind.measure import measure_pairs
from trojai_moth.blind.relearned import RelearnSettings
from trojai_moth.blind.rule import cascade, judge
from trojai_moth.blind.settings import EvidenceSettings
from trojai_moth.blind.stages import STAGES, Cascade
from trojai_moth.blind.stamps import StampSettings
from trojai_moth.blind.surrogate import SurrogateSettings
from trojai_moth.errors import MothError
from trojai_moth.hardeners.moth_settings import MothSettings
from trojai_moth.hardeners.scope import unordered
from trojai_moth.records import from_json, to_json
from trojai_moth.scanner import Candidate, Verdict

from .learned_rules import learned

QUICK = MothSettings(rounds=1, pairs_per_round=1, turns=2, first_steps=6, later_steps=4, turn_steps=2, sgd_steps=1,
                     warmup_steps=6, batch=12, learning_rate=1e-4)  # fmt: skip
SETTINGS = EvidenceSettings(
    withheld_share=0.9,
    candidates=1,
    suspects=0,
    stamps=StampSettings(images_per_class=1, grid=3, removal_grid=3),
    clean_networks=1,
    clean_training=SurrogateSettings(network="plain", least_accuracy=0.0, attempts=1, epochs=1),
    relearning=RelearnSettings(kept=()),
    controls=2,
    images_per_class=4,
    steps=30,
    precision="fp32",
    hardening=QUICK,
    burst=QUICK,
    differencing=DifferencingSettings(epochs=5),
)
CONTRAST = learned(terms=[Term(feature="burst_contrast", centre=-1.0, scale=1.0, weight=-1.5)], threshold=-0.4)
# What only the scanner, a surrogate or a search of its own could tell; and the toy has few convolutions.
ELSEWHERE = {"left_out_success", "suppressed_growth", "bound_ratio", "surrogate_gap", "surrogate_success"}
ELSEWHERE |= {"shared_channels", "shared_channels_trigger", "cross_accuracy"}


def candidate(victim, target, size=5.0, **facts):
    return Candidate(victim=victim, target=target, size=size, success=1.0, held_success=None, held_images=0,
                     converged=size is not None, **facts)  # fmt: skip


def verdict(*candidates):
    return Verdict(scanner="toy", outcome="flagged", score=1.0, probability=0.7, reason="", evidence=candidates)


def chosen(*candidates, classes=6, present=range(6), **changes):
    settings = EvidenceSettings(**{"candidates": 3, "controls": 4} | changes)
    return choose_pairs(candidates, list(present), classes, settings, torch.Generator().manual_seed(0))


def test_candidates_are_the_first_patches_of_one_victim_each():
    pairs = chosen(candidate(None, 1), candidate(0, 1), candidate(0, 1), candidate(2, 3, None), candidate(4, 5),
                   candidate(1, 2, kind="filter"), candidate(5, 0), candidate(3, 1))  # fmt: skip
    assert pairs.candidates == ((0, 1), (4, 5), (5, 0))


def test_controls_share_no_pair_with_candidates_or_each_other():
    pairs = chosen(candidate(0, 1), candidate(1, 2))
    groups = [unordered(pairs.candidates), unordered(pairs.withheld), unordered(pairs.trained)]
    assert len(pairs.withheld) == len(pairs.trained) == 4
    assert len(frozenset.union(*groups)) == sum(map(len, groups))
    assert pairs.held_out == groups[0] | groups[1]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_small_models_keep_something_to_harden(classes):
    every = [candidate(v, t) for v in range(classes) for t in range(classes) if v != t]
    pairs = chosen(*every, classes=classes, present=range(classes))
    assert pairs.candidates
    assert len(pairs.held_out) <= max(1, classes * (classes - 1) // 4)


def test_where_nothing_is_withheld_no_candidate_is_left_out():
    every = [candidate(0, 1), candidate(1, 2), candidate(2, 3)]
    stream = torch.Generator().manual_seed(0)
    settings = EvidenceSettings(candidates=3, suspects=2, controls=0)
    more = [(3, 0), (0, 1), (1, 3), (3, 2)]
    free = choose_pairs(every, list(range(4)), 4, settings, stream, lambda: more, withholding=False)
    assert free.candidates == ((0, 1), (1, 2), (2, 3), (3, 0), (1, 3))
    limited = choose_pairs(every, list(range(4)), 4, settings, stream, lambda: more)
    assert limited.candidates == ((0, 1), (1, 2))


def test_a_class_without_images_is_no_victim():
    pairs = chosen(candidate(5, 0), candidate(0, 5), present=range(5))
    assert pairs.candidates == ((0, 5),)
    assert 5 not in {victim for victim, _ in (*pairs.withheld, *pairs.trained)}


@pytest.fixture(scope="module")
def subject():
    return trained_subject()


@pytest.fixture(scope="module")
def evidence(subject):
    return collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), SETTINGS, seed=5, hardened=subject)


def test_every_stage_leaves_its_numbers(evidence):
    (pair,) = evidence.candidates
    unmeasured = {name for name, value in vars(pair).items() if value is None}
    assert (pair.victim, pair.target) == (0, 1)
    assert unmeasured <= ELSEWHERE
    assert set(evidence.stage_seconds) >= {"before", "hardened", "withheld", "burst", "success", "similarity"}
    assert evidence.accuracy_withheld is not None and evidence.accuracy_burst is not None


def test_unchanged_weights_show_no_growth(evidence):
    (pair,) = evidence.candidates
    # "Hardened" is the very same network here, so that no distance moved.
    assert pair.growth_residual == pytest.approx(0, abs=1e-6)
    assert pair.rank_jump == 0 and pair.asymmetry_change == 0
    assert pair.hardened_success == pair.held_success


def test_evidence_survives_json_and_is_the_same_again(subject, evidence):
    assert from_json(BlindEvidence, to_json(evidence)) == evidence
    again = collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), SETTINGS, seed=5, hardened=subject)
    assert again.candidates == evidence.candidates


def test_a_cascade_gives_the_same_numbers_of_what_its_rule_uses_and_says_what_it_left_out(subject, evidence):
    asked = cascade(CONTRAST)
    cut = collect_evidence(
        subject, square_samples(), verdict(candidate(0, 1)), SETTINGS, seed=5, hardened=subject, cascade=asked
    )
    (pair,), (full,) = cut.candidates, evidence.candidates
    assert pair.burst_contrast == pytest.approx(full.burst_contrast, rel=1e-3) and pair.rank_jump is None
    assert pair.size == pytest.approx(full.size, rel=1e-3) and pair.held_success == full.held_success
    assert set(cut.stage_seconds) == {"before", "withheld", "burst", "filters"} and cut.pairs_measured == 1
    unused = ("stamps", "clean_stamps", "success", "similarity", "differencing", "hardened")
    assert cut.unneeded == dict.fromkeys(unused, UNUSED)
    assert "rank_jump" in cut.left_open and "burst_contrast" not in cut.left_open and not evidence.left_open
    assert judge(cut, CONTRAST).outcome == judge(evidence, CONTRAST).outcome
    assert from_json(BlindEvidence, to_json(cut)) == cut


def test_no_network_is_hardened_once_the_verdict_can_not_change(subject, monkeypatch):
    monkeypatch.setattr(module, "Moth", None)
    kept = Cascade(frozenset({"rank_jump", "burst_contrast"}), lambda pairs, unknown: "kept")
    found = collect_evidence(
        subject, square_samples(), verdict(candidate(0, 1)), SETTINGS, seed=5, hardened=subject, cascade=kept
    )
    assert set(found.stage_seconds) == {"before"}
    assert {stage: found.unneeded[stage] for stage in ("hardened", "withheld", "burst")} == dict.fromkeys(
        ("hardened", "withheld", "burst"), "kept whatever it would show"
    )
    assert {"rank_jump", "burst_contrast"} <= set(found.left_open)


def test_a_rule_is_asked_stage_by_stage(subject):
    seen = []

    def settled(pairs, unknown):
        seen.append((pairs[0].rank_jump is not None, sorted(unknown)))

    asked = Cascade(frozenset({"rank_jump", "burst_contrast"}), settled)
    collect_evidence(
        subject, square_samples(), verdict(candidate(0, 1)), SETTINGS, seed=5, hardened=subject, cascade=asked
    )
    assert seen == [(False, ["burst_contrast", "rank_jump"]), *[(True, ["burst_contrast"])] * 2, (True, [])]


def test_pairs_whose_stamps_work_are_looked_into_beside_the_scanners(subject):
    asked = Cascade(
        frozenset({"stamp_success", "removal_success", "stamp_gap", "conviction_gap", "stamp_weakest"}), lambda *_: None
    )
    settings = dataclasses.replace(SETTINGS, suspects=2)
    found = collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), settings, seed=5, cascade=asked)
    first, *added = found.candidates
    assert (first.victim, first.target) == (0, 1) and 1 <= len(added) <= 2
    assert all(None not in (pair.stamp_success, pair.removal_success, pair.stamp_gap) for pair in found.candidates)
    assert set(found.stage_seconds) == {"before", "stamps", "clean_stamps", "filters"}
    other = collect_evidence(
        subject, square_samples(), verdict(candidate(0, 1, kind="filter")), settings, seed=5, cascade=asked
    )
    assert not other.candidates


@pytest.mark.parametrize("feature", [*STAGES["stamps"], *STAGES["clean_stamps"]])
def test_a_rule_of_any_stamp_feature_has_the_stamped_pairs_looked_into(subject, feature):
    """Rules that have one of them alone were tested with these candidates."""
    settings = dataclasses.replace(SETTINGS, suspects=2)
    asked = Cascade(frozenset({feature}), lambda *_: None)
    found = collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), settings, seed=5, cascade=asked)
    assert len(found.candidates) > 1
    assert all(getattr(pair, feature) is not None for pair in found.candidates)


def test_no_clean_network_is_trained_where_no_stamp_works(subject, monkeypatch):
    monkeypatch.setattr(module, "train_surrogate", None)
    asked = Cascade(frozenset({"stamp_success", "stamp_weakest"}), lambda *_: None)
    settings = dataclasses.replace(
        SETTINGS, stamps=StampSettings(images_per_class=1, grid=2, side=0.01), filters=FilterSettings(odds=99.0)
    )
    found = collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), settings, seed=5, cascade=asked)
    (pair,) = found.candidates
    assert pair.stamp_weakest < 0 and pair.stamp_gap is None and not found.skipped


def test_a_clean_network_that_learns_nothing_leaves_the_gap_open(subject):
    never = SurrogateSettings(network="plain", least_accuracy=1.0, attempts=1, epochs=1)
    settings = dataclasses.replace(SETTINGS, clean_training=never)
    asked = Cascade(frozenset({"stamp_success", "stamp_gap"}), lambda *_: None)
    found = collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), settings, seed=5, cascade=asked)
    (pair,) = found.candidates
    assert "no clean network" in found.skipped["clean_stamps"]
    assert pair.stamp_gap is None and pair.stamp_success is not None


def test_the_optional_numbers_are_there_when_they_are_asked_for(subject):
    settings = dataclasses.replace(
        SETTINGS, pasted=True, surrogate=True, suppressed=True,
        surrogate_training=SurrogateSettings(least_accuracy=0.0, attempts=1, epochs=1),
    )  # fmt: skip
    # The clean network is the toy itself here, so that no trigger needs another size there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train_surrogate", lambda subject, *_, **__: subject)
        found = collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), settings, seed=5)
    (pair,) = found.candidates
    assert pair.bound_ratio is not None and pair.surrogate_gap == pytest.approx(0.0)
    assert pair.surrogate_success == pair.held_success
    # The toy has no place to compare features at, and says so; the other numbers are there all the same.
    assert (pair.suppressed_growth is None) == ("suppressed" in found.skipped) and pair.burst_contrast is not None
    assert not {"bound_ratio", "surrogate_gap"} & set(found.left_open)


def test_a_surrogate_that_stays_inaccurate_is_a_stage_that_failed(subject, monkeypatch):
    monkeypatch.setattr(module, "train_surrogate", lambda *_, **__: None)
    settings = dataclasses.replace(SETTINGS, surrogate=True)
    found = collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), settings, seed=5)
    assert "came to an accuracy of 90%" in found.skipped["surrogate"]
    assert found.candidates[0].surrogate_gap is None and found.candidates[0].burst_contrast is not None


def test_the_subject_is_left_as_it_was(subject):
    before = {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}
    collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), SETTINGS, seed=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in subject.module.state_dict().items())


def test_a_stage_that_fails_is_named_and_its_features_are_missing(subject, monkeypatch):
    def refuse(*_, **__):
        raise MothError("no hardening today")

    monkeypatch.setattr(module, "Moth", refuse)
    found = collect_evidence(subject, square_samples(), verdict(candidate(0, 1)), SETTINGS, seed=1)
    assert found.skipped["withheld"] == "no hardening today" and "missing" in found.skipped["burst"]
    (pair,) = found.candidates
    assert pair.size and pair.withheld_residual is pair.burst_residual is pair.withheld_success is None


def test_without_candidates_there_is_nothing_to_look_into(subject):
    found = collect_evidence(subject, square_samples(), verdict(candidate(None, 1)), SETTINGS, seed=1)
    assert found.candidates == () and found.stage_seconds == {}


def test_a_pair_without_a_trigger_stands_at_the_image(subject):
    settings = dataclasses.replace(SETTINGS.inversion, steps=1)
    found = measure_pairs(subject, square_samples().train, [(0, 1)], settings, 1)
    assert found.sizes[0, 1] == subject.size**2 and not found.triggers and found.censored == 1.0
    assert measure_pairs(subject, square_samples().train, [], settings, 1).censored == 0.0
