"""The bare virtual environment that a folder is run in, and the real entry point in it."""

import os
import subprocess
import zipfile

import pytest
from click.testing import CliRunner

from trojai_moth.cli.main import main
from trojai_moth.core.errors import MothError, SettingsError
from trojai_moth.submission.bare import bare_environment
from trojai_moth.submission.folder import build_wheel, pinned


def small_wheel(folder, python=">=3.10"):
    """A wheel of a package called trojai_moth that says it is the wheel's."""
    made = folder / "wheels" / "trojai_moth-0.1.0-py3-none-any.whl"
    made.parent.mkdir(parents=True, exist_ok=True)
    about = "trojai_moth-0.1.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("trojai_moth/__init__.py", "SAYS = 'the wheel'\n")
        archive.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: trojai-moth\nVersion: 0.1.0\nRequires-Python: {python}\n",
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return made


def says(python, code):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=False, env=environment, cwd="/"
    )
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def test_it_holds_what_is_required_and_the_wheel_and_no_more(tmp_path):
    small_wheel(tmp_path)
    click = next(line for line in pinned() if line.startswith("click=="))
    (tmp_path / "requirements.txt").write_text(f"{click}\n")
    python, notes = bare_environment(tmp_path, tmp_path / "bare")
    assert notes == []
    assert says(python, "import click, trojai_moth; print(trojai_moth.SAYS)") == "the wheel"
    for absent in ("numpy", "pytest", "pip", "trojai_moth.cli.main"):
        assert "No module named" in says(python, f"import {absent}"), absent


def test_before_the_wheel_is_installed_there_is_no_package(tmp_path, monkeypatch):
    small_wheel(tmp_path)
    (tmp_path / "requirements.txt").write_text("")
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
        python, _ = bare_environment(tmp_path, tmp_path / "bare")
    assert says(python, "import trojai_moth") == "ModuleNotFoundError: No module named 'trojai_moth'"


def test_what_is_other_than_required_is_said(tmp_path):
    small_wheel(tmp_path)
    (tmp_path / "requirements.txt").write_text("click==0.0.1\nno-such-package==1\n")
    _, notes = bare_environment(tmp_path, tmp_path / "bare")
    assert "stood in for 0.0.1" in notes[0] and notes[1] == "no-such-package 1 is required and not installed here"


@pytest.mark.parametrize("count", [0, 2])
def test_a_folder_holds_one_wheel(tmp_path, count):
    (tmp_path / "wheels").mkdir()
    for number in range(count):
        (tmp_path / "wheels" / f"trojai_moth-0.{number}-py3-none-any.whl").write_text("")
    with pytest.raises(SettingsError, match=f"holds {count} wheels"):
        bare_environment(tmp_path, tmp_path / "bare")


def test_without_requirements_nothing_can_be_linked(tmp_path):
    small_wheel(tmp_path)
    with pytest.raises(SettingsError, match="is missing; write the folder anew"):
        bare_environment(tmp_path, tmp_path / "bare")


def test_a_wheel_for_another_python_is_refused_by_pip(tmp_path):
    small_wheel(tmp_path, python=">=99")
    (tmp_path / "requirements.txt").write_text("")
    with pytest.raises(MothError, match="pip cannot install it"):
        bare_environment(tmp_path, tmp_path / "bare")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A submission with the package's own wheel."""
    folder = tmp_path_factory.mktemp("detector")
    words = ["container", "detect", str(folder / "out"), "--commit", "abc", "--wheel", str(build_wheel(folder))]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 0, answer.output
    return folder / "out"


def test_the_package_from_its_wheel_gives_broken_and_hostile_models_a_half(detector):
    """All that an image holds and nothing of this checkout: entry point, worker and torch, as processes."""
    answer = CliRunner().invoke(main, ["submission", "check", str(detector)])
    assert answer.exit_code == 0, answer.output
    assert "in a bare virtual environment" in answer.output and "run-hostile-model" in answer.output
