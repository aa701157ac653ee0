"""A submission folder as it is written, checked, and run with a real small model."""

import json
import re
import subprocess
import sys
import zipfile

import pytest
from click.testing import CliRunner
from fake_round import write_round

from trojai_moth.cli.main import main
from trojai_moth.submission import folder as folder_module
from trojai_moth.submission.folder import pinned, source_tree
from trojai_moth.submission.rules import check_folder

TINY = {
    "data_train_per_class": 4, "data_held_per_class": 3, "scanner_steps": 2, "scanner_screen_steps": 2,
    "scanner_screen_keep": 1, "scanner_success_bound": 0.01, "scanner_precision": "fp32", "verdict": "scanner",
}  # fmt: skip
SET = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]


def container(*words):
    answer = CliRunner().invoke(main, ["container", *map(str, words)])
    return answer.exit_code, answer.output


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A stand-in for the package's wheel, whose building test_layout proves."""
    path = tmp_path_factory.mktemp("wheel") / "trojai_moth-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trojai_moth/__init__.py", "")
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory, wheel):
    out = tmp_path_factory.mktemp("detector") / "submission"
    code, output = container("detect", out, "--wheel", wheel, "--commit", "abc123", *SET)
    assert code == 0, output
    return out


def test_the_folder_is_complete(detector):
    assert sorted(path.name for path in detector.iterdir()) == [
        "README.md", "detect.def", "entrypoint.py", "learned_parameters", "metaparameters.json",
        "metaparameters_schema.json", "requirements.txt", "wheels",
    ]  # fmt: skip
    assert check_folder(detector) == []
    values = json.loads((detector / "metaparameters.json").read_text())
    assert values["scanner_steps"] == 2 and values["hardener"] == "moth"
    made = json.loads((detector / "metaparameters_schema.json").read_text())
    assert made["commit_id"] == "abc123" and made["properties"]["scanner_steps"]["default"] == 2
    readme = (detector / "README.md").read_text()
    assert "apptainer build" in readme and "$" not in readme.replace("`$", "")


def test_the_recipe_copies_what_the_harness_looks_for(detector):
    text = (detector / "detect.def").read_text()
    for name in ("entrypoint.py", "metaparameters.json", "metaparameters_schema.json", "learned_parameters"):
        assert f"{name} /{name}\n" in text and (detector / name).exists()
    python = f"python:{sys.version_info.major}.{sys.version_info.minor}-"
    assert text.startswith(f"Bootstrap: docker\nFrom: {python}") and 'exec python3 /entrypoint.py "$@"' in text
    assert all(section in text for section in ("%files", "%post", "%runscript", "%test", "%environment"))


def test_the_recipes_shell_is_valid(detector):
    sections = re.split(r"^%(\w+)$", (detector / "detect.def").read_text(), flags=re.MULTILINE)
    for name, body in zip(sections[1::2], sections[2::2], strict=True):
        if name in ("post", "runscript", "test", "environment"):
            subprocess.run(["sh", "-n"], input=body, text=True, check=True)


def test_versions_are_pinned_with_all_that_they_need():
    lines = pinned()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines)
    assert {"torch", "jsonschema", "attrs", "click"} <= {line.partition("==")[0] for line in lines}
    assert not any(line.startswith(("pytest=", "trojai-moth=")) for line in lines)


def test_a_mitigation_folder_has_its_own_commands(tmp_path, wheel):
    code, output = container("mitigate", tmp_path / "out", "--wheel", wheel, "--commit", "abc")
    assert code == 0, output
    values = json.loads((tmp_path / "out" / "metaparameters.json").read_text())
    assert "scanner" not in values and values["hardener_visits"] > 0
    assert "--model_output_name mitigated.pt" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "scanner_steps=0"], "metaparameter scanner_steps"),
        (["--set", "nonsense=1"], "nonsense"),
        (["--rule", "{file}"], "a mitigation gives no probabilities"),
    ],
)
def test_wrong_words_are_one_line(tmp_path, wheel, words, says):
    (tmp_path / "file.json").write_text("{}")
    words = [word.replace("{file}", str(tmp_path / "file.json")) for word in words]
    kind = "mitigate" if "--rule" in words else "detect"
    code, output = container(kind, tmp_path / "out", "--wheel", wheel, "--commit", "abc", *words)
    assert code == 2 and says in output and not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path, wheel):
    (tmp_path / "mine").write_text("")
    code, output = container("detect", tmp_path, "--wheel", wheel, "--commit", "abc")
    assert code == 2 and "not empty" in output


def test_without_a_checkout_commit_and_wheel_must_be_given(tmp_path, monkeypatch):
    assert (source_tree() / "trojai_moth").is_dir()
    monkeypatch.setattr(folder_module, "source_tree", lambda: None)
    assert "--commit" in container("detect", tmp_path / "out")[1]
    code, output = container("detect", tmp_path / "out", "--commit", "abc")
    assert code == 2 and "give its wheel" in output and not (tmp_path / "out").exists()


def test_a_real_model_passes_the_doctor_and_has_the_probability_of_rescan(detector, tmp_path):
    """The only test here that runs a network, in processes of its own; what rescan says is computed by it alone."""
    root = write_round(tmp_path / "round", models=1, per_class=2)
    model = root / "id-00000000"
    words = ["--model_filepath", str(model / "model.pt"), "--result_filepath", str(tmp_path / "result.txt")]
    words += ["--metaparameters_filepath", str(detector / "metaparameters.json"), "--scratch_dirpath", str(tmp_path)]
    words += ["--examples_dirpath", str(model / "clean_example_data"), "--device", "cpu"]
    subprocess.run([sys.executable, str(detector / "entrypoint.py"), *words], check=True, cwd=tmp_path)
    settings = [word for name, value in TINY.items() if name != "verdict" for word in ("--set", _dotted(name, value))]
    run = ["rescan", str(root), "--out", str(tmp_path / "run"), "--verdict", "naive", "--device", "cpu", *settings]
    answer = CliRunner().invoke(main, [*run, "--data", "examples"])
    rows = (tmp_path / "run" / "results.csv").read_text().splitlines()
    expected = dict(zip(rows[0].split(","), rows[1].split(","), strict=False))["probability_before"]
    assert float((tmp_path / "result.txt").read_text()) == pytest.approx(float(expected), abs=1e-6), answer.output


def _dotted(name, value):
    group, _, field = name.partition("_")
    return f"{group}.{field}={value}"
