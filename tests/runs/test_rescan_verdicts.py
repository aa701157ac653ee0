"""``rescan --verdict blind``: evidence and verdict of every flagged model, with and without a learned rule."""

import json
import os

import pandas as pd
import pytest
from fake_round import write_round
from learned_rules import learned

from trojai_moth.cli.display import reason_lines
from trojai_moth.core.files import write_text
from trojai_moth.core.records import from_json, read_record, to_dict, to_json
from trojai_moth.eval.protocol_rows import Evaluation
from trojai_moth.eval.results import read_results
from trojai_moth.runs.journal import Journal
from trojai_moth.runs.rescan import caveats
from trojai_moth.runs.run import RescanSettings
from trojai_moth.verdict.features import BlindEvidence
from trojai_moth.verdict.records import Verdict

from ..cli.test_cli import ALWAYS, MOTH, NEVER, SCAN, call, refused, sets, shared_round  # noqa: F401

EVIDENCE = [
    "evidence.steps=2", "evidence.images_per_class=2", "evidence.candidates=1",
    "evidence.success_bound=0.01", "evidence.suspects=0",
    "evidence.stamps.images_per_class=1", "evidence.stamps.grid=3", "evidence.stamps.removal_grid=3",
    "evidence.clean_networks=1", "evidence.clean_training.attempts=1", "evidence.clean_training.epochs=1",
    "evidence.clean_training.easy_per_class=2", "evidence.filters.odds=99",  # one epoch explains nothing
]  # fmt: skip
# Blind is what rescan does without being asked.
BLIND: list[str] = []


@pytest.fixture
def run(call, shared_round, tmp_path):  # noqa: F811
    """Run the command; its result, the run directory's rows and its journal."""

    def run(*more, bound=ALWAYS):
        result = call("rescan", shared_round, "--out", "run", *BLIND, *sets(*SCAN, *MOTH, *EVIDENCE, bound), *more)
        return result, read_results(tmp_path / "run" / "results.csv"), Journal(tmp_path / "run")

    return run


def rule_file(path, evidence, **facts):
    """A rule learned with the evidence of these settings, on examples."""
    rule = learned(data="examples", evidence_settings=evidence.settings, **facts)
    write_text(path, json.dumps(to_dict(rule)))
    return path


def test_every_flagged_model_has_evidence_and_a_verdict_with_its_reason(run):
    result, rows, journal = run()
    assert "fixed bounds" in result.stdout and "naive" not in result.stdout
    for model_id, verdict, reason in zip(rows["model"], rows["verdict"], rows["reason"], strict=True):
        blind = journal.read(model_id, "blind", Verdict)
        assert journal.read(model_id, "evidence", BlindEvidence).stage_seconds
        assert (verdict, reason) == (blind.outcome, blind.reason)
        assert f"{model_id} {reason}" in " ".join(result.stdout.split())
        assert blind.rule == "bounds"


def test_every_way_of_deciding_warns_of_what_is_known_of_it():
    blind, naive = RescanSettings(), RescanSettings(verdict="naive")
    assert "never seen" in caveats(blind, learned(), own=True)[0]
    assert caveats(blind, learned(), own=False) == []
    assert "fixed bounds" in caveats(blind, None, own=True)[0]
    assert "naive verdict" in caveats(naive, None, own=True)[0]


def test_reasons_are_printed_of_flagged_models_and_those_not_judged_up_to_a_number():
    flags, verdicts = [None, False] + [True] * 22, ["not judged", "clean"] + ["kept"] * 22
    rows = pd.DataFrame({"model": [f"id-{n}" for n in range(24)], "flagged_before": pd.array(flags, dtype="boolean"),
                         "verdict": verdicts, "reason": "because"})  # fmt: skip
    lines = reason_lines(rows)
    assert lines[:2] == ["id-0 not judged: because", "id-2 because"]
    assert len(lines) == 21 and lines[-1] == "3 more: see results.csv"
    assert reason_lines(rows[:5])[-1] == "id-4 because" and not reason_lines(rows[1:2])
    assert reason_lines(rows, flagged=False) == ["id-0 not judged: because"]


def test_what_was_not_flagged_is_not_looked_into(run):
    result, rows, journal = run(bound=NEVER)
    assert result.exit_code == 0 and set(rows["verdict"]) == {"clean"}
    assert not [name for name in os.listdir(journal.root / "journal") if "evidence" in name]


@pytest.mark.parametrize(("threshold", "verdict", "code"), [(-1e9, "kept", 1), (1e9, "cleared", 0)])
def test_a_learned_rule_decides(run, tmp_path, threshold, verdict, code):
    _, first, journal = run()
    evidence = journal.read(first["model"][0], "evidence", BlindEvidence)
    os.rename(tmp_path / "run", tmp_path / "bounds")
    rule = rule_file(tmp_path / "rule.json", evidence, threshold=threshold)
    result, rows, _ = run("--rule", rule)
    asked = [from_json(Verdict, path.read_text()) for path in (tmp_path / "run/journal").glob("*.blind.json")]
    assert {one.rule for one in asked} != {"bounds"} and len(asked) == 2
    # Where measurements are missing a rule may keep but never clear.
    expected = {verdict} if verdict == "kept" else {verdict, "not judged"}
    assert set(rows["verdict"]) <= expected and (result.exit_code == code or verdict == "cleared"), to_json(asked[0])
    assert "fixed bounds" not in result.stdout


def test_a_rule_of_other_measurements_is_refused(run, tmp_path, call, shared_round):  # noqa: F811
    _, first, journal = run()
    evidence = journal.read(first["model"][0], "evidence", BlindEvidence)
    rule = rule_file(tmp_path / "rule.json", evidence)
    others = [name for name in EVIDENCE if "steps=2" not in name or "." in name.replace("evidence.", "")]
    result = call("rescan", shared_round, "--out", "other", *BLIND, "--rule", rule, *sets(*SCAN, *MOTH, *others,
                  "evidence.steps=3"))  # fmt: skip
    assert result.exit_code == 2 and "--rule: learned with evidence setting steps 2" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--verdict", "blind", "--harden", "clean-only"], ["clean-only", "--verdict naive"]),
        (["--rule", "README", "--verdict", "naive"], ["--rule", "blind"]),
        (["--rule", "README", "--harden", "clean-only"], ["--rule", "blind"]),
    ],
)
def test_what_does_not_go_together_is_refused(refused, shared_round, tmp_path, options, words):  # noqa: F811
    (tmp_path / "README").write_text("{}")
    line = refused("rescan", shared_round, "--out", "run", *options)
    assert all(word in line for word in words)


def test_evaluate_counts_a_run_beside_its_labels(call, tmp_path):  # noqa: F811
    root = write_round(tmp_path / "round", models=2, poisoned=[0], per_class=2)
    assert call("rescan", root, "--out", "run", *BLIND, *sets(*SCAN, *MOTH, *EVIDENCE, ALWAYS)).exit_code in (0, 1)
    result = call("evaluate", "run", "--truth", root, "--out", "evaluation.json")
    assert result.exit_code == 0, result.output
    found = read_record(Evaluation, tmp_path / "evaluation.json")
    assert found.models == 2 and len(found.rows) == 6
    assert all(row.false_positives_cleared.total == row.true_positives_lost.total == 1 for row in found.rows)
    assert "scanner alone" in result.stdout and "0 of 1 (0-98 %)" in result.stdout


def test_evaluate_needs_blind_verdicts_and_a_truth_for_each_run(call, refused, tmp_path):  # noqa: F811
    root = write_round(tmp_path / "round", models=2, poisoned=[0], per_class=2)
    call("rescan", root, "--out", "run", "--verdict", "naive", *sets(*SCAN, *MOTH, ALWAYS))
    assert "--verdict blind" in refused("evaluate", "run", "--truth", root)
    assert "one for each run" in refused("evaluate", "run", "run", "run", "--truth", root, "--truth", root)
