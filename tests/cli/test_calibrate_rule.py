"""``calibrate-rule`` on a run whose evidence is written by hand."""

import hashlib
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from fake_round import write_round
from learned_rules import evidence, pair, write_run

from trojai_moth.cli.main import main
from trojai_moth.eval.calibration.blind_runs import open_blind_run
from trojai_moth.eval.calibration.fit_rule import RuleSettings, learn_rule
from trojai_moth.verdict.judge import judge
from trojai_moth.verdict.learned_rule import read_rule

MODELS = 8
IDS = [f"id-{number:08d}" for number in range(MODELS)]
POISONED = [1, 3, 5, 7]


@pytest.fixture(scope="module")
def round_dir(tmp_path_factory):
    """Tiny models of different files; those that are poisoned have the trigger 0->1."""
    root = write_round(tmp_path_factory.mktemp("rule") / "round", models=1, per_class=1)
    for model_id in IDS[1:]:
        shutil.copytree(root / IDS[0], root / model_id)
    for number, model_id in enumerate(IDS):
        (root / model_id / "model.pt").write_bytes(model_id.encode())
        (root / model_id / "config.json").write_text(
            (root / model_id / "config.json").read_text().replace(
                "{", '{"triggers": [{"source_class": 0, "target_class": 1}],', 1)
        )  # fmt: skip
        (root / model_id / "ground_truth.csv").write_text(f"{int(number in POISONED)}\n")
    (root / "METADATA.csv").unlink()
    return root


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, round_dir):
    stream = np.random.default_rng(0)
    found = {}
    for number, model_id in enumerate(IDS):
        side = 2.0 if number in POISONED else -2.0
        found[model_id] = evidence(pair(0, 1, stamp_gap=side + stream.uniform(), held_success=stream.uniform()))
    return write_run(tmp_path_factory.mktemp("rule") / "run", round_dir, found)


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["calibrate-rule", *map(str, arguments)])


def test_the_file_holds_what_the_evidence_gives(call, run_dir, round_dir, tmp_path):
    result = call(run_dir, "--truth", round_dir, "--out", "rule.json", "--tolerate-loss", 0.3)
    assert result.exit_code == 0, result.output
    rule = read_rule(tmp_path / "rule.json")
    assert rule == learn_rule([open_blind_run(run_dir, round_dir)], RuleSettings(tolerate_loss=0.3))
    assert rule.features == ("stamp_gap",) and rule.scanner == "k-arm"
    assert rule.fitted_files == {hashlib.sha256(model_id.encode()).hexdigest() for model_id in IDS}
    for words in (
        "stamp_gap",
        "4 clean and 4 poisoned",
        "4 of the poisoned have",
        "Out of fold: 1.00 (0.40",
    ):
        assert words in result.stdout, words
    assert "too few" not in result.stdout
    assert judge(evidence(pair(stamp_gap=-3.0)), rule).cleared
    assert judge(evidence(pair(stamp_gap=3.0)), rule).outcome == "kept"


def test_a_tail_can_be_asked_for(call, run_dir, round_dir, tmp_path):
    result = call(run_dir, "--truth", round_dir, "--out", "rule.json", "--tail-loss", 1e-6)
    assert result.exit_code == 0, result.output
    safer = learn_rule([open_blind_run(run_dir, round_dir)], RuleSettings(tail_loss=1e-6))
    assert read_rule(tmp_path / "rule.json") == safer
    assert safer.threshold < learn_rule([open_blind_run(run_dir, round_dir)]).threshold


def test_too_few_models_for_the_promise_are_told(call, run_dir, round_dir):
    result = call(run_dir, "--truth", round_dir, "--out", "rule.json")
    assert "loses at most 0.200 of poisoned models like these on average" in result.stdout
    assert "4 poisoned models are too few to promise 0.02" in result.stdout


def test_mistakes_are_one_line(call, run_dir, round_dir, tmp_path):
    def refused(*arguments):
        result = call(*arguments, "--out", "rule.json")
        assert result.exit_code == 2 and "Traceback" not in result.output
        return result.stderr.strip().splitlines()[-1]

    assert "1 runs and 2 --truth" in refused(run_dir, "--truth", round_dir, "--truth", round_dir)
    assert "not a run directory" in refused(tmp_path, "--truth", round_dir)
    assert "tolerate_loss" in refused(run_dir, "--truth", round_dir, "--tolerate-loss", 1.5)
    other = shutil.copytree(round_dir, tmp_path / "other")
    (other / IDS[2] / "model.pt").write_bytes(b"another")
    assert "give the run's round" in refused(run_dir, "--truth", other)
    assert "Missing option '--truth'" in refused(run_dir)
    assert not (tmp_path / "rule.json").exists()
