"""The benchmarks on the paper's own networks and on strangers': what their tables say of made-up parts."""

import math

import numpy as np
import pytest


def test_published_matrices_leave_the_diagonal_out(script, tmp_path):
    (tmp_path / "paper").mkdir()
    np.save(tmp_path / "paper" / "cifar10_resnet20_nat.npy", np.arange(90.0).reshape(10, 9))
    distances = script("paper_data").published_distances(tmp_path, "nat")
    assert len(distances) == 90
    assert (distances[0, 1], distances[1, 0], distances[1, 2], distances[9, 8]) == (0.0, 9.0, 10.0, 89.0)


def test_the_meter_is_compared_pair_by_pair(script):
    ours = {"nat 0->1": 11.0, "nat 1->0": 22.0, "nat 2->1": 44.0, "nat 3->1": None, "adv 0->1": 500.0}
    paper = {"nat 0->1": 10.0, "nat 1->0": 20.0, "nat 2->1": 40.0, "nat 3->1": 50.0, "adv 0->1": 5.0}
    parts = {name: {"l1": ours[name], "paper": paper[name]} for name in ours}
    found = script("paper_meter").beside(parts, "nat")
    assert found["pairs"] == 3 and found["ratio_of_means"] == pytest.approx(1.1)
    assert found["median_ln"] == pytest.approx(math.log(1.1)) and found["correlation_of_logs"] == pytest.approx(1)
    assert script("paper_meter").beside(parts, "adv") is None  # of one pair


def test_a_method_is_compared_with_the_original_of_its_network(script):
    tables = script("paper_tables")
    rest = {"pgd_accuracy": 0.5}
    parts = {
        "nat original": {"sizes": [10.0, 20.0], "accuracy": 0.9, **rest},
        "adv original": {"sizes": [100.0, 200.0], "accuracy": 0.8, **rest},
        "nat moth without warmup": {"sizes": [30.0, None], "accuracy": 0.89, "minutes": 2.0, **rest},
        "adv moth": {"sizes": [110.0, 220.0], "accuracy": 0.8, "minutes": 2.0, **rest},
    }
    found = tables.table(parts)
    assert found["nat moth without warmup"]["mean"]["change"] == pytest.approx(2)  # of the pair that has both
    assert found["nat moth without warmup"]["censored_after"] == 1
    assert found["nat moth without warmup"]["accuracy_change"] == pytest.approx(-0.01)
    assert found["adv moth"]["smallest"]["change"] == pytest.approx(0.1)
    assert "| adv moth | 165.0 (+10%" in tables.text(found)


def test_the_zoo_says_what_is_left_of_a_backdoor_and_of_the_accuracy(script):
    zoo = script("zoo")
    part = {
        "before": {"accuracy": 0.95, "attack_success": 1.0},
        "after": {"accuracy": 0.93, "attack_success": 0.125},
        "minutes": 3.14,
    }
    assert zoo.cost(part) == "12.5%, -2.0, 3.1" and zoo.cost(None) == ""
    scan = {"outcome": "flagged", "seconds": 3.4, "true_target": False, "smallest": {"victim": None, "target": 4}}
    assert zoo.said(scan) == "flagged any->4, **another target** (3 s)"
    assert zoo.said({**scan, "outcome": "clean"}) == "clean (3 s)"
    load = {"accuracy": 0.95, "attack_success": 1.0}
    lines = zoo.tables({"load verazuo": load, "harden moth verazuo": part, "scan k-arm verazuo": scan}).splitlines()
    assert lines[0] == "| network | accuracy | attack success | k-arm |"
    assert lines[-1] == "| verazuo | 12.5%, -2.0, 3.1 |"
