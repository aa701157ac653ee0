"""Metaparameters are the settings records, flat, and the harness takes their schema."""

import json
from types import SimpleNamespace

import jsonschema
import pytest

from trojai_moth.core.errors import MothError, SettingsError
from trojai_moth.core.records import to_dict
from trojai_moth.scanners.neural_cleanse import NeuralCleanseSettings
from trojai_moth.submission import configuration
from trojai_moth.submission.configuration import calibrate_words, draws
from trojai_moth.submission.header import commit_of, schema
from trojai_moth.submission.job import own_settings, run_settings
from trojai_moth.submission.metaparameters import defaults, nested, parameters
from trojai_moth.submission.rules import check_schema

WORDS = {"commit": "abc", "changes": "new", "repo": "ours"}


@pytest.mark.parametrize(
    ("kind", "scanner", "hardener"),
    [("detect", "neural-cleanse", "moth"), ("detect", "k-arm,filter", "universal"), ("mitigate", "filter", "moth")],
)
def test_the_harness_has_nothing_against_them(kind, scanner, hardener):
    chosen = parameters(kind, scanner, hardener)
    made = schema(kind, chosen, scanner=scanner, hardener=hardener, **WORDS)
    assert check_schema(made, defaults(chosen)) == []
    assert len({one.name for one in chosen}) == len(chosen) > 20
    assert json.loads(json.dumps(made)) == made


def test_a_default_exists_once():
    found = defaults(parameters("detect"))
    assert found["scanner_steps"] == NeuralCleanseSettings().steps
    settings, run, unknown = run_settings("detect", found)
    assert unknown == [] and run.scanner_options == to_dict(NeuralCleanseSettings())
    assert settings.verdict == "blind" and run.verdict == "blind"


@pytest.mark.parametrize("end", ["suggested_minimum", "suggested_maximum"])
def test_every_suggested_end_is_a_setting_that_the_package_takes(end):
    values = {one.name: one.schema[end] for one in parameters("detect") if end in one.schema}
    assert len(values) > 20
    run_settings("detect", values)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"scanner_steps": -1}, {"hardener_rounds": "many"}, {"scanner": "no"},
                                   {"hardener": "no"}, {"hardener": []}, {"data_train_per_class": 10**9}])  # fmt: skip
def test_values_out_of_bounds_are_said_and_the_job_uses_defaults(wrong):
    with pytest.raises(SettingsError):
        run_settings("detect", wrong)
    said = []
    settings, run = own_settings("detect", {"values": wrong}, lambda **message: said.append(message["note"]))
    assert settings.seed == 0 and run.scanner == "neural-cleanse" and "defaults are used" in said[0]


def test_values_of_several_scanners_reach_each():
    groups, unknown = nested({"scanner_k_arm_steps": 9, "nonsense": 1}, parameters("detect", "k-arm,filter"))
    assert groups == {"scanner.k-arm": {"steps": 9}} and unknown == ["nonsense"]
    run = run_settings("detect", {"scanner": "k-arm,filter", "scanner_k_arm_steps": 9})[1]
    assert run.scanner_options == {"k-arm": {"steps": 9}}


def test_configure_calls_calibrate_with_the_same_settings():
    chosen = parameters("detect")
    words = calibrate_words({**defaults(chosen), "scanner_steps": 7}, chosen, "models", "out.json", "cpu")
    assert words[:6] == ["calibrate", "models", "--out", "out.json", "--device", "cpu"]
    assert "scanner.steps=7" in words and "data.train_per_class=200" in words and "--data" in words
    assert not any(word.startswith(("hardener.", "evidence.")) for word in words)


def test_automatic_configuration_draws_within_the_suggested_ranges():
    chosen = parameters("detect")
    base = defaults(chosen)
    drawn = draws(base, chosen, 20, seed=1)
    made = schema("detect", chosen, scanner="s", hardener="h", **WORDS)
    for values in drawn:
        jsonschema.validate(values, made)
        changed = [name for name in values if values[name] != base[name]]
        assert 1 <= len(changed) <= 3 and all(name.startswith("scanner_") for name in changed)
    assert drawn == draws(base, chosen, 20, seed=1)


def test_configure_keeps_what_costs_least_on_models_not_learned_from(tmp_path, monkeypatch):
    costs, tried = iter([0.6, None, 0.4, 0.5]), []

    def calibrate(values, chosen, models, out, device, say):
        tried.append(values)
        out.write_text(f"learned {len(tried)}")

    def read(path):
        cost = SimpleNamespace(value=next(costs))
        return SimpleNamespace(metrics=SimpleNamespace(learned=SimpleNamespace(cross_entropy=cost)))

    monkeypatch.setattr(configuration, "calibrate", calibrate)
    monkeypatch.setattr(configuration, "read_calibration", read)
    order = {
        "values": {"configure_candidates": 4}, "learned": str(tmp_path / "learned"), "automatic": True, "device": "cpu",
        "configure_models": str(tmp_path), "metaparameters": str(tmp_path / "meta.json"),
    }  # fmt: skip
    configuration.configure(order, tmp_path, lambda **message: None)
    assert (tmp_path / "learned" / "calibration.json").read_text() == "learned 3"
    assert json.loads((tmp_path / "meta.json").read_text()) == tried[2] != tried[0]
    assert (tmp_path / "learned" / "metaparameters.json").read_text() == (tmp_path / "meta.json").read_text()
    costs = iter([None])
    with pytest.raises(MothError, match="more labelled models"):
        configuration.configure({**order, "automatic": False}, tmp_path, lambda **message: None)
    with pytest.raises(MothError, match="--learned_parameters_dirpath"):
        configuration.configure({**order, "learned": None}, tmp_path, lambda **message: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(MothError, match="cannot be written to"):
        configuration.configure({**order, "learned": str(tmp_path / "file" / "x")}, tmp_path, lambda **message: None)


def test_settings_that_can_not_be_calibrated_are_passed_and_the_others_kept(tmp_path, monkeypatch):
    tried, said = [], []

    def calibrate(values, chosen, models, out, device, say):
        tried.append(values)
        if len(tried) != 2:
            raise MothError("configure: nothing was judged")
        out.write_text("learned")

    cost = SimpleNamespace(metrics=SimpleNamespace(learned=SimpleNamespace(cross_entropy=SimpleNamespace(value=0.3))))
    monkeypatch.setattr(configuration, "calibrate", calibrate)
    monkeypatch.setattr(configuration, "read_calibration", lambda path: cost)
    order = {
        "values": {"configure_candidates": 3}, "learned": str(tmp_path / "learned"), "automatic": True, "device": "cpu",
        "configure_models": str(tmp_path), "metaparameters": str(tmp_path / "learned" / "calibration.json" / "no"),
    }  # fmt: skip
    configuration.configure(order, tmp_path, lambda **message: said.append(message["note"]))
    assert len(tried) == 3 and (tmp_path / "learned" / "calibration.json").read_text() == "learned"
    assert "settings 1 of 3: configure: nothing was judged" in said
    assert any("as --metaparameters_filepath" in note for note in said)
    tried.clear()
    with pytest.raises(MothError, match="nothing was judged"):
        configuration.configure({**order, "automatic": False}, tmp_path, lambda **message: None)


def test_calibrations_lines_are_notes_as_they_come_and_its_last_one_the_error(tmp_path):
    said = []
    words = (
        {**defaults(parameters("detect"))},
        parameters("detect"),
        tmp_path / "nowhere",
        tmp_path / "out.json",
        "cpu",
    )
    with pytest.raises(MothError, match="nowhere") as caught:
        configuration.calibrate(*words, lambda **message: said.append(message["note"]))
    assert str(caught.value) == f"configure: {said[-1]}"


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path):
    assert commit_of(tmp_path) is None
