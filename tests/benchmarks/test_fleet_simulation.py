"""The simulation of a fleet where the answer is known by hand."""

import argparse
import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
simulation = pytest.importorskip("fleet_simulation")

QUIET = {
    "models": 10, "flagged": 0.0, "scale": 1.0, "load": 0.0, "overhead": 0.0, "slow_share": 0.0, "slow_factor": 3.0,
    "failures_per_day": 0.0, "down": 0.0, "expiry": 90.0,
}  # fmt: skip


def simulated(workers, way="one turn", **changes):
    options = argparse.Namespace(**{**QUIET, **changes})
    times = [simulation.Times(60.0, (600.0, 60.0, 180.0))]
    return simulation.simulate(options, times, workers, way, 0)


@pytest.mark.parametrize("way", ["one turn", "scans first"])
def test_without_accidents_it_is_a_division(way):
    assert simulated(1, way)[:2] == pytest.approx((10 / 60, 1.0))
    assert simulated(5, way)[:2] == pytest.approx((2 / 60, 1.0))
    assert simulated(20, way)[:2] == pytest.approx((1 / 60, 0.5)), "ten models keep no twenty busy"
    hours, efficiency, *_ = simulated(10, way, flagged=1.0)
    assert (hours, efficiency) == pytest.approx((900 / 3600, 1.0))


def test_loading_twice_and_stragglers_cost_what_they_cost():
    one = simulated(1, flagged=1.0, load=10.0)[0]
    two = simulated(1, "scans first", flagged=1.0, load=10.0)[0]
    assert (two - one) * 3600 == pytest.approx(10 * 10.0)
    slow = simulated(10, slow_share=1.0)[0]
    assert slow * 3600 == pytest.approx(180.0)


def test_failures_lose_work_and_all_of_it_is_done_again():
    hours, efficiency, failures, lost = simulated(4, flagged=1.0, models=200, failures_per_day=24.0, down=600.0)
    assert failures > 10 and 0 < lost < 1 and hours > 200 * 900 / 4 / 3600
    assert efficiency < 0.9 and efficiency == pytest.approx(200 * 900 / (hours * 3600 * 4))
    assert simulated(4, flagged=1.0, models=200, failures_per_day=24.0, down=600.0)[0] == hours


def test_the_times_that_are_drawn_are_of_committed_records():
    saved = json.loads((ROOT / "benchmarks" / "results" / "fleet_simulation.json").read_text(encoding="utf-8"))
    assert simulation.describe(simulation.read_times(simulation.read_set(simulation.SET))) == saved["measured"]
