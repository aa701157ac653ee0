import os

import pandas as pd
import pytest
from toys import AS_STORED

from trojai_moth.core.errors import RunDirectoryError
from trojai_moth.core.records import read_record, to_dict
from trojai_moth.eval.results import COLUMNS, PROTOCOLS, read_results, result_rows, write_results
from trojai_moth.eval.summary import Summary
from trojai_moth.hardeners.trace import HardeningTrace
from trojai_moth.runs.journal import Failure, Journal, NotHardened, RunIdentity, ScanRecord
from trojai_moth.runs.run import RescanSettings
from trojai_moth.scanners.result import Candidate, ScanResult


def candidate(size, victim=7, target=4):
    return Candidate(
        victim=victim, target=target, size=size, success=1.0, held_success=None if size is None else 0.75,
        held_images=8, converged=size is not None,
    )  # fmt: skip


def scan(outcome, *evidence, score=None, probability=None, accuracy=0.9, seconds=1.04):
    verdict = ScanResult(
        scanner="x", outcome=outcome, score=score, probability=probability, reason=f"because {outcome}",
        evidence=evidence,
    )  # fmt: skip
    return ScanRecord(
        architecture="resnet18", classes=20, sha256="0", check="c", convention=AS_STORED, data="d",
        accuracy=accuracy, device="cpu", verdict=verdict, seconds=seconds,
    )  # fmt: skip


def trace(after=0.8, seconds=10.0):
    return HardeningTrace(
        hardener="moth", settings={}, seed=1, data="d", accuracy_before=0.9, accuracy_after=after, held_images=5,
        rounds=(), stopped="all rounds done", seconds=seconds,
    )  # fmt: skip


FLAGGED = scan("flagged", candidate(2.5), candidate(9.0, 1, 2), score=1.5, probability=0.8)
CLEARED = scan("clean", candidate(50.0, None, 3), score=-2.0, probability=0.1, seconds=2.0)
CLEAN = scan("clean", candidate(None), score=-1.0, probability=0.2)
NOT_JUDGED = scan("not judged")
BROKEN = Failure(stage="harden", reason="no room", seconds=0.5, kind="error")
ALONE = NotHardened(reason="it is labelled poisoned")


@pytest.fixture
def journal(tmp_path):
    """A run directory with the records that are given: model -> {stage: record}."""

    def journal(models, harden="flagged"):
        made = Journal(tmp_path / "run")
        settings = to_dict(RescanSettings(harden=harden, verdict="naive"))
        made.open(RunIdentity(version="1", models=tuple(models), settings=settings))
        for model, stages in models.items():
            for stage, value in stages.items():
                made.write(model, stage, value)
        return made

    return journal


@pytest.mark.parametrize(
    ("stages", "verdict", "reason"),
    [
        ({}, "not judged", "not reached yet"),
        ({"failure": BROKEN}, "not judged", "harden: no room"),
        ({"before": NOT_JUDGED}, "not judged", "scan before: because not judged"),
        ({"before": CLEAN}, "clean", "because clean"),
        ({"before": CLEAN, "harden": trace(), "after": FLAGGED}, "clean", "because clean"),
        ({"before": FLAGGED}, "not judged", "flagged, but hardening or the second scan is not done yet"),
        ({"before": FLAGGED, "harden": trace()}, "not judged", "flagged, but hardening or"),
        ({"before": FLAGGED, "failure": BROKEN}, "not judged", "harden: no room"),
        ({"before": FLAGGED, "not-hardened": ALONE}, "kept", "not hardened: it is labelled poisoned"),
        ({"before": FLAGGED, "harden": trace(), "after": FLAGGED}, "kept", "after hardening: because flagged"),
        ({"before": FLAGGED, "harden": trace(), "after": CLEARED}, "cleared", "after hardening: because clean"),
        ({"before": FLAGGED, "harden": trace(), "after": NOT_JUDGED}, "not judged", "scan after: because not judged"),
    ],
)
def test_what_becomes_of_a_model(journal, stages, verdict, reason):
    row = result_rows(journal({"a": stages}), {}).iloc[0]
    assert row["verdict"] == verdict and row["reason"].startswith(reason)
    first = stages.get("before")
    flagged = first.verdict.flagged if first else None
    assert pd.isna(row["flagged_before"]) if flagged is None else row["flagged_before"] == flagged
    _, summary = write_results(journal({"a": stages}), {"a": False})
    judged = flagged is not None
    assert (summary.judged, summary.not_judged) == (int(judged), int(not judged))
    assert summary.flagged_after == int(bool(flagged) and verdict != "cleared")


def test_every_column_says_what_it_should(journal):
    rows = result_rows(journal({"a": {"before": FLAGGED, "harden": trace(), "after": CLEARED}}), {"a": True})
    assert list(rows.columns) == COLUMNS
    assert rows.iloc[0].dropna().to_dict() == {
        "model": "a", "architecture": "resnet18", "classes": 20, "label": True,
        "flagged_before": True, "score_before": 1.5, "victim_before": 7, "target_before": 4, "size_before": 2.5,
        "held_success_before": 0.75, "flagged_after": False, "score_after": -2.0, "target_after": 3,
        "size_after": 50.0, "held_success_after": 0.75, "accuracy_before": 0.9, "accuracy_after": 0.8,
        "verdict": "cleared", "probability_before": 0.8, "probability": 0.1, "seconds": 13.0, "device": "cpu",
        "reason": "after hardening: because clean", "read_as": "RGB, /255, whole 16",
        "pair_before": "7->4", "pair_after": "any->3",
    }  # fmt: skip


def test_the_probability_is_that_of_the_scan_that_decided(journal):
    both = {"harden": trace(), "after": CLEARED}
    rows = result_rows(journal({"a": {"before": CLEAN, **both}, "b": {"before": FLAGGED, **both}}, harden="all"), {})
    assert rows["probability"].to_list() == [0.2, 0.1]


def test_rows_keep_the_order_of_the_run_and_labels_join_by_name(journal):
    rows = result_rows(journal({"b": {}, "a": {"before": CLEAN}, "c": {}}), {"a": False, "b": True, "other": True})
    assert rows["model"].to_list() == ["b", "a", "c"]
    assert rows["label"].to_list()[:2] == [True, False] and pd.isna(rows["label"][2])


def test_classes_are_whole_numbers_whatever_else_is_in_the_table(journal):
    """A model without a trigger must not turn the class numbers of the others into fractions."""
    run = journal({"a": {"before": FLAGGED}, "b": {}, "c": {"before": NOT_JUDGED}})
    write_results(run, {})
    lines = (run.root / "results.csv").read_text().splitlines()
    assert lines[1].startswith("a,resnet18,20,,True,1.5,7,4,2.5,0.75,,")
    assert lines[2].startswith("b,,,,,")


def test_the_table_reads_back_as_it_was(journal):
    models = {"a": {"before": FLAGGED, "harden": trace(), "after": CLEARED}, "b": {}, "c": {"failure": BROKEN}}
    written, summary = write_results(journal(models), {"a": True, "c": False})
    run = journal(models)
    pd.testing.assert_frame_equal(read_results(run.root / "results.csv"), written, check_dtype=False)
    typed = read_results(run.root / "results.csv").dtypes.drop(["architecture", "device"])
    assert typed.equals(written.dtypes.drop(["architecture", "device"]))
    assert read_record(Summary, run.root / "summary.json") == summary
    assert "because clean" in (run.root / "report.md").read_text()


@pytest.mark.parametrize("harden", ["flagged", "clean-only", "all"])
def test_the_protocol_is_that_of_the_run(journal, harden):
    _, summary = write_results(journal({"a": {"before": CLEAN}}, harden=harden), {})
    assert summary.protocol == PROTOCOLS[harden]


def test_an_empty_run_and_no_run(journal, tmp_path):
    rows, summary = write_results(journal({}), {})
    assert len(rows) == 0 and summary.models == 0
    with pytest.raises(RunDirectoryError, match=r"run\.json"):
        result_rows(Journal(tmp_path / "nothing"), {})


def test_a_damaged_record_is_no_row(journal):
    run = journal({"a": {"before": CLEAN}})
    path = run.path("a", "before")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunDirectoryError, match=r"a\.before\.json: damaged"):
        write_results(run, {})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_place_of_results_is_refused_with_a_mend(tmp_path):
    os.mkfifo(tmp_path / "results.csv")
    with pytest.raises(RunDirectoryError, match=r"results\.csv: cannot be read \(not a regular file\); delete it"):
        read_results(tmp_path / "results.csv")
