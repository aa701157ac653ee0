"""The benchmarks' own arithmetic, their record, and that the script for a GPU runs."""

import argparse
import importlib
import importlib.util
import json
import math
import sys

import pytest
import torch
from conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def load():
    """A module of benchmarks/, which is not a package, by name."""

    def by_name(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return by_name


@pytest.fixture(scope="module")
def figures(load):
    return load("figures")


def test_agreement_is_of_pairs_that_both_found(figures):
    fast = [10.0, 22.0, None, 40.0, 7.0]
    found = figures.agreement(fast, [10.0, 20.0, 30.0, None, 7.0])
    assert (found["pairs"], found["only_first_found"], found["only_second_found"]) == (3, 1, 1)
    assert found["median_abs_ln"] == 0.0
    assert found["mean_ln"] == pytest.approx(math.log(1.1) / 3)
    assert found["spearman"] == pytest.approx(1.0)
    assert figures.agreement([1.0, None], [2.0, 3.0]) == {"pairs": 1}


def test_the_gain_ratio_has_a_bound_below_it_that_follows_the_spread(figures):
    even = figures.gain_ratio([([2.0] * 10, [1.0] * 10), ([1.0] * 10, [2.0] * 10)])
    assert even["ratio"] == pytest.approx(1.0) and even["lower_95"] == pytest.approx(1.0)  # none within a model
    wide = figures.gain_ratio([([1.0, 4.0] * 5, [2.0] * 10)])
    assert wide["ratio"] == pytest.approx(1.0) and 0.5 < wide["lower_95"] < 0.9
    assert figures.gain_ratio([([None], [1.0])])["ratio"] is None


def test_seconds_to_a_gain_lie_on_the_line_between_checkpoints(figures):
    reach = figures.seconds_to
    assert reach(2.0, [10.0, 20.0], [math.sqrt(2), 2 * math.sqrt(2)]) == pytest.approx(15.0)
    assert reach(4.0, [10.0], [16.0]) == pytest.approx(5.0)  # from no gain at second 0
    assert reach(2.0, [10.0, 20.0], [None, 1.9]) is None
    assert reach(0.5, [10.0], [1.0]) == pytest.approx(0.0)  # no gain was wanted


def test_the_exponent_is_the_slope(figures):
    assert figures.exponent([5, 10, 40], [3.0, 6.0, 24.0]) == pytest.approx(1.0)
    assert figures.exponent([5], [3.0]) is None


def test_a_record_goes_on_where_it_stopped_and_refuses_other_settings(load, tmp_path, monkeypatch):
    record = load("record")
    monkeypatch.setattr(record, "prepare_process", lambda device: None)
    options = argparse.Namespace(out=tmp_path / "x.json", models=tmp_path, seed=0, device="cpu", steps=3)
    made = record.Record("toy", options)
    assert made.part("one", lambda: {"value": (1, 2)}) == {"value": [1, 2]}
    assert str(tmp_path) not in options.out.read_text()  # a record is for others to read
    again = record.Record("toy", options)
    assert again.part("one", lambda: pytest.fail("computed twice")) == {"value": [1, 2]}
    again.finish(total=3)
    assert json.loads(options.out.read_text())["summary"] == {"total": 3}
    with pytest.raises(SystemExit, match="other settings"):
        record.Record("toy", argparse.Namespace(**{**vars(options), "steps": 4}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        again.part("two", lambda: math.nan)


@pytest.fixture
def scripts(monkeypatch):
    """The scripts as a user starts them: their folder leads the search path."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in set(sys.modules) - known:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    torch.set_flush_denormal(False)


def test_the_script_for_a_gpu_runs_at_toy_size_and_says_that_it_is_one(scripts, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    words = ["--out", str(out), "--tiny", "--device", "cpu", "--tflops", "1", "--bandwidth", "0.1"]
    monkeypatch.setattr(sys, "argv", ["accelerator.py", *words])
    scripts("accelerator").main()
    made = json.loads(out.read_text())
    (network,) = made["summary"]["networks"].values()
    assert made["summary"]["measured"] is False and "toy" in made["summary"]["reason"]
    assert network["images_per_second"] > 0 and network["floor_share"] > 0
    assert network["moth_seconds"] > 0 and "time_ratio" in network  # a toy may gain nothing, and then has none
    work = made["parts"]["squeezenetv1_1 throughput"]
    assert work["multiply_adds"] > 10 * work["outputs"] > 0
    assert made["versions"]["torch"] and made["device"] == "cpu"


def test_without_a_card_nothing_is_measured(scripts, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["accelerator.py", "--device", "cpu", "--out", str(out)])
    scripts("accelerator").main()
    made = json.loads(out.read_text())
    assert made["parts"] == {}
    assert made["summary"] == {"measured": False, "reason": "no accelerator on this machine; nothing was measured"}


def test_the_quick_line_has_every_figure_and_says_what_is_a_bound(scripts):
    quick = scripts("quick")
    rival = {"seconds": 60.0, "checkpoints": [{"seconds": 60.0, "gain": 1.5, "accuracy": 0.9, "sizes": [15.0, 15.0]}]}
    distance = {"sizes": [10.0, 20.0]}
    parts = {
        "m distance, ours": {"sizes": [11.0, 20.0]},
        "m distance, reference": distance,
        "m distance, reference again": distance,
        "before": {"sizes": [10.0, 10.0]},
        "accuracy before": 1.0,
        "ours": {"sizes": [20.0, 20.0], "seconds": 10.0, "accuracy": 1.0},
        "reference": rival,
        "throughput": {"share": 0.9, "share_of_best": 0.8},
        "growth 5": {"hardening_seconds": 10.0, "distance_seconds": 1.0, "pairs": 20, "gain": 1.5},
        "growth 10": {"hardening_seconds": 20.0, "distance_seconds": 4.0, "pairs": 90, "gain": None},
    }
    assert quick.line(quick.summary(parts)) == (
        "time ratio at least 6.0; gain ratio 1.33 (lower 95 % bound 1.33, 2 pairs); "
        "median |ln d ratio| 0.048 (2 pairs; the reference against itself 0.000); "
        "throughput 90% of the bare network; hardening grows with classes to the 1.00"
    )
    reached = {**rival, "checkpoints": [{**rival["checkpoints"][0], "gain": 4.0}]}
    assert quick.line(quick.summary({**parts, "reference": reached})).startswith("time ratio 3.0;")


def test_no_gain_gives_no_time_ratio(load, monkeypatch):
    """Else a hardening that did nothing would be infinitely slow or fast to its own result."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    verdict = load("contest").verdict
    rival = {"seconds": 9.0, "checkpoints": [{"seconds": 9.0, "gain": 2.0, "accuracy": 1.0}]}
    for after, ratio in ((1.5, 4.5 * math.log(1.5) / math.log(2.0)), (0.8, None)):
        found = verdict([10.0], {"sizes": [10.0 * after], "seconds": 2.0, "accuracy": 1.0}, rival)
        assert found["gain"] == pytest.approx(after) and not found["time_ratio_is_lower_bound"]
        assert found["time_ratio"] == (pytest.approx(ratio) if ratio else None)


def test_scanners_are_counted_by_label_and_what_was_not_judged_is_listed(scripts):
    """Two scans of six models: score 1 or -1 as the id says; one is not judged and counts on neither side."""
    scanners, source = scripts("scanners"), scripts("scanners").Source
    scanner = scanners.scanner_of("neural-cleanse:steps=9")
    assert scanner.settings.steps == 9

    def part(score):
        verdict = {"outcome": "flagged" if score > 0 else "clean", "score": score, "probability": 0.5, "reason": "r"}
        return {"architecture": "a", "sha256": f"{score}", "seconds": [30.0, 90.0], "verdicts": [verdict, verdict]}

    scores = {"a": 1.0, "b": 2.0, "c": -1.0, "d": -2.0, "e": 3.0}
    parts = {f"{model} one": part(score) for model, score in scores.items()}
    silent = {"outcome": "not judged", "score": None, "probability": None, "reason": "broken"}
    parts["f one"] = {**part(0.0), "verdicts": [silent, silent]}
    parts["a other"] = part(-9.0)
    labels = {"a": True, "b": True, "c": True, "d": False, "e": False, "f": False}
    known = source("round", (), "neural-cleanse", {}, scanners.DataSettings())
    found = scanners.summary(parts, "one", scanner, known, labels, {"a": "x", "d": "x"})
    assert found["true_positives"] == [2, 3] and found["false_positives"] == [1, 2]
    assert found["not_judged"] == [{"model_id": "f", "reason": "broken"}] and found["minutes_per_model"] == 1.0
    assert "true positives 2 of 3" in scanners.line(found)
