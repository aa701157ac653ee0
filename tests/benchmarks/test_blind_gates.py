"""The gates' arithmetic on planted records, and the strata that the blind experiment promises."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
gates = pytest.importorskip("blind_gates")
rounds = pytest.importorskip("blind_rounds")


def record(poisoned, *candidates, withheld=0.6, trained=0.5, pairs=((0, 1),), **facts):
    evidence = {"candidates": list(candidates), "withheld_growth": withheld, "trained_growth": trained}
    return {
        "poisoned": poisoned, "injected_pairs": pairs if poisoned else [], "twin_group": "a", "evidence": evidence,
        "before": {"outcome": "flagged"}, "after": {"outcome": "clean"},
    } | facts  # fmt: skip


def pair(victim=0, target=1, **values):
    return dict.fromkeys(gates.FEATURES) | {"victim": victim, "target": target} | values


@pytest.mark.parametrize(("withheld", "passed"), [(0.5, True), (0.31, True), (0.29, False), (-0.2, False)])
def test_e0_asks_how_much_hardening_spreads_in_clean_models(withheld, passed):
    records = [record(False, withheld=withheld, trained=0.5), record(True, withheld=9.0, trained=0.1)]
    found = gates.gate_e0(records)
    assert found["models"] == 1 and found["passed"] is passed
    assert found["share"] == pytest.approx(withheld / 0.5)


@pytest.mark.parametrize(("residual", "contrast", "passed"), [(-2, 1, True), (-1, 1, False), (-2, -1, False)])
def test_e1_asks_whether_injected_pairs_stay_behind(residual, contrast, passed):
    injected = pair(withheld_residual=residual, burst_contrast=contrast)
    others = [pair(2, 3, withheld_residual=99.0, burst_contrast=-99.0)]
    found = gates.gate_e1([record(True, injected, *others), record(False, *others)])
    assert found["pairs"] == 1 and found["passed"] is passed


def test_without_records_no_gate_passes():
    assert not gates.gate_e0([])["passed"] and not gates.gate_e1([])["passed"]
    assert gates.feature_table([]) == {}


def test_an_auc_follows_the_direction_of_its_feature():
    records = [record(True, pair(growth_residual=3.0, log_size=1.0), pair(5, 6, growth_residual=-9.0)),
               record(False, pair(growth_residual=-1.0, log_size=2.0), pair(2, 1, growth_residual=4.0))]  # fmt: skip
    table = gates.feature_table(records)
    assert table["growth_residual"]["auc"] == 0.5 and table["growth_residual"]["pairs"] == [1, 2]
    assert table["log_size"]["auc"] == 1.0 and "held_success" not in table


def test_the_naive_rows_count_flagged_models_only():
    records = [record(False), record(False, before={"outcome": "clean"}), record(True, after={"outcome": "flagged"})]
    rows = gates.naive(records)
    assert (rows["clean"]["flagged"], rows["clean"]["cleared"]) == (1, 1)
    assert (rows["poisoned"]["flagged"], rows["poisoned"]["cleared"]) == (1, 0)


def test_the_strata_are_what_the_experiment_promises():
    halves = ("development", "scored")
    settings = {half: [rounds.settings_of(name, half) for name in rounds.strata_of(half)] for half in halves}
    every = [one for half in settings.values() for one in half]
    assert len({one.seed for one in every}) == len(every)
    assert sum(one.models for one in every) // 2 >= 30
    assert {one.condition for one in every} == {"none", "spatial", "class"}
    assert {one.images_per_class for one in every} == {2, 5, 10} and {one.size for one in every} == {32, 64}
    assert min(one.classes for one in every) == 4 and max(one.classes for one in every) == 10
    assert len({name for one in every for name in one.architectures}) >= 3
    fresh = [rounds.settings_of(name, "fresh") for name in rounds.strata_of("fresh")]
    assert not {one.seed for one in fresh} & {one.seed for one in every} and len(fresh) == 4


def test_the_eighth_set_has_round_4s_training_and_all_its_conditions():
    every = [rounds.settings_of(name, "eighth") for name in rounds.strata_of("eighth")]
    assert {one.condition for one in every if one.trigger == "polygon"} == {"none", "class", "spatial", "spectral"}
    assert {one.condition for one in every if one.trigger == "filter"} == {"none", "class", "spectral"}
    assert {one.training for one in every} == {"adversarial"} and {one.colour_jitter for one in every} == {0.1}
    assert {round(255 * one.adversarial_eps) for one in every} == {4, 8, 16}
    assert {one.adversarial_ratio for one in every} == {0.1, 0.3}
    firsts = [rounds.settings_of(rounds.strata_of(half)[0], half) for half in rounds.HALVES if half != "polygon"]
    seeds = {one.seed for one in firsts}
    assert not {one.seed for one in every} & (seeds - {every[0].seed})
    for half in ("ninth", "tenth", "eleventh", "twelfth"):
        later = [rounds.settings_of(name, half) for name in rounds.strata_of(half)]
        assert {one.training for one in later} == {"adversarial"} and {one.colour_jitter for one in later} == {0.1}
        assert not {one.seed for one in later} & {one.seed for one in every}
    assert {rounds.settings_of(name, "ninth").trigger for name in rounds.NINTH} == {"filter"}


def test_models_are_poisoned_from_their_first_step_in_the_set_that_says_so_and_in_most_after_it():
    def from_start(half):
        return {name for name in rounds.strata_of(half) if not rounds.settings_of(name, half).shared_start}

    assert from_start("start") == {"spatial", "filter", "plain", "class"} and from_start("ninth") == set()
    assert from_start("tenth") == {"spatial", "filter", "filter-class"}
    assert from_start("eleventh") == {"plain", "spatial", "class", "spectral"}
    assert from_start("twelfth") == {"spectral", "few", "filter-class"}
