"""The leaderboard's metrics, with every quirk that its code has."""

import csv
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from trojai_moth.cli.main import main
from trojai_moth.core.errors import MothError
from trojai_moth.core.records import from_json, to_json
from trojai_moth.rounds.published.figures import PUBLISHED, PUBLISHED_FIDELITY
from trojai_moth.submission.fidelity import CLEAN_BEFORE, LABELS_FILE, POISONED_BEFORE, fidelity, hit_rate
from trojai_moth.submission.predictions import Prediction, read_predictions
from trojai_moth.submission.scoring import Score, confusion_csv, score, sweep, thresholds

A, B, C, D = (f"id-0000000{number}" for number in range(4))
LABELS = {A: False, B: True, C: False, D: True}


def given(**values):
    return [Prediction(model_id=model, value=value) for model, value in zip(LABELS, values.values(), strict=True)]


@pytest.fixture
def truth(tmp_path):
    root = tmp_path / "round"
    root.mkdir()
    rows = [f"{model},{label}" for model, label in LABELS.items()]
    (root / "METADATA.csv").write_text("\n".join(["model_name,poisoned", *rows]) + "\n")
    return root


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for model, text in {A: "0.1\n", B: "0.9\nsecond line", C: "nan"}.items():
        (folder / f"{model}.txt").write_text(text)
        (folder / f"{model}-walltime.txt").write_text("12.5")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["score", *map(str, arguments)])


def test_metrics_are_nists_formulas():
    made = score(given(a=0.1, b=0.8, c=0.3, d=0.9), LABELS)
    costs = [-math.log(0.9), -math.log(0.8), -math.log(0.7), -math.log(0.9)]
    assert made.cross_entropy == pytest.approx(np.mean(costs))
    assert made.half_width == pytest.approx(1.96 * np.std(costs) / 2)
    assert made.brier == pytest.approx((0.01 + 0.04 + 0.09 + 0.01) / 4)
    assert (made.roc_auc, made.roc_auc_sweep, made.models, made.poisoned, made.flags) == (1.0, 1.0, 4, 2, "")


@pytest.mark.parametrize(("level", "z"), [(90, 1.64), (95, 1.96), (98, 2.33), (99, 2.58)])
def test_the_interval_has_nists_two_digit_quantiles(level, z):
    predictions = given(a=0.1, b=0.8, c=0.3, d=0.9)
    costs = [-math.log(0.9), -math.log(0.8), -math.log(0.7), -math.log(0.9)]
    assert score(predictions, LABELS, level=level).half_width == pytest.approx(z * np.std(costs) / 2)


def test_other_levels_are_refused():
    with pytest.raises(MothError, match="--level 80"):
        score(given(a=0.1, b=0.8, c=0.3, d=0.9), LABELS, level=80)


def test_certain_mistakes_cost_the_clip_and_no_more():
    made = score(given(a=1.0, b=1.0, c=0.0, d=1.0), LABELS)
    assert made.cross_entropy == pytest.approx(-math.log(1e-12) / 4, rel=1e-4)


def test_the_sweep_until_round_4_may_differ_from_the_exact_area():
    made = score(given(a=0.501, b=0.502, c=0.503, d=0.509), LABELS)
    assert made.roc_auc == 0.75 and made.roc_auc_sweep == 0.5


def test_one_label_alone_has_no_area():
    made = score([Prediction(model_id=B, value=0.7)], LABELS)
    assert made.roc_auc is None and made.roc_auc_sweep is None


def test_confusion_is_the_harness_file_byte_for_byte():
    text = confusion_csv(np.array([0.35, 0.9]), np.array([0.0, 1.0]))
    lines = text.split("\n")
    assert lines[0] == "Threshold, TP, FP, FN, TN, TPR, FPR"
    assert lines[1] == "0.0, 1, 1, 0, 0, 1.0, 1.0"
    # 0.35 is called poisoned at 0.34 and no longer at 0.35000000000000003, which is above it.
    assert lines[35] == "0.34, 1, 1, 0, 0, 1.0, 1.0"
    assert lines[36] == "0.35000000000000003, 1, 0, 0, 1, 1.0, 0.0"
    assert lines[101] == "1.0, 0, 0, 1, 1, 0.0, 0.0"
    assert len(lines) == 103 and lines[102] == "" and "\r" not in text


def test_equality_counts_as_called_and_rates_of_nothing_are_nan():
    assert len(thresholds()) == 101
    assert sweep(np.array([0.5]), np.array([1.0]))[50].tolist()[:4] == [1, 0, 0, 0]
    assert confusion_csv(np.array([0.5]), np.array([1.0])).split("\n")[1] == "0.0, 1, 0, 0, 0, 1.0, nan"


def test_missing_nan_and_unreadable_results_are_a_half_and_flagged(truth, results):
    (results / f"{A}.txt").write_text("no number\n")
    predictions = read_predictions(results, LABELS)
    assert [(found.used, found.problem) for found in predictions] == [
        (0.5, "unreadable"), (0.9, None), (0.5, "missing"), (0.5, "missing"),
    ]  # fmt: skip
    made = score(predictions, LABELS)
    assert made.missing == (C, D) and made.unreadable == (A,)
    assert made.flags == ":Result Parse::Missing Results:"
    assert score(read_predictions(truth, LABELS), LABELS).flags == ":Result Parse::No Results::Missing Results:"


def test_a_missing_file_is_flagged_in_both_of_the_harness_words_and_infinities_are_no_results(results):
    (results / f"{C}.txt").write_text("0.2")
    assert score(read_predictions(results, LABELS), LABELS).flags == ":Result Parse::Missing Results:"
    assert score(given(a=math.inf, b=math.inf, c=math.inf, d=-math.inf), LABELS).flags == ":No Results:"


def test_only_the_first_line_is_read_and_wall_times_are_no_results(results):
    (results / "id-00000009-walltime.txt").write_text("1.0")
    assert read_predictions(results, [B])[0].value == 0.9
    assert read_predictions(results, ["id-00000009"])[0].problem == "missing"


def test_outside_of_0_to_1_only_the_cross_entropy_is_clipped():
    made = score(given(a=-1.0, b=2.0, c=0.0, d=1.0), LABELS)
    assert made.outside == (A, B)
    assert made.cross_entropy == pytest.approx(0.0, abs=1e-9) and made.brier == 0.5


def test_results_csv_of_a_run(tmp_path, truth):
    table = tmp_path / "results.csv"
    table.write_text(f"model,probability\n{A},0.2\n{B},\n{C},0.3\nother,0.1\n")
    assert [found.used for found in read_predictions(table, LABELS)] == [0.2, 0.5, 0.3, 0.5]
    answer = run(table, "--truth", truth)
    assert answer.exit_code == 0 and "1 without a label, not scored: other" in answer.output


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,b\n1,2\n", "needs the columns model and probability"), (f"model,probability\n{A},1\n{A},0\n", "two rows")],
)
def test_other_tables_are_refused(tmp_path, text, words):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(MothError, match=words):
        read_predictions(tmp_path / "table.csv", LABELS)


def test_command_writes_the_figures_and_prints_the_published_ones(tmp_path, truth, results):
    answer = run(results, "--truth", truth, "--json", tmp_path / "s.json", "--confusion", tmp_path / "c.csv")
    assert answer.exit_code == 0, answer.output
    made = from_json(Score, (tmp_path / "s.json").read_text())
    assert made.missing == (C, D) and from_json(Score, to_json(made)) == made
    assert (tmp_path / "c.csv").read_bytes().startswith(b"Threshold, TP, FP, FN, TN, TPR, FPR\n0.0, 2, 2,")
    assert ":Missing Results:" in answer.output
    assert "round  4  leaderboard, test     cross-entropy 0.322" in answer.output
    assert "round  1" not in run(results, "--truth", truth, "--round", "4").output


def test_a_round_without_labels_is_one_line(tmp_path, results):
    answer = run(results, "--truth", tmp_path)
    assert answer.exit_code == 2 and "the round has no labels" in answer.output


def test_the_published_figures():
    first = [PUBLISHED[key][0].cross_entropy for key in ("1", "2", "3", "4", "11")]
    assert first == ["0.303", "0.324", "0.299", "0.322", "0.101"]
    assert [one.roc_auc for one in PUBLISHED["4"]] == ["0.902", "0.907", "0.90"]
    assert PUBLISHED_FIDELITY["TrinitySRI"] == 0.939


# Mitigation


def test_fidelity_by_hand():
    assert fidelity(0.8, 0.2, 1.0, 0.5) == pytest.approx(0.375)
    assert fidelity(0.0, 0.2, 1.0, 0.5) is None and fidelity(0.8, 0.2, 0.0, 0.5) is None


def test_images_without_usable_logits_or_label_do_not_count():
    labels = {
        "a": {"clean": 0, "poisoned": None}, "b": {"clean": 1, "poisoned": 0}, "c": {"clean": 1, "poisoned": 0},
        "d": {"clean": 0, "poisoned": 1},
    }  # fmt: skip
    logits = {"a": [2.0, 1.0], "b": [5.0, 1.0], "c": [float("nan"), 1.0]}
    assert hit_rate(logits, labels, "clean") == 0.5
    assert hit_rate(logits, labels, "poisoned") == 1.0
    assert hit_rate({}, labels, "clean") == 0.0


def mitigation_round(root, before):
    rows = [{"model_name": m, "poisoned": p, CLEAN_BEFORE: c, POISONED_BEFORE: x} for m, p, c, x in before]
    with (root / "METADATA.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    labels = {"x.png": {"clean": 0, "poisoned": None}, "y.png": {"clean": 0, "poisoned": 1}}
    for model, *_ in before:
        (root / model).mkdir()
        (root / model / LABELS_FILE).write_text(json.dumps(labels))


def test_fidelity_in_both_readings(tmp_path):
    root, results = tmp_path / "round", tmp_path / "results"
    root.mkdir()
    results.mkdir()
    mitigation_round(root, [(A, False, 0.8, ""), (B, True, 1.0, 0.5), (C, True, 1.0, 0.5)])
    (results / f"{A}.json").write_text(json.dumps({"x.png": [1, 0], "y.png": [1, 0]}))
    (results / f"{B}.json").write_text(json.dumps({"x.png": [1, 0], "y.png": [1, 0]}))
    answer = run(results, "--truth", root, "--json", tmp_path / "out.json")
    assert answer.exit_code == 0, answer.output
    made = json.loads((tmp_path / "out.json").read_text())
    clean, poisoned, silent = made["models"]
    assert clean["nist"] == clean["corrected"] == 1.25  # not held below 1, as on the leaderboard
    assert poisoned["nist"] == pytest.approx(2.0)  # (1 - 0) / 1 * (1 / 0.5): the columns are exchanged
    assert poisoned["corrected"] == pytest.approx(1.0)
    assert silent["problem"] == "no results" and made["missing"] == [C]
    assert made["corrected"] == pytest.approx((1.25 + 1.0) / 3)
    assert "TrinitySRI" in answer.output and "counted as 0: " + C in answer.output


@pytest.mark.parametrize("text", ["{}x", "[1]", '{"x.png": {"clean": 0}}'])
def test_broken_test_labels_are_one_line(tmp_path, text):
    root, results = tmp_path / "round", tmp_path / "results"
    root.mkdir()
    results.mkdir()
    mitigation_round(root, [(B, True, 1.0, 0.5)])
    (root / B / LABELS_FILE).write_text(text)
    (results / f"{B}.json").write_text("{}")
    answer = run(results, "--truth", root)
    assert answer.exit_code == 2 and LABELS_FILE in answer.output
