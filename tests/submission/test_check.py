"""``submission check`` against folders whose entry points are a few lines each; nothing here loads torch."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from trojai_moth.cli.main import main
from trojai_moth.submission import replay
from trojai_moth.submission.replay import CALLS, Isolation, Player, Replay, isolation, preliminary_only, result_findings
from trojai_moth.submission.rootfs import STEPS
from trojai_moth.submission.rules import RULES

from .harness_schema import GOOD, VALUES, folder

DOCS = Path(__file__).resolve().parents[2] / "docs" / "submission.md"
PARSE = "import sys\nfrom trojai_moth.submission.dialects import parse\nr = parse(sys.argv[1:])\n"
PARSE += "text = open(r.model, 'rb').read()\nbroken = b'no model' in text or b'system' in text\nprint('refused')\n"
DETECTS = PARSE + "open(r.result, 'w').write('0.5\\n' if broken else '0.75\\n')\n"
MITIGATES = (
    PARSE
    + """
import json
if broken:
    sys.exit(0)
if r.action == 'mitigate':
    (r.output / r.output_name).write_text('mitigated')
else:
    (r.output / 'results.json').write_text(json.dumps({'x.png': [1.0, 2.0]}))
"""
)


@pytest.fixture
def model(tmp_path):
    made = tmp_path / "id-00000007"
    (made / "clean-example-data").mkdir(parents=True)
    (made / "poisoned-example-data").mkdir()
    (made / "model.pt").write_bytes(b"a model")
    (made / "ground_truth.csv").write_text("1")
    return made


@pytest.fixture
def submission(tmp_path):
    """A folder with this entry point."""

    def submission(entry, values=VALUES, schema=GOOD):
        (tmp_path / "submission").mkdir()
        made = folder(tmp_path / "submission", schema, values)
        (made / "entrypoint.py").write_text(entry)
        return made

    return submission


def detector(submission, entry):
    """VALUES with a scanner, by which a detector is known."""
    schema = {**GOOD, "properties": {**GOOD["properties"], "scanner": {"type": "string", "enum": ["s"]}}}
    return submission(entry, {**VALUES, "scanner": "s"}, schema)


def check(target, *words):
    """With this Python, since these folders hold no wheel; what a bare environment is, test_bare tells."""
    command = ["submission", "check", str(target), "--python", sys.executable, *map(str, words)]
    answer = CliRunner().invoke(main, command)
    return answer.exit_code, answer.output


def test_a_good_detector_passes_in_every_dialect(submission, model, tmp_path):
    code, output = check(detector(submission, DETECTS), "--model", model, "--json", tmp_path / "out.json")
    assert code == 0, output
    assert "Nothing found." in output and "Not proved: that the recipe builds" in output
    made = json.loads((tmp_path / "out.json").read_text())
    ran = {call["rule"]: call["result"] for call in made["calls"]}
    assert set(ran) == set(CALLS) - {"run-mitigate", "run-template"} and made["ended"] is True
    assert {ran.pop("run-broken-model"), ran.pop("run-hostile-model")} == {"0.5"} and set(ran.values()) == {"0.75"}


def test_a_good_mitigation_passes_with_both_names_of_its_data(submission, model, tmp_path):
    made = submission(MITIGATES)
    code, output = check(made, "--model", model)
    assert code == 0, output
    assert "run-mitigate" in output and "run-template" in output and "1 images, 2 logits" in output


def test_without_a_model_only_a_broken_one_is_run_and_that_is_said(submission):
    code, output = check(detector(submission, DETECTS))
    assert code == 0 and "Not proved: that a model is examined" in output and "run-harness" not in output


SAYS_FAILED = "print('trojai-moth: failed: what was found until then stands')"
SAYS_CRASHED = "print('trojai-moth: worker: ended badly, by signal 6')"


@pytest.mark.parametrize(
    ("says", "found_in"),
    [
        (SAYS_FAILED, {"run-round-4", "run-2022", "run-infer", "run-harness", "run-bare"}),
        (SAYS_CRASHED, set(CALLS) - {"run-mitigate", "run-template"}),
        ("print('x' + 9 * chr(10))", set()),
    ],
)
def test_work_that_ends_badly_is_found_whatever_the_exit_code(submission, model, tmp_path, says, found_in):
    """That it failed is right of a broken model; further lines of the log do not hide it."""
    check(detector(submission, DETECTS + f"{says}\nprint(5 * 'more\\n')"), "--model", model, "--json", tmp_path / "o")
    found = json.loads((tmp_path / "o").read_text())["findings"]
    assert {finding["rule"] for finding in found if "ended badly" in finding["what"]} == found_in


@pytest.mark.parametrize(("text", "code"), [("0.5", 1), ("0.50", 1), ("0.51", 0)])
def test_calls_that_all_leave_the_preliminary_answer_are_found(submission, model, text, code):
    got, output = check(detector(submission, DETECTS.replace("0.75", text)), "--model", model)
    assert got == code and ("all 5 calls with the model left the preliminary 0.5" in output) is bool(code)


def test_one_answer_among_preliminary_ones_is_an_answer():
    calls = [Replay(rule=rule, seconds=1, result=text, findings=()) for rule, text in
             (("run-bare", "0.5"), ("run-infer", "0.6"), ("run-broken-model", "0.5"))]  # fmt: skip
    assert preliminary_only(calls) == [] and preliminary_only(calls[2:]) == []
    assert [finding.rule for finding in preliminary_only(calls[::2])] == ["answers"]


def test_a_check_that_is_broken_off_leaves_what_it_had(submission, tmp_path, monkeypatch):
    def broken_off(self, kind):
        yield Replay(rule="run-broken-model", seconds=1.0, result="0.5", findings=())
        raise KeyboardInterrupt

    monkeypatch.setattr(Player, "play", broken_off)
    assert check(detector(submission, DETECTS), "--json", tmp_path / "out.json")[0] != 0
    made = json.loads((tmp_path / "out.json").read_text())
    assert [call["rule"] for call in made["calls"]] == ["run-broken-model"] and made["ended"] is False


def test_no_run_checks_the_files_alone(submission):
    made = detector(submission, "raise SystemExit(9)")
    assert check(made, "--no-run")[0] == 0
    (made / "metaparameters.json").unlink()
    code, output = check(made, "--no-run")
    assert code == 1 and "FOUND files: metaparameters.json is missing" in output


def test_the_name_of_the_image_is_checked_on_request(submission):
    code, output = check(detector(submission, DETECTS), "--no-run", "--name", "mine.simg")
    assert code == 1 and "FOUND file-name" in output and "LEADERBOARD_SPLIT_NAME.simg" in output


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("raise ValueError('x')", "exit code 1"),
        ("pass", "not one number on one line"),
        (DETECTS.replace("0.5\\n", "nan\\n"), "not a number in (0, 1)"),
        (DETECTS.replace("0.5\\n", "0.9\\n"), "a broken model gave 0.9"),
        (DETECTS + "(r.scratch / 'left').write_text('x')", "something was left in scratch"),
        (DETECTS.replace("print('refused')", ""), "the log does not say why"),
        (DETECTS + "(r.model.parent / 'it-ran').write_text('x')", "the model file's program was run"),
    ],
)
def test_what_a_call_does_wrong_is_found(submission, entry, words):
    code, output = check(detector(submission, entry))
    assert code == 1 and words in output


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("", "mitigated.pt was not written"),
        (MITIGATES.replace("[1.0, 2.0]", "[1.0, 2.0], 'y.png': [1.0]"), "rows of [1, 2] logits"),
        (MITIGATES.replace("json.dumps({'x.png': [1.0, 2.0]})", "'[]'"), "rows of [] logits"),
        (MITIGATES.replace("results.json", "result.json"), "results.json was not written"),
    ],
)
def test_what_a_mitigation_does_wrong_is_found(submission, model, entry, words):
    code, output = check(submission(entry), "--model", model)
    assert code == 1 and words in output


@pytest.mark.parametrize("text", ["", "0.5 0.6\n", "0.5\n0.6\n", "x\n", "0\n", "1\n", "nan\n", "inf\n"])
def test_other_results_than_one_number_between_0_and_1_are_found(text):
    assert result_findings("run-bare", text) and not result_findings("run-bare", "0.5\n")


def test_a_call_that_does_not_end_is_found(submission, tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "GRACE_S", 0.5)
    (tmp_path / "calls").mkdir()
    made = detector(submission, "import time; time.sleep(60)")
    started = time.monotonic()
    call, _ = Player(made, None, tmp_path / "calls", 1.0, Isolation((), {}, "")).play("detect")
    assert "still ran after" in call.findings[0].what and time.monotonic() - started < 30


def test_ground_truth_is_not_copied_and_there_is_no_home(submission, model, tmp_path):
    entry = DETECTS + "import os\nprint(sorted(os.listdir(r.model.parent)), 'HOME' in os.environ)\nraise SystemExit(4)"
    (tmp_path / "calls").mkdir()
    player = Player(detector(submission, entry), model, tmp_path / "calls", 60.0, Isolation((), {}, ""))
    call = next(one for one in player.play("detect") if one.rule == "run-bare")
    assert "['clean-example-data', 'model.pt', 'result.txt'] False" in call.findings[0].what


def test_calls_can_not_reach_the_network():
    isolated = isolation()
    code = "import urllib.request as u\ntry: u.urlopen('http://192.0.2.1', timeout=5)\nexcept OSError: print('shut')"
    environment = {**os.environ, **isolated.environment}
    done = subprocess.run(
        [*isolated.prefix, sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "shut\n"


def test_where_no_namespace_is_allowed_proxies_stand_in_and_it_is_said(monkeypatch):
    monkeypatch.setattr(replay.shutil, "which", lambda name: None)
    assert isolation().prefix == () and "unshare cannot be used here" in isolation().words


def test_an_image_needs_apptainer(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "round4_sts_x.simg").write_text("")
    code, output = check(tmp_path / "round4_sts_x.simg")
    assert code == 2 and "needs Apptainer" in output


def test_an_image_is_read_and_run_through_apptainer(tmp_path, submission, monkeypatch):
    """A stand-in that runs the folder instead of an image, so that the words it is given are proved."""
    made = detector(submission, DETECTS)
    fake = tmp_path / "bin" / "apptainer"
    fake.parent.mkdir()
    fake.write_text(
        f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
if words[0] == 'exec':
    os.execvp(words[2], [*words[2:-1], {str(made)!r} + words[-1]])
assert words[:2] == ['run', '--contain'] and words[2] == '--bind' and words[4].endswith('.simg'), words
os.execv(sys.executable, [sys.executable, {str(made / "entrypoint.py")!r}, *words[5:]])
"""
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    image = tmp_path / "round4_sts_x.simg"
    image.write_text("")
    code, output = check(image)
    assert code == 0, output
    assert "in the image" in output and "run-broken-model" in output


def test_every_rule_has_a_row_in_the_documentation_and_every_test_named_there_exists():
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| `([\w/.]+)::(\w+)` \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    named = {rule for rule, _, _ in rows}
    assert named >= RULES.keys() | CALLS.keys() | STEPS.keys()
    for rule, file, test in rows:
        text = (DOCS.parents[1] / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", text, re.MULTILINE), f"{rule}: {file} has no {test}"
