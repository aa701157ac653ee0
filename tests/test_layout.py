"""The house rules that a tool can check; each checker is itself shown something it must object to."""

import ast
import doctest
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import trojai_moth

ROOT = Path(__file__).resolve().parents[1]
CODE = ("trojai_moth", "scanners", "eval")
FILE_LINES, FUNCTION_LINES = 600, 80
LONG_FUNCTION = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
DEVICE_MODULE = "trojai_moth/core/device.py"
# What --trust-pickle does, and nothing else does.
UNPICKLING_MODULE = "trojai_moth/loading/trusted.py"
REQUIRED = {
    *CODE,
    *("tests", "benchmarks", "docs", ".ci", ".gitignore", "setup.cfg", "pyproject.toml", "MANIFEST.in"),
    *("README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "Makefile"),
}
# Modules that run code found in the data they read, and builtins that run text.
UNPICKLERS = {"torch", "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pandas"}
LOADERS = {"load", "loads", "Unpickler", "read_pickle"}
RUNNERS = {"eval", "exec"}
# Where files are opened, and where the system is asked about processes.
OPENING_MODULES = [
    *("trojai_moth/core/files.py", "trojai_moth/loading/files.py"),
    *("trojai_moth/core/process_identity.py", "trojai_moth/submission/surroundings.py"),
]
OPENERS = ("open_regular(", "open_text(")
PATH_READERS = {
    *("Image.open", "np.load", "np.loadtxt", "np.fromfile", "pd.read_csv", "pd.read_parquet", "pd.read_json"),
    *("safe_open", "load_file", "gzip.open", "tarfile.open", "zipfile.ZipFile", "io.open", "codecs.open"),
}
# Put together from parts, or this file would be its own first finding.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:" + "|".join(["work", "tmp", "root"]) + r")\b")


def listed(*options):
    """What git answers about the checkout, or None where there is no git or no checkout."""
    try:
        answer = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in answer.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def own_files():
    names = listed("--cached", "--others", "--exclude-standard")
    if names is not None:
        return sorted(ROOT / name for name in names)
    folders = (*CODE, "tests", "benchmarks")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def python_files(*folders):
    inside = [ROOT / folder for folder in folders]
    return [p for p in own_files() if p.suffix == ".py" and any(folder in p.parents for folder in inside)]


def named(path):
    return path.relative_to(ROOT).as_posix()


def long_parts(text):
    """Functions and, as ``file``, whole texts that are too long: [(name, lines)]."""
    sizes = [("file", len(text.splitlines()), FILE_LINES)]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            sizes.append((node.name, node.end_lineno - node.lineno + 1, FUNCTION_LINES))
    return [(name, lines) for name, lines, most in sizes if lines > most]


def unsafe_calls(text):
    """Uses of functions that run code from data: [name]."""
    tree = ast.parse(text)
    modules = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS:
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name in LOADERS]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in LOADERS:
            module = modules.get(node.value.id, node.value.id)
            found += [f"{module}.{node.attr}"] if module in UNPICKLERS else []
        elif isinstance(node, ast.Name) and node.id in RUNNERS:
            found.append(node.id)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found += [] if isinstance(node.value, ast.Constant) and node.value.value is False else ["allow_pickle"]
    return found


def device_literals(text):
    """String constants that name a CUDA device (prose that mentions one is fine) and ``.cuda`` attributes."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"cuda(:.*)?", node.value):
            found.append(node.value)
        elif isinstance(node, ast.Attribute) and node.attr == "cuda":
            found.append(".cuda")
    return found


def bare_reads(text):
    """Files that are read and were not opened by core/files.py, to which a pipe or a device is no file: [call]."""
    tree = ast.parse(text)
    safe = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and ast.unparse(item.context_expr).startswith(OPENERS)
    }
    safe |= {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in ("io.StringIO()", "io.BytesIO()")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    guarded = {
        item.context_expr
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and ast.unparse(node.items[0].context_expr).startswith(OPENERS)
        for item in node.items
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node not in guarded]
    return [ast.unparse(call) for call in calls if _reads_bare(call, safe)]


def _reads_bare(call, safe):
    name, first = ast.unparse(call.func), ast.unparse(call.args[0]) if call.args else ""
    if name in PATH_READERS:
        return first not in safe and not first.startswith("io.BytesIO(")
    if name == "os.open":
        return "O_CREAT" not in ast.unparse(call)
    if name.endswith((".read_text", ".read_bytes")):
        return not name.removeprefix("(").startswith("files(")  # the package's own
    mode = first if name.endswith(".open") else ast.unparse(call.args[1]) if len(call.args) > 1 else "'r'"
    whole_or_text = not call.args or isinstance(call.args[0], ast.Constant)
    return (name == "open" or (name.endswith(".open") and whole_or_text)) and not set(mode) & set("wxa+")


def findings(check, *folders, except_for=()):
    every = {named(p): check(p.read_text(encoding="utf-8")) for p in python_files(*folders)}
    assert len(every) > len(CODE), "no files were looked at"
    return {name: found for name, found in every.items() if found and name not in except_for}


def test_files_and_functions_stay_small():
    assert findings(long_parts, *CODE, "tests", "benchmarks") == {}


def test_nothing_reads_pickles_or_runs_text():
    assert findings(unsafe_calls, *CODE, except_for=[UNPICKLING_MODULE]) == {}
    assert unsafe_calls((ROOT / UNPICKLING_MODULE).read_text(encoding="utf-8")) == ["torch.load"]


def test_what_is_read_is_opened_in_one_place():
    """Else ``doctor``, ``scan`` or ``rescan`` would wait for ever at a pipe in a file's place."""
    assert findings(bare_reads, *CODE, except_for=OPENING_MODULES) == {}


def test_devices_are_named_in_one_module():
    assert findings(device_literals, *CODE, except_for=[DEVICE_MODULE]) == {}


def test_no_machine_paths():
    found = {}
    for path in own_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        hits = [number for number, line in enumerate(lines, start=1) if MACHINE_PATH.search(line)]
        found |= {named(path): hits} if hits else {}
    assert found == {}


def test_no_junk_drawers():
    assert [named(path) for path in own_files() if path.name in ("utils.py", "util.py", "helpers.py", "misc.py")] == []


def test_top_level_is_the_layout():
    names = listed("--cached")
    if names is None:
        pytest.skip("needs a git checkout")
    assert {name.split("/")[0] for name in names} == REQUIRED


@pytest.mark.parametrize(
    ("check", "bad", "good"),
    [
        (long_parts, "x = 1\n" * (FILE_LINES + 1), "x = 1\n" * FILE_LINES),
        (long_parts, LONG_FUNCTION, LONG_FUNCTION.rpartition("    x")[0]),
        (unsafe_calls, "import torch\ntorch.load('f')", "import torch\ntorch.save(1, 'f')"),
        (unsafe_calls, "import pickle as p\nread = p.loads", "import json as p\nread = p.loads"),
        (unsafe_calls, "from pickle import load as fine", "from pickle import dumps"),
        (unsafe_calls, "eval('1')", "model.eval()"),
        (unsafe_calls, "run = exec", "run = 'exec'"),
        (unsafe_calls, "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=False)"),
        (device_literals, "x.to('cuda:0')", "'''Runs on cuda if there is one.'''"),
        (device_literals, "x.cuda()", "x.cpu()"),
        (bare_reads, "open(p)", "open(p, 'w')"),
        (bare_reads, "p.open('rb')", "p.open('xb')"),
        (bare_reads, "p.open()", "journal.open(identity)"),
        (bare_reads, "p.read_text()", "files(package).joinpath('x').read_text()"),
        (bare_reads, "x = p.read_bytes()", "x = read_bytes(p)"),
        (bare_reads, "os.open(p, os.O_RDONLY)", "os.open(p, os.O_CREAT | os.O_EXCL)"),
        (bare_reads, "with Image.open(p) as i: pass", "with open_regular(p) as f, Image.open(f) as i: pass"),
        (bare_reads, "with safe_open(p) as f: pass", "with open_regular(p), safe_open(p) as f: pass"),
        (bare_reads, "pd.read_csv(p)", "with open_text(p) as f:\n    pd.read_csv(f)"),
        (MACHINE_PATH.findall, "see /" + "tmp/x", "see https://example.org/" + "tmp/x"),
    ],
)
def test_the_checkers_object_to_what_they_should(check, bad, good):
    assert check(bad)
    assert not check(good)


def package_modules():
    """All modules by import name; the sub-packages mapped from other folders are not under the package's own path."""
    yield "trojai_moth"
    for name in ("trojai_moth", "trojai_moth.scanners", "trojai_moth.eval"):
        package = importlib.import_module(name)
        found = pkgutil.walk_packages(package.__path__, prefix=f"{name}.")
        yield from (module.name for module in found if not module.name.endswith("__main__"))


def test_doctests():
    results = {name: doctest.testmod(importlib.import_module(name)) for name in sorted(set(package_modules()))}
    assert {name: result.failed for name, result in results.items() if result.failed} == {}
    assert results["trojai_moth.eval.metrics"].attempted > 0


def test_the_tested_package_is_this_checkout():
    assert Path(trojai_moth.__file__).resolve().parent == ROOT / "trojai_moth"


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in CODE:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*command, "--wheel-dir", str(target)], cwd=source, check=True)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_owns_one_name(wheel_names):
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"trojai_moth"}


def test_the_wheel_holds_every_module(wheel_names):
    """Sub-packages are listed by hand in setup.cfg, so a forgotten one would only be missed by users."""
    names = [named(path) for path in python_files(*CODE)]
    expected = {name if name.startswith("trojai_moth/") else f"trojai_moth/{name}" for name in names}
    assert {"trojai_moth/scanners/__init__.py", "trojai_moth/eval/metrics.py"} <= expected
    assert (expected | {"trojai_moth/py.typed"}) - set(wheel_names) == set()
