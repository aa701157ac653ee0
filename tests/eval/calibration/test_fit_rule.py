"""The rule learned from drawn evidence whose truth is known: what it must find, and what it must not be able to use."""

from dataclasses import replace

import numpy as np
import pytest
from learned_rules import evidence, learned, pair

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.records import from_dict, from_json, to_json
from trojai_moth.eval.calibration.blind_runs import BlindRun, LabelledModel
from trojai_moth.eval.calibration.fit_rule import (
    RuleSettings,
    fit_rule,
    learn_rule,
    retention_threshold,
    with_room,
    with_tail,
)
from trojai_moth.eval.calibration.learn import ranking_quality
from trojai_moth.eval.calibration.rule_weights import WeightSettings, make_rows
from trojai_moth.verdict.judge import judge
from trojai_moth.verdict.learned_rule import LearnedRule

TRUE_PAIR = (1, 2)
NOISE = ("held_success", "stamp_success", "stamp_peak", "stamp_breadth", "removal_success", "clean_conviction")

# A choice among few, where what is chosen is not the question.
TWO = WeightSettings(features=("stamp_gap", "log_size"), inner_folds=2, strengths=(0.3,))
QUICK = RuleSettings(weights=TWO)


def drawn(stream, *, injected, gap=3.0, victim=0, target=3, **fixed):
    """A pair whose growths speak for what it is, ``gap`` standard deviations apart, among features that say nothing."""
    noise = dict(zip(NOISE, stream.uniform(0, 1, len(NOISE)), strict=True))
    side = gap / 2 if injected else -gap / 2
    telling = {
        "stamp_gap": side + stream.standard_normal(),
        "log_size": -2 * side + 2 * stream.standard_normal(),
    }
    return pair(victim, target, **noise | telling | fixed)


def drawn_models(count=24, *, seed=0, gap=3.0, poisoned_pairs=True):
    """Twins, one clean and one poisoned, three candidates each; of a poisoned one the first is injected."""
    stream = np.random.default_rng(seed)
    models = []
    for number in range(count):
        bad = number % 2 == 1
        first = drawn(stream, injected=bad, gap=gap, victim=TRUE_PAIR[0], target=TRUE_PAIR[1])
        others = [drawn(stream, injected=False, gap=gap, victim=3, target=to) for to in (4, 5)]
        models.append(labelled(number, bad, evidence(first, *others)))
    return models


def labelled(number, poisoned, found, group=None):
    return LabelledModel(
        model_id=f"id-{number:08d}",
        sha256=f"{number:064d}",
        twin_group=group or f"twins {number // 2}",
        poisoned=poisoned,
        architecture="squeezenetv1_1",
        evidence=found,
        injected_pairs=(TRUE_PAIR,) if poisoned else (),
    )


@pytest.fixture(scope="module")
def models():
    return drawn_models()


@pytest.fixture(scope="module")
def rule(models):
    return fit_rule(models)


@pytest.fixture(scope="module")
def quick(models):
    return fit_rule(models, QUICK)


def test_it_finds_what_tells_and_leaves_the_noise(rule):
    assert {"stamp_gap", "log_size"} & set(rule.features)
    assert len(set(rule.features) & set(NOISE)) <= 1 and rule.metrics.roc_auc > 0.9
    weights = {term.feature: abs(term.weight) for term in rule.terms}
    assert max(weights, key=weights.get) in ("stamp_gap", "log_size")


def test_models_it_never_saw_are_told_apart(rule):
    verdicts = [(model.poisoned, judge(model.evidence, rule)) for model in drawn_models(100, seed=1)]
    lost = [verdict.cleared for poisoned, verdict in verdicts if poisoned]
    cleared = [verdict.cleared for poisoned, verdict in verdicts if not poisoned]
    assert np.mean(lost) <= 0.2 and np.mean(cleared) >= 0.5
    probabilities = [[v.probability for bad, v in verdicts if bad is label] for label in (False, True)]
    assert np.mean(probabilities[0]) < 0.35 < 0.65 < np.mean(probabilities[1])


def test_the_threshold_is_that_of_the_scores_out_of_fold(quick, models):
    poisoned, clean = (
        [model.score for model in quick.provenance.models if model.poisoned is label] for label in (True, False)
    )
    assert quick.retention == with_room(retention_threshold(poisoned, 0.02), clean)
    assert quick.retention.true_positives == 12 and quick.threshold < min(poisoned)
    loose = fit_rule(models, replace(QUICK, tolerate_loss=0.25))
    assert loose.retention.k == 3 and loose.threshold > quick.threshold and loose.terms == quick.terms
    tail = fit_rule(models, replace(QUICK, tail_loss=1e-4))
    assert tail.retention == with_tail(quick.retention, poisoned, 1e-4) and tail.threshold < quick.threshold
    assert tail.metrics.cleared.value <= quick.metrics.cleared.value


def test_the_order_of_models_does_not_matter_and_runs_repeat(quick, models):
    assert fit_rule(models[::-1], QUICK) == quick


def test_twins_share_a_fold_and_files_are_listed(rule, models):
    folds = {
        model.group: {m.fold for m in rule.provenance.models if m.group == model.group}
        for model in rule.provenance.models
    }
    assert all(len(found) == 1 for found in folds.values()) and len({min(f) for f in folds.values()}) == 5
    assert rule.fitted_files == {model.sha256 for model in models}
    made = rule.provenance
    assert (made.clean, made.poisoned, made.right_pairs, made.candidates) == (12, 12, 12, 12 * 3 + 12)


def test_a_score_does_not_know_its_own_model_or_twin(quick, models):
    """Another label and other evidence for a model change the scores of other folds, never those of its own."""
    found = {model.model_id: model for model in quick.provenance.models}
    own = found[models[0].model_id].fold
    wild = pair(*TRUE_PAIR, stamp_gap=9.0, log_size=-9.0, held_success=1.0)
    changed = fit_rule([replace(models[0], evidence=evidence(wild)), *models[1:]], QUICK)
    for model in changed.provenance.models:
        before = found[model.model_id]
        if model.model_id != models[0].model_id:
            assert (model.score == before.score) == (before.fold == own)


def test_noise_alone_looks_like_noise():
    """Chosen out of many features on few models: in sample they seem to tell something, out of fold they must not."""
    areas = []
    weights = WeightSettings(features=NOISE, least_gain=0.0, inner_folds=2, strengths=(0.3,))
    settings = RuleSettings(folds=3, weights=weights)
    for seed in range(4):
        areas.append(fit_rule(drawn_models(16, seed=seed, gap=0.0), settings).metrics.roc_auc)
    assert np.mean(areas) < 0.65


def test_where_nothing_tells_everything_is_kept():
    models = drawn_models(16, gap=0.0)
    rule = fit_rule(models, RuleSettings(weights=WeightSettings(least_gain=0.5)))
    assert rule.terms == () and not any(judge(model.evidence, rule).cleared for model in models)


def test_a_feature_is_never_used_against_its_sign():
    """stamp_gap tells perfectly, but the wrong way round."""
    models = []
    for number in range(16):
        bad = number % 2 == 1
        found = pair(*TRUE_PAIR, stamp_gap=-2.0 if bad else 2.0, removal_success=0.1 if bad else 0.9)
        models.append(labelled(number, bad, evidence(found)))
    only = RuleSettings(weights=WeightSettings(features=("stamp_gap",)))
    assert fit_rule(models, only).terms == ()
    both = fit_rule(models)
    assert both.features == ("removal_success",) and both.terms[0].weight < 0  # which speaks by being small


def test_other_candidates_of_poisoned_models_are_not_learned_from(models):
    rows = make_rows(models, ("stamp_gap",))
    assert rows.injected.sum() == 12 and (~rows.injected).sum() == 36
    assert rows.weight[rows.injected].tolist() == [1.0] * 12 and rows.weight.sum() == pytest.approx(24)
    wrong = replace(models[1], injected_pairs=((4, 0),))
    assert make_rows([wrong], ("stamp_gap",)).x.shape == (0, 1)


def test_a_true_positive_flagged_for_another_pair_counts_all_the_same(models, quick):
    """Its score is that of its natural candidates, and the threshold must be low enough to keep it."""
    missed = [replace(model, evidence=replace(model.evidence, candidates=model.evidence.candidates[1:]))
              if model is models[1] else model for model in models]  # fmt: skip
    rule = fit_rule(missed, QUICK)
    assert rule.provenance.right_pairs == 11 and rule.retention.true_positives == 12
    assert rule.threshold < quick.threshold


def test_what_is_seldom_measured_is_not_used_by_its_absence():
    stream = np.random.default_rng(0)
    models = []
    for number in range(20):
        bad = number % 2 == 1
        seldom = {"stamp_peak": 1.0 + 0.1 * stream.standard_normal()} if bad else {}
        found = pair(*TRUE_PAIR, stamp_gap=float(bad) + stream.standard_normal(), **seldom)
        models.append(labelled(number, bad, evidence(found)))
    assert "stamp_peak" not in fit_rule(models, RuleSettings(weights=WeightSettings(least_gain=0.0))).features


def test_missing_values_are_as_good_as_typical_ones(models):
    holes = [
        replace(model, evidence=replace(model.evidence, candidates=tuple(
            replace(found, log_size=None) if number % 4 == 0 else found
            for found in model.evidence.candidates)))
        for number, model in enumerate(models)
    ]  # fmt: skip
    rule = fit_rule(holes, QUICK)
    assert rule.metrics.roc_auc > 0.8 and all(np.isfinite(term.weight) for term in rule.terms)


def test_models_without_candidates_and_files_that_occur_twice_are_left_out(models, quick):
    empty, copy = labelled(90, False, evidence()), replace(models[1], model_id="id-copy", twin_group="twins x")
    found = fit_rule([*models, empty, copy], QUICK)
    assert {left.model_id for left in found.provenance.left_out} == {"id-00000090", "id-copy"}
    assert found.terms == quick.terms and found.retention == quick.retention


def test_several_scans_of_a_model_are_one_true_positive(models):
    again = [replace(model, evidence=replace(model.evidence, seed=1)) for model in models]
    assert fit_rule([*models, *again], QUICK).retention.true_positives == 12


def test_the_metrics_are_those_of_other_folds_rules(models, rule):
    assert rule.metrics.lost.value <= 0.25 and 0 < rule.metrics.cleared.value <= 1 and rule.metrics.unjudged == 0
    scores = np.array([model.score for model in rule.provenance.models])
    poisoned = np.array([model.poisoned for model in rule.provenance.models])
    assert rule.metrics.roc_auc == pytest.approx(ranking_quality(scores, poisoned))
    assert rule.metrics.cross_entropy < 0.6


def test_it_remembers_how_evidence_was_measured_where_that_was_alike(models):
    told = [
        replace(model, evidence=replace(model.evidence, settings={"steps": 30, "suspects": number}))
        for number, model in enumerate(models[:8])
    ]
    assert fit_rule(told, QUICK).evidence_settings == {"steps": 30}


def test_the_rule_survives_json(rule):
    assert from_json(LearnedRule, to_json(rule)) == rule


def test_runs_of_one_kind_are_learned_from_together(models):
    source = learned().provenance.rounds[0]
    runs = [BlindRun(source, "k-arm", "composed", tuple(part)) for part in (models[:12], models[12:])]
    rule = learn_rule(runs, QUICK)
    assert (rule.scanner, rule.data, len(rule.provenance.rounds)) == ("k-arm", "composed", 2)
    with pytest.raises(SettingsError, match=r"2 different values of --scanner \(filter, k-arm\)"):
        learn_rule([runs[0], replace(runs[1], scanner="filter")])
    with pytest.raises(SettingsError, match="0 different values"):
        learn_rule([])


def test_evidence_that_was_cut_short_is_refused_with_the_mend(models):
    cut = replace(models[3], evidence=replace(models[3].evidence, left_open=("stamp_gap",)))
    with pytest.raises(SettingsError, match=r"1 of 24 models \(id-00000003 first\).*evidence.complete=true"):
        fit_rule([*models[:3], cut, *models[4:]])


def test_too_little_to_learn_from_is_one_line(models):
    for few, words in ((models[:2], "1 clean and 1 poisoned"), ([], "0 clean and 0 poisoned")):
        with pytest.raises(SettingsError, match=f"calibrate-rule: {words}"):
            fit_rule(few)
    with pytest.raises(SettingsError, match="calibrate-rule: all clean or all poisoned models are of one group"):
        fit_rule([replace(model, twin_group="one") for model in models])
    with pytest.raises(SettingsError, match="'colour' is no feature"):
        from_dict(WeightSettings, {"features": ["colour"]})


def test_a_value_speaks_for_the_label_that_it_is_like(rule):
    """Natural pairs are many, so the middle of all values would call half of them injected."""
    for model in drawn_models(60, seed=2):
        for part in judge(model.evidence, rule).decided_by:
            if part.feature == "stamp_gap" and abs(part.value) > 0.75:
                assert (part.contribution > 0) == (part.value > 0)


def test_what_is_measured_for_one_label_only_in_a_part_does_no_harm():
    models = drawn_models(12)
    holes = [
        replace(model, evidence=replace(model.evidence, candidates=tuple(
            replace(found, stamp_gap=None) for found in model.evidence.candidates)))
        if model.poisoned and number > 4 else model
        for number, model in enumerate(models)
    ]  # fmt: skip
    settings = RuleSettings(weights=WeightSettings(features=("stamp_gap", "log_size"), least_gain=0.0))
    assert fit_rule(holes, settings).metrics.roc_auc > 0.5
