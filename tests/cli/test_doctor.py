import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT
from dying_worker import negative, square
from fake_round import write_metadata, write_model
from packed_round import pack_models

from trojai_moth.cli.doctor import model_line, round_lines
from trojai_moth.cli.main import main
from trojai_moth.core.parallel import ordered_parallel_map
from trojai_moth.core.process_identity import is_process_dead
from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.eval.round_health import Tally
from trojai_moth.hardeners.moth_settings import MothSettings
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.model_check import ModelCheck, check_model
from trojai_moth.rounds.model_folder import SkippedModel
from trojai_moth.rounds.reading import read_round
from trojai_moth.runs import estimate as estimating
from trojai_moth.runs.estimate import estimate, seconds_per_image, seconds_per_made_image
from trojai_moth.runs.workload import Work, work
from trojai_moth.scanners.neural_cleanse import NeuralCleanseSettings
from trojai_moth.synthesis.retrained_copies import RetrainSettings
from trojai_moth.verdict.settings import EvidenceSettings

sys.path.insert(0, str(ROOT / "benchmarks"))
model_sets = pytest.importorskip("model_sets")
set_records = pytest.importorskip("set_records")

IDS = [f"id-0000000{number}" for number in range(3)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("doctor") / IDS[0], per_class=2)


@pytest.fixture
def root(plain, tmp_path):
    """Three models; the second has no published logits, the third a model file that is none."""
    for model_id in IDS:
        shutil.copytree(plain, tmp_path / "round" / model_id)
    (tmp_path / "round" / IDS[1] / "clean-example-logits.csv").unlink()
    (tmp_path / "round" / IDS[2] / "model.pt").write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR.")
    write_metadata(tmp_path / "round", {IDS[0]: False, IDS[1]: True})
    return tmp_path / "round"


def doctor(*arguments):
    result = CliRunner().invoke(
        main, ["doctor", "--workers", "1", "--no-estimate", "--data", "examples", *map(str, arguments)]
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_every_model_has_its_line_and_the_round_its_own(root):
    result = doctor(root)
    first, second, third = result.output.splitlines()[:3]
    assert first.startswith(f"{IDS[0]}  ok  squeezenetv1_1, 3 classes, accuracy 100.0% of 6")
    assert "RGB, /255, crop 32 of 36 (published logits reproduced within" in first and "missing" not in first
    assert "no published logits; accuracy on examples 1.000 on 6" in second and "missing: published logits" in second
    assert third.startswith(f"{IDS[2]}  BROKEN  ") and "model.pt" in third
    assert "Models: 3, of which 2 can be judged and 1 cannot." in result.output
    assert "Labels: 1 clean, 1 poisoned, 1 unknown." in result.output
    assert f"{IDS[1]}: has the same model file as {IDS[0]}." in result.output
    assert result.exit_code == 2


def test_all_well_is_0(root):
    assert doctor(root, "--subset", f"{IDS[0]},{IDS[1]}").exit_code == 0
    assert doctor(root / IDS[0]).exit_code == 0
    assert doctor(root, "--subset", "poisoned == False").output.count("  ok  ") == 1


def test_json_is_a_line_per_model_and_one_for_the_round(root):
    result = doctor(root, "--json")
    lines = [json.loads(line) for line in result.output.splitlines()]
    models = [from_dict(ModelCheck, line["model"]) for line in lines[:-1]]
    assert [(model.model_id, model.usable) for model in models] == list(zip(IDS, (True, True, False), strict=True))
    assert models[1].convention.by == "accuracy" and len(models[1].convention.readings) >= 8
    assert to_dict(models[0]) == lines[0]["model"]
    assert (lines[-1]["round"]["broken"], lines[-1]["round"]["models"]) == (1, 3)
    assert result.exit_code == 2


def test_names_and_contents_reach_the_terminal_as_text(root):
    (root / IDS[0]).rename(root / "id-\x1b[31m[bold]\nred")
    (root / IDS[1] / "config.json").write_text('{"model_architecture": "\x1b]0;title\x07"}')
    (root / IDS[1] / "config.json").write_text(json.dumps({"model_architecture": "\x1b]0;title\x07[red]"}))
    for arguments in ((), ("--json",)):
        output = doctor(root, *arguments).output
        assert all(line.isprintable() for line in output.splitlines()) and "[bold]" in output


def test_a_round_without_metadata_and_with_labels_that_disagree(root):
    (root / IDS[0] / "ground_truth.csv").write_text("1\n")
    result = doctor(root, "--subset", IDS[0])
    assert "labels that cannot be used: id-00000000: " in result.output
    assert "Labels: 0 clean, 0 poisoned, 1 unknown." in result.output and result.exit_code == 0
    (root / "METADATA.csv").write_text("model_name,poisoned,Poisoned\nid-00000000,1,1\n")
    result = doctor(root, "--subset", IDS[0])
    assert "The labels cannot be used" in result.output and result.exit_code == 2
    (root / "METADATA.csv").unlink()
    (root / "DATA_LICENCE.txt").write_text("public domain")
    result = doctor(root, "--subset", IDS[0])
    assert "no METADATA.csv" in result.output and "DATA_LICENCE.txt" in result.output and result.exit_code == 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "clean_example_data"), "no images named"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "clean-example-logits.csv").write_text("x"), "no row for"),
        (lambda folder: [path.unlink() for path in folder.glob("*/class_[12]_*")], "images of one class alone"),
        (lambda folder: (folder / "model.pt").unlink(), "no model.pt"),
        (lambda folder: (folder / "config.json").unlink() or os.mkfifo(folder / "config.json"), "not a regular file"),
    ],
)
def test_what_is_broken_is_said(plain, tmp_path, spoil, words):
    folder = shutil.copytree(plain, tmp_path / IDS[0])
    spoil(folder)
    (case,) = read_round(folder.parent)
    found = check_model(case)
    assert not found.usable and words in found.problem and words in model_line(found)


def test_what_is_missing_is_said(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / IDS[0])
    (folder / "clean-example-logits.csv").unlink()
    (folder / "config.json").unlink()
    (folder / "foregrounds" / "2.png").unlink()
    for path in folder.glob("*/class_2_*"):
        path.unlink()
    found = check_model(read_round(folder.parent)[0])
    missing = ("configuration", "published logits", "foregrounds (2 of 3)", "examples of 1 of 3 classes")
    assert found.usable and found.missing == missing


def test_packs_and_unforeseen_errors(plain, tmp_path, monkeypatch):
    pack_models(tmp_path / "id-000000xx.tar.gz", [plain])
    (case,) = read_round(tmp_path)
    assert check_model(case).usable
    monkeypatch.setattr("trojai_moth.rounds.model_check.open_folder", lambda *_: 1 / 0)
    assert check_model(case).problem.startswith("ZeroDivisionError")
    assert check_model(SkippedModel(model_id="x", reason="why")) == ModelCheck(model_id="x", problem="why")


def test_processes_answer_in_order_and_one_that_dies_costs_its_own_answer(tmp_path, monkeypatch):
    """2 kills its process whenever it is asked; what else that process had been given is asked again."""
    monkeypatch.setenv("DYING_WORKER", str(tmp_path))
    assert list(ordered_parallel_map(square, [0, 1, 2, 3, 4], 2, negative)) == [0, 1, -2, 9, 16]
    assert len(list(tmp_path.iterdir())) == 2  # the second time it was alone
    assert list(ordered_parallel_map(square, [], 2, negative)) == []
    assert list(ordered_parallel_map(square, [3, 4], 1, negative)) == [9, 16]


def test_no_worker_outlives_the_process_that_asked(tmp_path):
    """Killed outright, it can clean up nothing."""
    asks = f"list(ordered_parallel_map(dying_worker.slow, [{str(tmp_path)!r}], 2, dying_worker.negative))"
    words = f"import dying_worker; from trojai_moth.core.parallel import ordered_parallel_map; {asks}"
    asker = subprocess.Popen(
        [sys.executable, "-c", words], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    )
    try:
        while not (begun := list(tmp_path.iterdir())):
            assert asker.poll() is None
            time.sleep(0.02)
    finally:
        asker.kill()
        asker.wait()
    (worker,) = begun
    end = time.monotonic() + 30
    while not is_process_dead(worker.name):
        assert time.monotonic() < end, "the worker is still there"
        time.sleep(0.02)


COMPOSED, BLIND = DataSettings(source="composed"), EvidenceSettings()


def test_work_grows_with_what_the_settings_ask_for():
    scan, moth, images = NeuralCleanseSettings(), MothSettings(), DataSettings()
    first = work(6, scan, moth, images, None)
    assert first.scan == 30 * scan.screen_images * scan.screen_steps + 8 * scan.images_per_class * scan.steps
    more = work(12, scan, moth, images, None)
    assert more.scan > 2 * first.scan and more.harden > first.harden and more.made == 2 * first.made
    twice = MothSettings(visits=2 * moth.visits, warmup_steps=2 * moth.warmup_steps)
    assert work(6, scan, twice, images, None).harden == pytest.approx(2 * first.harden)
    universal = work(6, NeuralCleanseSettings(mode="universal"), moth, images, None)
    assert universal.scan == 30 * scan.images_per_class * scan.steps
    assert work(6, NeuralCleanseSettings(mode="both"), moth, images, None).scan == first.scan + universal.scan


def test_images_have_to_be_made_too():
    scan, moth = NeuralCleanseSettings(), MothSettings()
    plain, composed = (work(6, scan, moth, images, None) for images in (DataSettings(), COMPOSED))
    assert plain.made == composed.made == 6 * (COMPOSED.train_per_class + COMPOSED.held_per_class)
    assert (plain.made_to_harden, composed.made_to_harden) == (0, 6 * 334)  # 2000 for the audit, rounded up by class


def test_the_blind_verdict_asks_for_what_its_rule_uses():
    """Stamps and clean networks, by the package's own rule and by the bounds, which ask for every stage."""
    scan, moth = NeuralCleanseSettings(), MothSettings()
    none, rule = (work(6, scan, moth, COMPOSED, evidence) for evidence in (None, BLIND))
    assert none.evidence == 0 < rule.evidence == work(6, scan, moth, DataSettings(), BLIND).evidence
    alone = work(6, scan, moth, COMPOSED, replace(BLIND, clean_networks=1)).evidence
    twice = work(6, scan, moth, COMPOSED, replace(BLIND, clean_networks=3)).evidence
    assert twice - rule.evidence == pytest.approx(rule.evidence - alone) and alone < rule.evidence
    assert work(6, scan, moth, COMPOSED, replace(BLIND, complete=True)).evidence == rule.evidence


def copies_of(evidence):
    """The copies that were relearned while its seconds were counted."""
    if (evidence.get("filter") or {}).get("unexplained"):
        return (0.25, 1.0)
    return (0.25,) if evidence["stage_seconds"].get("relearned", 0) > 1 else ()  # also where it stayed inaccurate


def test_counted_work_explains_the_times_that_were_recorded():
    """An image costs about as much in a scan as in the evidence of its model, whatever the machine did meanwhile.

    In the tenth set's seconds is a stage that is gone.
    """
    ratios = []
    for found in [one for name in set(model_sets.SETS) - {"tenth"} for one in set_records.read_set(name)]:
        evidence = EvidenceSettings(relearning=RetrainSettings(kept=copies_of(found["evidence"])))
        counted = work(found["classes"], NeuralCleanseSettings(), MothSettings(), COMPOSED, evidence)
        scan, more = found["before"]["seconds"] / counted.scan, found["evidence"]["seconds"] / counted.evidence
        ratios.append(more / scan)
    assert len(ratios) == 342 and min(ratios) > 0.4 and max(ratios) < 2.7
    assert sum(0.5 < ratio < 2 for ratio in ratios) > 0.9 * len(ratios)


def test_the_estimate_adds_up(monkeypatch):
    asked, small, large = [], (3, 32, 32), (1, 64, 32)

    def speed(architecture, classes, shape, device):
        asked.append((architecture, shape))
        return 0.5 if shape == small else 2.0

    monkeypatch.setattr(estimating, "seconds_per_image", speed)
    monkeypatch.setattr(estimating, "seconds_per_made_image", lambda sources, size: 0.25)
    works = {
        3: Work(scan=10, harden=7, evidence=5, made=8, made_to_harden=4),
        4: Work(scan=20, harden=1, evidence=0, made=0, made_to_harden=0),
    }
    found = estimate({("a", 3, small): 2, ("a", 4, small): 1, ("a", 3, large): 1}, works, None, COMPOSED)
    assert asked == [("a", small), ("a", large)] and found.models == 4
    assert found.making == 0.25 * 12 * 3
    assert found.least == 0.5 * (2 * 10 + 20) + 2 * 10 + 0.25 * 8 * 3
    assert found.most == 0.5 * (2 * 32 + 41) + 2 * 32 + found.making


def test_making_images_takes_time():
    assert 0 < seconds_per_made_image(("examples",), 32) < 10
    pytest.importorskip("trojai", reason="composing needs trojai: pip install --no-deps trojai==0.2.23")
    assert 0 < seconds_per_made_image(("composed", "folder"), 32) < 10


def test_the_line_says_what_the_estimate_assumes(plain):
    result = CliRunner().invoke(main, ["doctor", str(plain), "--workers", "1", "--data", "examples"])
    line = result.output.splitlines()[-1]
    assert line.startswith("Estimate for rescan with neural-cleanse and moth on this machine, 1 models: ")
    assert "for making images" in line and "every search runs to its last step" in line and result.exit_code == 0


def test_a_pass_takes_time(plain):
    import torch

    assert 0 < seconds_per_image("squeezenetv1_1", 3, (3, 32, 32), torch.device("cpu")) < 10


def test_the_tally_keeps_no_checkups():
    tally = Tally({"a": True})
    for number in range(50):
        tally.add(ModelCheck(model_id=f"m{number}", sha256="1" if number < 2 else str(number), problem="x"))
    health = tally.health({"m3": "why"}, (), None)
    assert health.broken == 50 and health.same_file == {"m1": "m0"}
    assert any(line.startswith("m3: its label is not used: why") for line in round_lines(health))
