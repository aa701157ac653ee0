"""``calibrate`` on a round whose scores are known, and ``scan`` and ``rescan`` with what it learned."""

import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fake_round import write_model, write_round
from fake_scanner import Entry, install
from forks import Forked

from trojai_moth.cli.main import main
from trojai_moth.core.records import Field, read_record, record
from trojai_moth.core.seeding import derive_seed
from trojai_moth.core.statistics import logistic
from trojai_moth.eval.calibration.learn import LearnSettings, ScoredModel, Source, learn
from trojai_moth.eval.calibration.scans import read_groups
from trojai_moth.eval.results import read_results
from trojai_moth.eval.summary import Summary
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.calibration import read_calibration
from trojai_moth.scanners.neural_cleanse import NeuralCleanse
from trojai_moth.scanners.result import Candidate, ScanResult

DATA = {"source": "examples", "train_per_class": 3, "held_per_class": 2}
SMALL = [part for name, value in DATA.items() for part in ("--set", f"data.{name}={value}")]
# Scores by model and by seed of the run; the odd ones are poisoned.
SCORES = [(-2.0, -1.8), (0.5, 0.7), (0.2, -0.2), (1.5, 1.0), (-1.0, -1.2), (-0.1, 0.1)]
IDS = [f"id-{number:08d}" for number in range(len(SCORES))]
POISONED = [1, 3, 5]
DEADLINE_S = 600


@record
class _Settings:
    plus: float = Field(default=0.0, description="added to every score")


class Told(Scanner):
    """Knows the score of every model and seed; ``trouble`` is what it does instead when its calls have come so far."""

    name, settings_type = "told", _Settings
    scores, trouble, calls = {}, {}, 0

    def scan(self, subject, samples, *, seed):
        Told.calls += 1
        if Told.calls in self.trouble:
            raise self.trouble[Told.calls]
        by_seed = self.scores[subject.model_id]
        seeds = [derive_seed(derive_seed(number, subject.model_id), "scan") for number in range(len(by_seed))]
        score = by_seed[seeds.index(seed)] + self.settings.plus
        found = Candidate(victim=0, target=1, size=3.0, success=1.0, held_success=None, held_images=0, converged=True)
        return ScanResult(
            scanner=self.name, outcome="flagged" if score > 0 else "clean", score=score, probability=logistic(score),
            reason=f"told {score}", evidence=(found,),
        )  # fmt: skip


@pytest.fixture(scope="module")
def round_dir(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("calibrate") / "round", models=6, poisoned=POISONED, per_class=2)


@contextmanager
def told(folder):
    """Run a command in this folder with the scanner that is told; its process settings are put back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        install(patch, Entry(Told, name="told"))
        patch.setattr(Told, "scores", dict(zip(IDS, SCORES, strict=True)))
        patch.setattr(Told, "trouble", {})
        patch.setattr(Told, "calls", 0)
        yield lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_flush_denormal(False)


def learn_with(call, root, *more):
    return call("calibrate", root, "--out", "learned.json", "--scanner", "told", "--seeds", 2, *SMALL, *more)


@pytest.fixture
def call(tmp_path):
    with told(tmp_path) as call:
        yield call


@pytest.fixture
def learn_from(call):
    return lambda root, *more: learn_with(call, root, *more)


@pytest.fixture(scope="module")
def taught(round_dir, tmp_path_factory):
    """What the command says on the round, and the folder that it leaves, never changed."""
    folder = tmp_path_factory.mktemp("taught")
    with told(folder) as call:
        return learn_with(call, round_dir), folder


@pytest.fixture
def learned(taught, call, tmp_path):
    """The learned file and its work, in the test's folder."""
    shutil.copytree(taught[1], tmp_path, dirs_exist_ok=True)
    return read_calibration(Path("learned.json"))


@pytest.fixture
def refused(call):
    def refused(*arguments):
        result = call(*arguments)
        assert result.exit_code == 2 and "Traceback" not in result.output, result.output
        return result.stderr.strip().splitlines()[-1]

    return refused


def expected(root, settings=None, groups=None):
    """What the scores that the scanner was told give, without any scanning."""
    learned = read_calibration(Path("learned.json"))
    hashes = {model.model_id: model.sha256 for model in learned.provenance.models}
    models = [
        ScoredModel(model_id, hashes[model_id], (groups or {}).get(model_id, model_id), number in POISONED, scores,
                    tuple(map(logistic, scores)), tuple(score > 0 for score in scores))
        for number, (model_id, scores) in enumerate(zip(IDS, SCORES, strict=True))
    ]  # fmt: skip
    source = Source(root.name, (0, 1), "told", {"plus": 0.0}, DataSettings(**DATA))
    return learn(models, [], source, settings or LearnSettings())


def test_the_file_holds_what_the_scores_give(taught, learned, learn_from, round_dir):
    result, _ = taught
    assert result.exit_code == 0, result.output
    assert read_calibration(Path("learned.json")) == expected(round_dir)
    for words in ("scanner as it is", "learned, out of fold", "same verdict for all seeds", "3 clean and 3 poisoned"):
        assert words in result.stdout
    again = learn_from(round_dir, "--method", "monotone", "--max-false-positive-rate", 0.3, "--work", "learned.work")
    assert again.exit_code == 0 and Told.calls == 0  # nothing was scanned anew
    settings = LearnSettings(method="monotone", max_false_positive_rate=0.3)
    assert read_calibration(Path("learned.json")) == expected(round_dir, settings)


def test_twins_are_those_of_the_metadata(learn_from, round_dir, tmp_path):
    root = shutil.copytree(round_dir, tmp_path / "twins")
    lines = (root / "METADATA.csv").read_text().splitlines()
    groups = ["twin_group", "0", "0", "1", "1", "", "2"]
    (root / "METADATA.csv").write_text("".join(f"{a},{b}\n" for a, b in zip(lines, groups, strict=True)))
    named = {IDS[0]: "twins 0", IDS[1]: "twins 0", IDS[2]: "twins 1", IDS[3]: "twins 1", IDS[5]: "twins 2"}
    assert read_groups(root) == named and read_groups(round_dir) == {} and read_groups(tmp_path) == {}
    assert learn_from(root).exit_code == 0
    learned = read_calibration(Path("learned.json"))
    assert learned == expected(root, groups=named)
    assert len({model.fold for model in learned.provenance.models if model.group == "twins 1"}) == 1


def test_what_could_not_be_judged_is_listed_and_counts_as_nothing(learn_from, round_dir, tmp_path):
    root = shutil.copytree(round_dir, tmp_path / "round")
    for number, label in ((6, "0\n"), (7, "1\n"), (8, "")):
        added = write_model(root / f"id-{number:08d}", seed=number, per_class=2)
        (added / "ground_truth.csv").write_text(label)
        Told.scores[added.name] = (0.3, 0.4)
    (root / IDS[0] / "model.pt").write_bytes(b"nothing")
    Told.trouble = {8: KeyError("gone")}  # seven are scanned with the first seed, so this is the second seed's first
    result = learn_from(root)
    assert result.exit_code == 0, result.output
    made = read_calibration(Path("learned.json")).provenance
    reasons = {model.model_id: model.reason for model in made.left_out}
    assert list(reasons) == [IDS[0], IDS[1], "id-00000008"]
    assert reasons[IDS[0]].startswith("seed 0: load: ") and reasons[IDS[1]].startswith("seed 1: KeyError")
    assert reasons["id-00000008"] == "it has no label"
    assert [model.model_id for model in made.models] == [*IDS[2:], "id-00000006", "id-00000007"]
    assert (made.clean, made.poisoned) == (3, 3)
    for model_id, reason in reasons.items():
        assert str(tmp_path) not in reason and f"left out: {model_id}: {reason}\n" in result.stdout


def test_a_file_that_occurs_twice_is_learned_from_once(learn_from, round_dir, tmp_path):
    root = shutil.copytree(round_dir, tmp_path / "round")
    shutil.copytree(root / IDS[1], root / "id-00000007")
    Told.scores["id-00000007"] = SCORES[1]
    assert learn_from(root).exit_code == 0
    (left,) = read_calibration(Path("learned.json")).provenance.left_out
    assert (left.model_id, left.reason) == ("id-00000007", f"its file is the same as that of {IDS[1]}")


def test_an_interrupted_calibration_goes_on_where_it_stopped(taught, learn_from, round_dir):
    whole = (taught[1] / "learned.json").read_bytes()
    Told.trouble, Told.calls = {9: KeyboardInterrupt()}, 0
    result = learn_from(round_dir, "--work", "other")
    assert result.exit_code == 2 and "interrupted; other is usable" in result.stderr
    assert not Path("learned.json").exists()
    Told.trouble, Told.calls = {}, 0
    assert learn_from(round_dir, "--work", "other").exit_code == 0
    assert Told.calls == 4 and Path("learned.json").read_bytes() == whole


def test_a_killed_calibration_goes_on_and_ends_as_if_nothing_had_happened(call, monkeypatch, round_dir, tmp_path):
    """The scanner that ships, in a process of its own that is killed when it has scanned one model."""
    options = [part for text in ("scanner.steps=2", "scanner.screen_steps=2") for part in ("--set", text)]
    command = ["calibrate", str(round_dir), "--seeds", "1", *SMALL, *options]
    install(monkeypatch, Entry(NeuralCleanse, name="neural-cleanse"))
    process = Forked("trojai_moth", *command, "--out", "killed.json", cwd=tmp_path)
    first = tmp_path / "killed.work" / "seed-0" / "journal" / f"{IDS[0]}.before.json"
    end = time.monotonic() + DEADLINE_S
    while not first.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed.json").exists()
    kept = first.stat().st_mtime_ns
    for name in ("killed.json", "whole.json"):
        assert call(*command, "--out", name).exit_code == 0
    assert first.stat().st_mtime_ns == kept
    killed, whole = (read_calibration(tmp_path / name).provenance for name in ("killed.json", "whole.json"))
    assert killed.split_sha256 == whole.split_sha256 and len(killed.models) == len(IDS) and not killed.left_out
    for one, other in zip(killed.models, whole.models, strict=True):  # two processes may differ by rounding
        assert one.model_id == other.model_id and one.scores == pytest.approx(other.scores, abs=1e-3)


def test_scan_says_the_learned_verdict(call, learned, refused, round_dir):
    use = ["--scanner", "told", *SMALL, "--calibration", "learned.json"]
    line = refused("scan", round_dir / IDS[1], *use)
    assert "learned from 1 of these 1 models" in line and "--allow-fitted" in line
    for number in (1, 4):
        result = call("scan", round_dir / IDS[number], *use, "--allow-fitted", "--json", "verdict.json")
        made, raw = read_record(ScanResult, Path("verdict.json")), SCORES[number][0]
        assert made.flagged == (raw > learned.threshold) and made.score == raw - learned.threshold
        assert made.probability == learned.curve.probability(raw) and made.calibrated.fitted_on
        assert result.exit_code == int(made.flagged) and "learned from this very model" in result.stdout
        assert f"probability {made.probability:.2f}, as learned" in result.stdout
    assert "scanner.plus 0.0, this run has 1" in refused("scan", round_dir / IDS[1], *use, "--set", "scanner.plus=1")
    assert "data.held_per_class 2, this run has 3" in refused(
        "scan", round_dir / IDS[1], *use, "--set", "data.held_per_class=3"
    )


def other_round(root, fitted):
    """An unseen model and some that were learned from, all called poisoned, so that clean-only hardens none."""
    write_model(root / IDS[0], seed=99, per_class=2)
    for model in fitted:
        shutil.copytree(model, root / model.name)
    for folder in root.iterdir():
        (folder / "ground_truth.csv").write_text("1\n")
    return root


def test_rescan_refuses_fitted_models_or_says_how_many_they_are(call, learned, refused, round_dir, tmp_path):
    root = other_round(tmp_path / "other", [round_dir / IDS[1], round_dir / IDS[2]])
    plain = ["rescan", root, "--out", "run", "--scanner", "told", *SMALL, "--harden", "clean-only"]
    use = [*plain, "--calibration", "learned.json"]
    assert "learned from 2 of these 3 models" in refused(*use)
    assert not Path("run").exists()
    result = call(*use, "--allow-fitted")
    rows = read_results(Path("run/results.csv"))
    assert rows["fitted_on"].to_list() == [False, True, True]
    raw = [SCORES[number][0] for number in range(3)]
    assert rows["score_before"].to_list() == pytest.approx([score - learned.threshold for score in raw])
    assert rows["probability"].to_list() == pytest.approx([learned.curve.probability(score) for score in raw])
    assert rows["flagged_before"].to_list() == [score > learned.threshold for score in raw]
    assert read_record(Summary, Path("run/summary.json")).fitted_on == 2
    for text in (result.stdout, Path("run/report.md").read_text()):
        assert "learned from 2 of these 3 models" in " ".join(text.split())
    assert "settings.calibration" in refused(*plain)


def test_a_run_without_fitted_models_says_nothing_of_them(call, learned, tmp_path):
    root = other_round(tmp_path / "other", [])
    result = call("rescan", root, "--out", "run", "--scanner", "told", *SMALL, "--calibration", "learned.json")
    assert result.exit_code == 0, result.output
    assert read_record(Summary, Path("run/summary.json")).fitted_on == 0
    assert "learned from" not in result.stdout + Path("run/report.md").read_text()


def test_mistakes_are_one_line(taught, refused, round_dir, tmp_path):
    start = ["calibrate", round_dir, "--out", "l.json", "--scanner"]
    assert "nonsense" in refused(*start, "nonsense")
    assert "max_false_positive_rate" in refused(*start, "told", "--max-false-positive-rate", 1.5)
    assert "scanner told: nonsense" in refused(*start, "told", "--set", "scanner.nonsense=1")
    alone = shutil.copytree(round_dir, tmp_path / "alone", ignore=lambda _, names: [n for n in names if n in IDS[4:]])
    (alone / "METADATA.csv").unlink()
    (alone / IDS[3] / "ground_truth.csv").unlink()
    assert "2 clean and 1 poisoned" in refused("calibrate", alone, "--out", "l.json", "--scanner", "told")
    assert not Path("l.json").exists() and not Path("l.work").exists()
    shutil.copytree(taught[1], tmp_path, dirs_exist_ok=True)
    line = refused("calibrate", round_dir, "--out", "learned.json", "--scanner", "told", "--seeds", 2)
    assert "settings.data" in line and "another --work" in line
