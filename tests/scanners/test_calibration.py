"""Verdicts made with what was learned, and all that must be refused."""

import dataclasses
import json

import pytest
from toys import PlantedNet, make_subject, planted_samples

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.learned_file import refuse_fitted
from trojai_moth.core.records import fingerprint, from_dict, record, to_dict, to_json
from trojai_moth.eval.calibration.learn import LearnSettings, learn
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.calibration import MonotoneCurve, read_calibration
from trojai_moth.scanners.result import ScanResult

from ..eval.calibration.test_learn import LOGISTIC, MONOTONE, SOURCE, scored


@record
class _Settings:
    steps: int = 9


class _Told(Scanner):
    name, settings_type = "told", _Settings

    def scan(self, subject, samples, *, seed):
        raise NotImplementedError


@pytest.fixture(scope="module", params=[LOGISTIC, MONOTONE], ids=["logistic", "monotone"])
def learned(request):
    return learn(scored(), [], SOURCE, request.param)


def verdict(score, **more):
    outcome = "not judged" if score is None else "flagged" if score > 0 else "clean"
    probability = None if score is None else 0.5
    given = {"scanner": "told", "outcome": outcome, "score": score, "probability": probability, "reason": "told"}
    return ScanResult(**{**given, **more})


@pytest.mark.parametrize("offset", [-3.0, -1e-9, 0.0, 1e-9, 3.0])
def test_flag_score_and_probability_are_the_learned_ones(learned, offset):
    raw = learned.threshold + offset
    made = learned.judge(verdict(raw), "f" * 64)
    assert made.flagged == (raw > learned.threshold) == (made.score > 0)
    assert made.probability == learned.curve.probability(raw)
    assert made.calibrated.raw_score == raw and made.calibrated.raw_probability == 0.5
    assert made.calibrated.sha256 == fingerprint(learned) and not made.calibrated.fitted_on
    assert "learned threshold" in made.reason and from_dict(ScanResult, to_dict(made)) == made


def test_a_model_learned_from_is_known_by_its_file(learned):
    assert learned.judge(verdict(1.0), learned.provenance.models[3].sha256).calibrated.fitted_on


def test_what_was_not_judged_stays_so(learned):
    silent = verdict(None)
    assert learned.judge(silent, "f" * 64) == silent


def test_an_incomplete_verdict_is_flagged_or_not_judged_but_never_clean(learned):
    below, above = (verdict(9.0 + learned.threshold + by, incomplete=True) for by in (-10.0, 1.0))
    below = dataclasses.replace(below, outcome="flagged")
    made = learned.judge(below, "f" * 64)
    assert (made.outcome, made.score, made.probability) == ("not judged", None, None)
    assert learned.judge(above, "f" * 64).outcome == "flagged"


def test_a_lower_threshold_says_anew_which_of_several_scanners_flags(learned):
    bound = learned.threshold
    several = verdict(bound + 0.5, member_scores={"k-arm": bound - 0.5, "filter": bound + 0.5})
    assert learned.judge(several, "f" * 64).flagged_by == ("filter",)
    both = dataclasses.replace(several, member_scores={"k-arm": bound + 0.5, "filter": bound + 0.25})
    assert learned.judge(both, "f" * 64).flagged_by == ("k-arm", "filter")


def test_the_scanner_settings_and_images_must_be_those_learned_with(learned):
    told = _Told()
    learned.check("told", told, DataSettings())
    with pytest.raises(SettingsError, match="--scanner 'told', this run has 'other'"):
        learned.check("other", told, DataSettings())
    with pytest.raises(SettingsError, match=r"scanner\.steps 9, this run has 10"):
        learned.check("told", _Told(_Settings(steps=10)), DataSettings())
    held = DataSettings().held_per_class
    with pytest.raises(SettingsError, match=rf"data\.held_per_class {held}, this run has {held + 1}"):
        learned.check("told", told, DataSettings(held_per_class=held + 1))


def test_models_learned_from_are_refused_with_their_number(learned):
    known = [(model.model_id, model.sha256) for model in learned.provenance.models]
    refuse_fitted(learned, [("id-other", "f" * 64)])
    with pytest.raises(SettingsError, match=r"2 of these 3 models \(id-00000004 first\).*--allow-fitted"):
        refuse_fitted(learned, [("id-other", "f" * 64), *known[4:6]])


def test_the_file_is_read_back_as_it_was(learned, tmp_path):
    path = tmp_path / "learned.json"
    path.write_text(to_json(learned))
    assert read_calibration(path) == learned and fingerprint(read_calibration(path)) == fingerprint(learned)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"scanner_settings": {"steps": 10}}, "do not match their hash"),
        ({"threshold": float("nan")}, "threshold"),
        ({"curve": {"kind": "logistic", "slope": -1.0, "intercept": 0.0}}, "curve"),
        ({"curve": {"kind": "monotone", "scores": [1.0, 0.0], "probabilities": [0.1, 0.2]}}, "rising"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_a_file_of_other_making_is_refused(learned, tmp_path, change, words):
    path = tmp_path / "learned.json"
    path.write_text(json.dumps({**to_dict(learned), **change}))
    with pytest.raises(SettingsError, match=words) as caught:
        read_calibration(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_calibration_at_all(tmp_path, text):
    path = tmp_path / "learned.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"learned\.json"):
        read_calibration(path)


def test_the_curve_is_straight_between_knots_and_level_outside():
    curve = MonotoneCurve(scores=(0.0, 2.0, 3.0), probabilities=(0.1, 0.3, 0.3))
    assert [curve.probability(score) for score in (-9.0, 1.0, 2.5, 9.0)] == pytest.approx([0.1, 0.2, 0.3, 0.3])


def test_a_limit_on_false_positives_is_kept_with_what_it_promises():
    made = learn(scored(), [], SOURCE, LearnSettings(max_false_positive_rate=0.01))
    assert made.max_false_positive_rate == 0.01 and made.false_positive_bound == pytest.approx(1 / 13)
    assert not any(made.judge(verdict(s), "").flagged for m in scored() if not m.poisoned for s in m.scores)


def test_neural_cleanses_outlier_rule_can_be_given_a_threshold(learned):
    """Its score goes through a calibration like any other scanner's."""
    from trojai_moth.scanners.neural_cleanse import NeuralCleanse, NeuralCleanseSettings

    settings = NeuralCleanseSettings(rule="outlier", steps=40, screen_steps=40)
    found = NeuralCleanse(settings)(make_subject(PlantedNet(backdoor=(2, 0, 6.0))), planted_samples(), seed=5)
    made = learned.judge(found, "f" * 64)
    assert made.score == found.score - learned.threshold and made.calibrated.raw_score == found.score
