import io

import numpy as np
import pandas as pd
import pytest

from trojai_moth.core.errors import RunDirectoryError
from trojai_moth.core.records import from_json, to_json
from trojai_moth.eval import metrics
from trojai_moth.eval.summary import COLUMNS, Rate, Summary, make_rate, summarise

LABEL_FIELDS = (
    "false_positives_before",
    "false_positives_after",
    "false_positives_removed",
    "true_positives_before",
    "true_positives_after",
    "true_positives_lost",
    "missed",
    "scores_before",
    "scores_after",
)


def row(model, label, verdict, **more):
    flagged = {"cleared": True, "kept": True, "clean": False, "not judged": None}[verdict]
    known = {"model": model, "label": label, "flagged_before": flagged, "verdict": verdict, "seconds": 1.5}
    return dict.fromkeys(COLUMNS) | known | more


def full_round():
    return [
        row("c1", False, "cleared", accuracy_before=0.99, accuracy_after=0.97, probability_before=0.8, probability=0.2),
        row("c2", False, "cleared", accuracy_before=0.98, accuracy_after=0.98, probability_before=0.7, probability=0.1),
        row("c3", False, "kept", accuracy_before=1.0, accuracy_after=0.9, probability_before=0.9, probability=0.6),
        row("c4", False, "clean", probability_before=0.3),
        row("c5", False, "not judged", flagged_before=True, probability_before=0.8),
        row("c6", False, "not judged"),
        row("p1", True, "kept", probability_before=0.9, probability=0.95),
        row("p2", True, "cleared", probability_before=0.6, probability=0.4),
        row("p3", True, "clean", probability_before=0.2),
        row("p4", True, "not judged", flagged_before=True, probability_before=0.7),
        row("p5", True, "not judged"),
    ]


@pytest.fixture
def summary():
    return summarise(pd.DataFrame(full_round()), protocol="rescan")


def counts(rate):
    return rate.count, rate.total


def test_counts_and_denominators(summary):
    assert (summary.models, summary.judged, summary.not_judged, summary.unfinished) == (11, 9, 2, 2)
    assert (summary.labelled, summary.labelled_judged) == (11, 9)
    assert (summary.flagged_before, summary.flagged_after) == (7, 4)
    assert counts(summary.false_positives_before) == (4, 5)
    assert counts(summary.false_positives_after) == (2, 5)
    assert counts(summary.false_positives_removed) == (2, 4)
    assert counts(summary.true_positives_before) == (3, 4)
    assert counts(summary.true_positives_after) == (2, 4)
    assert counts(summary.true_positives_lost) == (1, 3)
    assert counts(summary.missed) == (1, 4)
    assert summary.protocol == "rescan"
    assert summary.seconds == pytest.approx(16.5)


def test_rates_carry_their_interval(summary):
    rate = summary.false_positives_removed
    assert rate.value == 0.5
    assert (rate.low, rate.high) == metrics.clopper_pearson(2, 4)


def test_accuracy_drop_is_over_the_hardened(summary):
    assert summary.hardened == 3
    assert summary.mean_accuracy_drop == pytest.approx((0.02 + 0 + 0.1) / 3)


def test_probabilities_after_fall_back_only_where_nothing_changed(summary):
    truth = [False] * 5 + [True] * 4
    before = [0.8, 0.7, 0.9, 0.3, 0.8, 0.9, 0.6, 0.2, 0.7]
    after = [0.2, 0.1, 0.6, 0.3, 0.8, 0.95, 0.4, 0.2, 0.7]
    for scores, p in ((summary.scores_before, before), (summary.scores_after, after)):
        assert scores.models == 9
        assert scores.roc_auc == pytest.approx(metrics.roc_auc(p, truth))
        assert scores.cross_entropy == pytest.approx(metrics.cross_entropy(p, truth))
        assert scores.cross_entropy_half_width == pytest.approx(metrics.cross_entropy_half_width(p, truth))
        assert scores.brier == pytest.approx(metrics.brier(p, truth))


def test_a_cleared_model_without_new_probability_is_not_scored_with_the_old_one():
    rows = pd.DataFrame([row("c", False, "cleared", probability_before=0.9), row("p", True, "kept", probability=0.9)])
    result = summarise(rows, protocol="x")
    assert result.scores_after.models == 1
    assert result.scores_after.roc_auc is None


@pytest.mark.parametrize("before", [None, False])
def test_never_judged_is_in_no_rate(before):
    rows = [row("p1", True, "kept"), row("p2", True, "not judged", flagged_before=before)]
    result = summarise(pd.DataFrame(rows), protocol="x")
    assert (result.models, result.judged, result.not_judged, result.unfinished) == (2, 1, 1, 0)
    assert counts(result.true_positives_before) == (1, 1)
    assert counts(result.missed) == (0, 1)


def test_the_verdict_counts_not_the_second_scan():
    rows = [row("c", False, "kept", flagged_after=False), row("p", True, "cleared", flagged_after=True)]
    result = summarise(pd.DataFrame(rows), protocol="x")
    assert counts(result.false_positives_removed) == (0, 1)
    assert counts(result.true_positives_lost) == (1, 1)


def test_without_labels_nothing_depends_on_them(summary):
    bare = summarise(pd.DataFrame(full_round()).assign(label=None), protocol="rescan")
    assert all(getattr(bare, name) is None for name in LABEL_FIELDS)
    assert bare.labelled == bare.labelled_judged == 0
    for name in ("models", "judged", "unfinished", "flagged_before", "flagged_after", "hardened", "mean_accuracy_drop"):
        assert getattr(bare, name) == getattr(summary, name)


def test_unlabelled_models_are_in_no_label_rate():
    rows = [row("c", False, "kept"), row("u", None, "kept"), row("v", pd.NA, "clean")]
    result = summarise(pd.DataFrame(rows), protocol="x")
    assert (result.judged, result.labelled_judged, result.flagged_before) == (3, 1, 2)
    assert counts(result.false_positives_before) == (1, 1)
    assert counts(result.true_positives_before) == (0, 0)
    assert result.true_positives_before.value is None
    assert (result.true_positives_before.low, result.true_positives_before.high) == (0, 1)


def test_without_probabilities_there_are_no_scores():
    rows = pd.DataFrame(full_round()).assign(probability=None, probability_before=None)
    result = summarise(rows, protocol="x")
    assert result.scores_before is None and result.scores_after is None
    assert counts(result.false_positives_before) == (4, 5)


def test_an_empty_round():
    rows = pd.DataFrame(full_round()).iloc[:0]
    result = summarise(rows, protocol="x")
    assert result.models == result.judged == 0
    assert result.mean_accuracy_drop is None and result.missed is None


def test_order_and_index_do_not_matter(summary):
    rows = pd.DataFrame(full_round()).sample(frac=1, random_state=3)
    rows.index = np.zeros(len(rows), int)
    shuffled = summarise(rows, protocol="rescan")
    # Sums run in another order, so only the last digits may differ.
    assert shuffled.scores_after.cross_entropy == pytest.approx(summary.scores_after.cross_entropy)
    assert shuffled.false_positives_removed == summary.false_positives_removed
    assert shuffled.true_positives_lost == summary.true_positives_lost


def test_rows_read_back_from_csv_give_the_same(summary):
    text = pd.DataFrame(full_round()).to_csv(index=False)
    assert summarise(pd.read_csv(io.StringIO(text)), protocol="rescan") == summary


def test_the_rows_come_back_untouched():
    rows = pd.DataFrame(full_round())
    kept = rows.copy(deep=True)
    summarise(rows, protocol="x")
    pd.testing.assert_frame_equal(rows, kept)


def test_round_trip(summary):
    assert from_json(Summary, to_json(summary)) == summary
    assert from_json(Rate, to_json(make_rate(0, 0))) == make_rate(0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "fine"}, "c has verdict 'fine'"),
        ({"verdict": None}, "c has verdict None"),
        ({"verdict": "cleared", "flagged_before": False}, "c is 'cleared'"),
        ({"verdict": "kept", "flagged_before": None}, "c is 'kept'"),
        ({"verdict": "clean", "flagged_before": True}, "c is 'clean'"),
        ({"verdict": "clean", "flagged_before": None}, "c is 'clean'"),
        ({"flagged_before": "maybe"}, "'flagged_before'"),
        ({"label": "maybe"}, "'label'"),
        ({"seconds": "long"}, "'seconds'"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(RunDirectoryError, match=message):
        summarise(pd.DataFrame([row("c", False, "kept") | change]), protocol="x")


def test_a_model_can_not_count_twice():
    with pytest.raises(RunDirectoryError, match="c1 occurs twice"):
        summarise(pd.DataFrame([row("c1", False, "kept"), row("c1", False, "kept")]), protocol="x")


def test_a_missing_column_is_named():
    with pytest.raises(RunDirectoryError, match="'verdict'"):
        summarise(pd.DataFrame(full_round()).drop(columns="verdict"), protocol="x")
