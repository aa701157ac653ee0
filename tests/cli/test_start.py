"""What is imported before there is work to do: a help text and a wrong option must not wait for torch.

Modules are counted, since seconds depend on the machine. Everything is asked of one fresh interpreter, in which a
finder notes who imports what is heavy.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import trojai_moth
from trojai_moth.cli.main import COMMANDS, main

# Modules beyond those that Python starts with; all commands together, of which some need pydantic for their defaults.
MOST_FOR_THE_PACKAGE, MOST_FOR_THE_GROUP, MOST_FOR_ALL = 5, 100, 250
PROBE = """
import importlib.abc, json, os, sys, traceback

HEAVY = {
    "cv2", "huggingface_hub", "jinja2", "jsonschema", "matplotlib", "numpy", "pandas", "PIL", "ray", "safetensors",
    "scipy", "sklearn", "torch", "torchvision", "trojai",
}
culprits = []

class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in HEAVY:
            lines = [at for at in traceback.extract_stack() if "importlib" not in at.filename and at.line]
            culprits.append(f"{lines[-1].filename}:{lines[-1].lineno} imports {name}")

sys.meta_path.insert(0, Guard())
at_start = set(sys.modules)
found = []

def note(code, output):
    found.append({"code": code, "output": output, "culprits": [*culprits], "modules": len(set(sys.modules) - at_start)})
    culprits.clear()

import trojai_moth
note(0, "")
from click.testing import CliRunner
from trojai_moth.cli.main import main
assert os.environ["GOMP_SPINCOUNT"], "is read when torch is loaded, so it must be set by now"
for case in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, case["arguments"], env=case["environment"], prog_name="trojai-moth")
    note(result.exit_code, result.output)
print(json.dumps(found))
"""
HELP = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS), ["card", "make", "--help"],
        ["card", "diff", "--help"], ["card", "verify", "--help"], ["submission", "check", "--help"]]  # fmt: skip
MISTAKES = [
    (["nonsense"], "No such command"),
    (["--nonsense"], "No such option"),
    *(([name, "--nonsense"], "No such option") for name in COMMANDS),
    (["scan"], "Missing argument"),
    (["scan", "nowhere"], "does not exist"),
    (["scan", ".", "--set", "nonsense"], "GROUP.NAME=VALUE"),
    (["scan", ".", "--data", "nowhere"], "is neither"),
    (["harden", ".", "--out", "weights.pt"], "must end in .safetensors"),
    (["harden", ".", "--out", "w.safetensors", "--without", "magic"], "is not one of"),
    (["rescan", "."], "Missing option"),
    (["rescan", "nowhere", "--out", "run"], "does not exist"),
    (["rescan", ".", "--out", "run", "--harden", "some"], "is not one of"),
    (["rescan", ".", "--out", "run", "--workers", "0"], "is not in the range"),
    (["rescan", ".", "--out", "run", "--shard", "3"], "write I/N"),
    (["rescan", ".", "--out", "run", "--set", "nonsense"], "GROUP.NAME=VALUE"),
    (["doctor", ".", "--data", "nowhere"], "is neither"),
    (["calibrate", ".", "--out", "c.json", "--set", "nonsense"], "GROUP.NAME=VALUE"),
    (["make-round", "out", "--models", "1"], "greater than or equal to 2"),
    (["make-round", "out", "--trigger", "sound"], "is not one of"),
    (["scanners", "-q", "-v"], "cannot be given together"),
    (["-q", "scanners", "-v"], "cannot be given together"),
]  # fmt: skip
COMPLETIONS = [
    ("trojai-moth resc", 1, "rescan"),
    ("trojai-moth rescan --har", 2, "--harden"),
    ("trojai-moth make-round --arch", 2, "--architecture"),
    ("trojai-moth scan -", 2, "--debug"),
]
CASES = [
    *((words, {}) for words in HELP),
    *((words, {}) for words, _ in MISTAKES),
    *(
        ([], {"_TROJAI_MOTH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)})
        for words, place, _ in COMPLETIONS
    ),
]
NAMES = [
    "import trojai_moth",
    *(" ".join(words) or f"complete {environment['COMP_WORDS']}" for words, environment in CASES),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each case ended with and had imported by then; first of all the package alone."""
    cases = [{"arguments": words, "environment": environment} for words, environment in CASES]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(cases)], capture_output=True, text=True, check=True,
        cwd=tmp_path_factory.mktemp("nothing"),
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_nothing_heavy_is_imported(found, number):
    assert found[number]["culprits"] == []
    bound = (MOST_FOR_THE_PACKAGE, MOST_FOR_THE_GROUP, MOST_FOR_THE_GROUP)[number] if number < 3 else MOST_FOR_ALL
    assert found[number]["modules"] <= bound


def test_help_texts_mistakes_and_completions_are_what_they_should_be(found):
    """Else the test above would only show that nothing was done."""
    helps, mistakes = found[1 : 1 + len(HELP)], found[1 + len(HELP) : 1 + len(HELP) + len(MISTAKES)]
    for words, case in zip(HELP, helps, strict=True):
        assert case["code"] == 0 and ("Messages:" in case["output"] or words == ["--version"]), case["output"]
    for (words, text), case in zip(MISTAKES, mistakes, strict=True):
        assert case["code"] == 2 and text in case["output"], (words, case["output"])
    for (_, _, text), case in zip(COMPLETIONS, found[-len(COMPLETIONS) :], strict=True):
        assert case["code"] == 0 and f"plain,{text}" in case["output"].splitlines(), case["output"]


def _commands(context, command):
    yield command
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        yield from _commands(context, command.get_command(context, name))


def test_no_sentence_of_a_help_text_is_long():
    commands = [*_commands(click.Context(main), main)]
    assert len(commands) > len(COMMANDS)
    texts = [text for command in commands for text in (command.help, *(getattr(p, "help", "") for p in command.params))]
    sentences = [part for text in filter(None, texts) for part in re.split(r"(?<=[.!?])(?<!e\.g\.)\s+|\n\n", text)]
    assert [sentence for sentence in sentences if len(sentence.split()) > 25] == []


def test_the_package_promises_what_it_has():
    """The table that names are found by, __all__, and the imports that only type checkers read."""
    tree = ast.parse(Path(trojai_moth.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = {
        alias.asname or alias.name: f"{node.module}:{alias.name}" for node in checked.body for alias in node.names
    }
    assert imported == dict(trojai_moth._PUBLIC)
    assert set(trojai_moth.__all__) == {*trojai_moth._PUBLIC, "__version__"} <= set(dir(trojai_moth))
    for name in trojai_moth.__all__:
        assert getattr(trojai_moth, name) is not None
    with pytest.raises(AttributeError, match="'trojai_moth' has no attribute 'nonsense'"):
        trojai_moth.nonsense  # noqa: B018
