"""A recipe's steps and calls in a root file system of a few programs; nothing here loads torch."""

import json
import subprocess

import pytest
from click.testing import CliRunner

from trojai_moth.cli.main import main
from trojai_moth.core.errors import MothError, SettingsError
from trojai_moth.submission import rootfs
from trojai_moth.submission.folder import find_recipe, read_recipe
from trojai_moth.submission.rootfs import STEPS

from .harness_schema import GOOD, VALUES, folder
from .small_root import ENTRY, RECIPE, write_root

WORDS = ("unshare", "--mount", "--net", "--pid", "--map-root-user", "true")
namespaces = pytest.mark.skipif(
    subprocess.run(WORDS, capture_output=True, check=False).returncode != 0, reason="needs namespaces"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture
def submission(tmp_path):
    """A detector's folder with this entry point and recipe."""

    def submission(entry=ENTRY, recipe=RECIPE):
        (tmp_path / "submission").mkdir()
        schema = {**GOOD, "properties": {**GOOD["properties"], "scanner": {"type": "string", "enum": ["s"]}}}
        made = folder(tmp_path / "submission", schema, {**VALUES, "scanner": "s"})
        (made / "entrypoint.py").write_text(entry)
        (made / "requirements.txt").write_text("")
        (made / "detect.def").write_text(recipe)
        return made

    return submission


def check(target, base, *words):
    answer = CliRunner().invoke(main, ["submission", "check", str(target), "--rootfs", str(base), *map(str, words)])
    return answer.exit_code, answer.output


@namespaces
def test_the_recipe_is_carried_out_and_the_calls_run_in_it(submission, base, tmp_path):
    code, output = check(submission(), base, "--json", tmp_path / "out.json")
    assert code == 0, output
    assert "trojai-moth stand-in" in output and "small stood in for that image" in output
    calls = json.loads((tmp_path / "out.json").read_text())["calls"]
    assert [call["rule"] for call in calls] == [*STEPS, "run-broken-model", "run-hostile-model"]
    assert not (base / "installed").exists(), "the base itself was changed"


@namespaces
@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("entrypoint.py /", "absent.py /", "recipe-files: absent.py is not in the folder"),
        ("chmod -R", "no-such-program", "recipe-post: exit code 127"),
        ("test -d /learned", "test -d /other", "recipe-test: exit code 1"),
    ],
)
def test_a_step_that_fails_is_found_and_nothing_after_it_is_tried(submission, base, old, new, finding):
    code, output = check(submission(recipe=RECIPE.replace(old, new)), base)
    assert code == 1 and f"FOUND {finding}" in output and "run-broken-model" not in output


@namespaces
def test_the_image_can_not_be_written_to_but_tmp_can(submission, base):
    assert check(submission(f"cd tmp && echo x > free && cd ..\n{ENTRY}"), base)[0] == 0


@namespaces
def test_what_is_written_to_the_image_is_found(submission, base):
    code, output = check(submission(f"echo x > /written || exit 7\n{ENTRY}"), base)
    assert code == 1 and "run-broken-model: exit code" in output and "/written" in output


@namespaces
def test_calls_see_the_recipes_environment_and_no_network_and_not_the_host(submission, base):
    look = """
test "$WORD" = said || exit 7
test "$(cat /proc/net/route)" = "" || exit 8
test ! -e /etc/passwd || exit 9
"""
    code, output = check(submission(look + ENTRY), base)
    assert code == 0, output


@namespaces
def test_a_base_without_python_is_refused_with_the_mend(submission, base, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run(["cp", "-a", str(base), str(bare)], check=True)
    (bare / "usr/local/bin/python3").unlink()
    code, output = check(submission(), bare)
    assert code == 2 and "no Python can be set up in it" in output and "debootstrap" in output


def test_without_a_wheelhouse_the_recipe_is_not_carried_out(submission, base):
    code, output = check(submission(recipe=RECIPE.replace("--no-index ", "")), base)
    assert code == 2 and "make the folder with container --wheelhouse" in output


def test_where_namespaces_are_not_allowed_it_is_said(monkeypatch, base):
    monkeypatch.setattr(rootfs.subprocess, "run", lambda *words, **options: subprocess.CompletedProcess(words, 1))
    with pytest.raises(MothError, match="not allowed here"):
        rootfs.enter(base, "ro", base)


def test_a_recipe_is_read_by_its_sections(tmp_path):
    (tmp_path / "x.def").write_text(RECIPE)
    recipe = read_recipe(find_recipe(tmp_path))
    assert recipe.header == {"Bootstrap": "docker", "From": "python:3.11-slim-bookworm"}
    assert recipe.files[0] == ("entrypoint.py", "/entrypoint.py") and len(recipe.files) == 5
    assert recipe.sections["runscript"].strip() == 'exec python3 /entrypoint.py "$@"'


@pytest.mark.parametrize("section", ["post", "runscript", "files"])
def test_a_recipe_that_lacks_a_section_is_refused(tmp_path, section):
    (tmp_path / "x.def").write_text(RECIPE.replace(f"%{section}", "%help"))
    with pytest.raises(SettingsError, match=f"has no %{section}"):
        read_recipe(tmp_path / "x.def")


def test_a_folder_has_one_recipe(tmp_path):
    with pytest.raises(SettingsError, match="holds 0 recipes"):
        find_recipe(tmp_path)
