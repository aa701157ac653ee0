"""What is learned from known scores must be what scikit-learn and brute force say, without ever testing on itself."""

import itertools
import random

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.records import fingerprint, to_json
from trojai_moth.eval.calibration.learn import (
    LearnSettings,
    ScoredModel,
    Source,
    assign_folds,
    balanced_threshold,
    cross_fit,
    fit_curve,
    learn,
    limited_threshold,
    ranking_quality,
)
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.scanners.calibration import LeftOut

SOURCE = Source("some-round", (4, 5, 6), "told", {"steps": 9}, DataSettings())
LOGISTIC, MONOTONE = LearnSettings(method="logistic"), LearnSettings(method="monotone")


def scored(pairs=12, seeds=3, difference=1.0, stream=0, noise=0.3):
    """Twins: model 2i is clean, 2i + 1 poisoned, and the poisoned have higher scores by ``difference`` on average."""
    rng = np.random.default_rng(stream)
    models = []
    for number in range(2 * pairs):
        bad = number % 2 == 1
        scores = rng.normal(difference * bad, 1.0) + noise * rng.normal(size=seeds)
        models.append(
            ScoredModel(
                model_id=f"id-{number:08d}", sha256=f"{number:064x}", group=f"twins {number // 2}", poisoned=bad,
                scores=tuple(scores.tolist()), probabilities=tuple((1 / (1 + np.exp(-3 * scores - 1))).tolist()),
                flags=tuple((scores > 0).tolist()),
            )
        )  # fmt: skip
    return models


def arrays(models):
    return np.array([model.scores for model in models]), np.array([model.poisoned for model in models])


def by_scikit_learn(kind, train_scores, train_labels, test_scores):
    """What scikit-learn's own estimators give for (M, S) scores, each model weighing one."""
    seeds = train_scores.shape[1]
    x, y = train_scores.reshape(-1, 1), np.repeat(train_labels, seeds)
    weight = np.full(len(y), 1 / seeds)
    if kind == "logistic":
        line = make_pipeline(StandardScaler(), LogisticRegression())
        line.fit(x, y, logisticregression__sample_weight=weight)
        found = line.predict_proba(test_scores.reshape(-1, 1))[:, 1]
    else:
        line = IsotonicRegression(y_min=0.02, y_max=0.98, out_of_bounds="clip").fit(x[:, 0], y, sample_weight=weight)
        found = line.predict(test_scores.ravel())
    return found.clip(0.02, 0.98).reshape(test_scores.shape)


@pytest.mark.parametrize("method", ["logistic", "monotone"])
def test_out_of_fold_it_is_scikit_learns_own_fit(method):
    models = scored()
    scores, poisoned = arrays(models)
    folds = assign_folds([model.group for model in models], poisoned, 5)
    probability, _ = cross_fit(scores, poisoned, folds, LearnSettings(method=method))
    for fold in range(5):
        test = folds == fold
        expected = by_scikit_learn(method, scores[~test], poisoned[~test], scores[test])
        np.testing.assert_allclose(probability[test], expected, atol=1e-6)
    learned = learn(models, [], SOURCE, LearnSettings(method=method))
    kept = np.vectorize(learned.curve.probability)(scores)
    np.testing.assert_allclose(kept, by_scikit_learn(method, scores, poisoned, scores), atol=1e-6)
    assert not np.allclose(kept, probability, atol=1e-3)  # or the test above could not tell the two fits apart


@pytest.mark.parametrize("settings", [LOGISTIC, MONOTONE])
def test_what_is_tested_had_no_part_in_its_own_fit(settings):
    """Neither a model's label nor its twin's changes what is said about it out of fold."""
    models = scored()
    scores, poisoned = arrays(models)
    folds = assign_folds([model.group for model in models], poisoned, 5)
    probability, flags = cross_fit(scores, poisoned, folds, settings)
    swapped = poisoned ^ (folds == 2)
    again, flags_again = cross_fit(scores, swapped, folds, settings)
    np.testing.assert_array_equal(again[folds == 2], probability[folds == 2])
    np.testing.assert_array_equal(flags_again[folds == 2], flags[folds == 2])
    assert not np.array_equal(again[folds != 2], probability[folds != 2])


def test_groups_are_never_split():
    models = scored(pairs=11)
    made = learn(models, [], SOURCE, LOGISTIC).provenance
    assert made.folds == 5 and {model.fold for model in made.models} == set(range(5))
    folds_of = {}
    for model in made.models:
        folds_of.setdefault(model.group, set()).add(model.fold)
    assert len(folds_of) == 11 and all(len(folds) == 1 for folds in folds_of.values())


@pytest.mark.parametrize("folds", [2, 4, 5])
def test_an_order_of_ids_that_goes_with_the_labels_puts_no_label_into_one_fold(folds):
    poisoned = np.arange(24) % folds == 0
    found = assign_folds([f"id-{number:08d}" for number in range(24)], poisoned, folds)
    shares = [poisoned[found != fold].mean() for fold in range(folds)]
    assert found.max() == folds - 1 and all(0 < share < 1 for share in shares)
    assert len(set(found[poisoned].tolist())) > 1


def test_few_models_of_one_label_get_more_folds_and_one_group_of_them_is_refused():
    poisoned = np.arange(12) < 2
    groups = [f"g{number}" for number in range(12)]
    found = assign_folds(groups, poisoned, 2)
    assert found[0] != found[1]
    with pytest.raises(SettingsError, match="one group of twins"):
        assign_folds(["g0", "g0", *groups[2:]], poisoned, 2)


@pytest.mark.parametrize(("clean", "bad"), [(0, 9), (9, 0), (1, 9), (9, 1)])
def test_two_of_each_label_are_needed(clean, bad):
    models = scored()
    some = [m for m in models if not m.poisoned][:clean] + [m for m in models if m.poisoned][:bad]
    with pytest.raises(SettingsError, match=f"{clean} clean and {bad} poisoned"):
        learn(some, [], SOURCE, LOGISTIC)


def test_more_scans_of_a_model_do_not_make_it_more_models():
    scores, poisoned = arrays(scored(seeds=1))
    one, five = fit_curve(scores, poisoned, "logistic"), fit_curve(np.repeat(scores, 5, axis=1), poisoned, "logistic")
    assert five.slope == pytest.approx(one.slope, rel=1e-4) and five.intercept == pytest.approx(one.intercept, abs=1e-4)


def test_scores_that_are_the_wrong_way_round_are_worth_the_share_of_poisoned():
    scores = np.array([[3.0], [2.0], [1.0], [0.0]])
    curve = fit_curve(scores, np.array([False, False, False, True]), "logistic")
    assert curve.slope == 0 and curve.probability(99.0) == pytest.approx(0.25)
    level = fit_curve(np.full((4, 2), 7.0), np.array([False, True, True, True]), "logistic")
    assert level.probability(-99.0) == pytest.approx(0.75)


@pytest.mark.parametrize("method", ["logistic", "monotone"])
def test_no_probability_is_certain(method):
    scores = np.array([[-1e6], [-1e5], [1e5], [1e6]])
    curve = fit_curve(scores, np.array([False, False, True, True]), method)
    found = [curve.probability(score) for score in (-1e9, -1e6, 1e6, 1e9)]
    assert found == sorted(found) and min(found) >= 0.02 and max(found) <= 0.98 and found[0] < 0.3 < 0.7 < found[-1]


def balanced_accuracy(scores, poisoned, threshold):
    return ((scores[poisoned] > threshold).mean() + (scores[~poisoned] <= threshold).mean()) / 2


@pytest.mark.parametrize("stream", range(5))
def test_no_other_threshold_has_a_better_balanced_accuracy(stream):
    scores, poisoned = arrays(scored(pairs=5, seeds=2, stream=stream))
    found = balanced_accuracy(scores, poisoned, balanced_threshold(scores, poisoned))
    tried = [balanced_accuracy(scores, poisoned, cut) for cut in np.linspace(-4, 5, 2001)]
    assert found >= max(tried) - 1e-12


def test_of_equally_good_thresholds_the_widest_gap_is_halved():
    scores = np.array([[0.0], [1.0], [5.0], [6.0]])
    assert balanced_threshold(scores, np.array([False, False, True, True])) == 3.0
    assert balanced_threshold(scores, np.array([True, True, False, False])) == 6.0  # wrong way round: flag nothing
    assert balanced_threshold(np.full((3, 1), 2.0), np.array([False, True, True])) == 2.0


@pytest.mark.parametrize(("limit", "threshold", "bound"), [(0.1, 8.0, 0.1), (0.35, 6.0, 0.3), (0.05, 8.0, 0.1)])
def test_the_threshold_of_a_false_positive_rate_counts_the_model_to_come(limit, threshold, bound):
    """Of nine clean models and a tenth, a tenth on average lies above the ninth of nine."""
    found = limited_threshold(np.arange(9.0)[:, None], limit)
    assert found == (threshold, pytest.approx(bound))


def test_the_promised_false_positive_rate_is_kept_on_models_to_come():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(4000):
        drawn = rng.normal(size=20)[:, None] + 0.5 * rng.normal(size=(20, 2))
        threshold, bound = limited_threshold(drawn[:19], 0.2)
        assert bound <= 0.2
        rates.append((drawn[19] > threshold).mean())
    assert 0.1 < np.mean(rates) < 0.2


def test_the_figures_are_scikit_learns(seeds=3):
    models = scored(seeds=seeds)
    scores, poisoned = arrays(models)
    learned = learn(models, [], SOURCE, LOGISTIC)
    labels = np.repeat(poisoned, seeds)
    said = np.array([model.probabilities for model in models])
    folds = np.array([model.fold for model in learned.provenance.models])
    fitted, flags = cross_fit(scores, poisoned, folds, LOGISTIC)
    for quality, probability, ranking, flagged in (
        (learned.metrics.scanner, said, scores, scores > 0),
        (learned.metrics.learned, fitted, fitted, flags),
    ):
        assert quality.cross_entropy.value == pytest.approx(log_loss(labels, probability.ravel()))
        assert quality.brier.value == pytest.approx(brier_score_loss(labels, probability.ravel()))
        assert quality.roc_auc.value == pytest.approx(roc_auc_score(labels, ranking.ravel()))
        assert quality.true_positive_rate.value == flagged[poisoned, 0].mean()
        assert quality.false_positive_rate.value == flagged[~poisoned, 0].mean()
        assert quality.same_verdict.value == np.mean([len(set(row)) == 1 for row in flagged.tolist()])
        for figure in (quality.cross_entropy, quality.brier, quality.roc_auc, quality.same_verdict):
            assert figure.low < figure.value < figure.high
    change = learned.metrics.cross_entropy_change
    assert change.value == pytest.approx(
        learned.metrics.learned.cross_entropy.value - learned.metrics.scanner.cross_entropy.value
    )
    assert learned.metrics.score_deviation == pytest.approx(np.sqrt(np.mean([np.var(r, ddof=1) for r in scores])))


def test_equal_values_count_half_in_the_ranking():
    ranking, labels = np.array([0.0, 1.0, 1.0, 2.0, 1.0]), np.array([False, True, False, True, True])
    assert ranking_quality(ranking, labels) == pytest.approx(roc_auc_score(labels, ranking))
    assert ranking_quality(ranking, np.ones(5, dtype=bool)) is None


def test_intervals_draw_groups_and_not_scans():
    """Five scans that say the same know no more than one."""
    few, many = scored(seeds=1), []
    for model in few:
        many.append(ScoredModel(**{**vars(model), **{n: getattr(model, n) * 5 for n in ("scores", "flags")},
                                   "probabilities": model.probabilities * 5}))  # fmt: skip
    one, five = (learn(models, [], SOURCE, LOGISTIC).metrics for models in (few, many))
    for name in ("cross_entropy", "roc_auc"):
        wide, narrow = getattr(one.scanner, name), getattr(five.scanner, name)
        assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low)
    assert one.score_deviation is None and one.learned.same_verdict.value is None
    assert five.score_deviation == pytest.approx(0, abs=1e-12) and five.learned.same_verdict.value == 1


def test_the_same_models_in_any_order_give_the_same_file():
    models, left_out = scored(), [LeftOut(model_id=name, reason="broken") for name in "ba"]
    first = to_json(learn(models, left_out, SOURCE, LOGISTIC))
    random.Random(1).shuffle(models)
    assert to_json(learn(models, left_out[::-1], SOURCE, LOGISTIC)) == first


def test_the_split_has_a_hash_of_its_own():
    """It changes with a file, a label or a fold, and with nothing else."""
    base, changed = scored(), scored(noise=0.1)
    hashes = [learn(models, [], SOURCE, LOGISTIC).provenance.split_sha256 for models in (base, changed)]
    assert hashes[0] == hashes[1]
    other = [ScoredModel(**{**vars(base[0]), "sha256": "f" * 64}), *base[1:]]
    label = [ScoredModel(**{**vars(base[0]), "poisoned": True}), *base[1:]]
    runs = [(other, LOGISTIC), (label, LOGISTIC), (base, LearnSettings(folds=3))]
    found = [learn(models, [], SOURCE, settings).provenance.split_sha256 for models, settings in runs]
    assert all(a != b for a, b in itertools.combinations([hashes[0], *found], 2))
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 2, "b": 1})
