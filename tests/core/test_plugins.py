"""Plugins from anywhere: found by installing them, listed with where they come from, none of them in another's way."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from fake_hardener import Scale
from fake_scanner import Entry, Scripted, install
from forks import Forked

from trojai_moth import __version__
from trojai_moth.cli.main import main
from trojai_moth.core.errors import MothError, SettingsError
from trojai_moth.hardeners.registry import hardeners
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.registry import make_scanner, scanners
from trojai_moth.scanners.result import ScanResult
from trojai_moth.testing.planted import PlantedNet, make_subject, planted_samples

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"
FILE = re.compile(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOME = SimpleNamespace(name="moth-strange", version="4.5")


def entry(kind, name="strange", value="strange.place:Thing", dist=HOME):
    return Entry(kind, name=name, value=value, dist=dist)


def listed(command="plugins", code=0):
    result = CliRunner().invoke(main, [command])
    assert result.exit_code == code, result.output
    return result


def row(text, name):
    (line,) = [line for line in text.splitlines() if f" {name} " in line]
    return line


def test_the_list_says_kind_name_version_origin_and_what_it_is(monkeypatch):
    install(monkeypatch, entry(Scripted))
    lines = listed().stdout.splitlines()
    assert re.split(r"  +", lines[0]) == ["kind", "name", "version", "origin", "what it is"]
    assert re.split(r"  +", row("\n".join(lines), "strange")) == [
        "scanner", "strange", "4.5", "moth-strange, strange.place",
        "Says what its script says, knowing a hardened model by its weights alone.",
    ]  # fmt: skip
    moth = re.split(r"  +", row("\n".join(lines), "moth"))
    assert moth[:4] == ["hardener", "moth", __version__, "trojai-moth, trojai_moth.hardeners.moth"] and moth[4]
    assert [line.split()[1] for line in lines[1:]] == ["strange", *sorted(hardeners())]


def test_the_short_lists(monkeypatch):
    install(monkeypatch, entry(Scripted), entry(ImportError("no x"), name="bad"))
    assert listed("scanners").stdout.splitlines() == [
        "bad: cannot be used: cannot be imported: ImportError: no x",
        "strange: Says what its script says, knowing a hardened model by its weights alone.",
    ]
    assert [line.partition(":")[0] for line in listed("hardeners").stdout.splitlines()] == sorted(hardeners())


class NoText(Scripted):
    pass


NoText.__doc__ = None


class Unfinished(Scanner):
    name = "unfinished"


class Nameless(Scanner):
    def scan(self, subject, samples, *, seed):
        return None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (ImportError("no module\nnamed x"), "cannot be imported: ImportError: no module named x"),
        (SyntaxError("bad"), "cannot be imported: SyntaxError: bad"),
        (Scale, "is no scanner: its class must derive from trojai_moth.scanners.base.Scanner"),
        (Scripted(), "is no scanner"),
        (3, "is no scanner"),
        (Unfinished, "is not finished: it lacks scan, settings_type"),
        (Nameless, "is not finished: it lacks name, settings_type"),
    ],
)
def test_one_that_can_not_be_used_is_listed_and_in_nobodys_way(kind, words, monkeypatch):
    install(monkeypatch, entry(kind, name="bad", value="bad.place:Bad"), entry(Scripted))
    assert f"cannot be used: {words}" in row(listed().stdout, "bad")
    assert list(scanners()) == ["strange"] and isinstance(make_scanner("strange", {}), Scripted)
    with pytest.raises(SettingsError, match=re.escape(f"--scanner bad: the scanner 'bad' (bad.place:Bad) {words}")):
        make_scanner("bad", {})


def test_one_that_ends_the_program_when_it_is_imported_does_not(monkeypatch):
    class Quits(Entry):
        def load(self):
            raise SystemExit(3)

    install(monkeypatch, Quits(name="bad"), entry(Scripted))
    assert "SystemExit: 3" in row(listed().stdout, "bad") and list(scanners()) == ["strange"]


def test_a_class_without_a_docstring_and_a_package_without_a_name(monkeypatch):
    install(monkeypatch, entry(NoText, dist=None))
    assert re.split(r"  +", row(listed().stdout, "strange"))[2:] == [
        "unknown", "unknown, strange.place", "strange.place"
    ]  # fmt: skip


@pytest.mark.parametrize("second", [Scripted, ImportError("no x")])
def test_two_of_one_name_are_listed_and_refused(second, monkeypatch):
    other = SimpleNamespace(name="moth-other", version="1")
    install(monkeypatch, entry(Scripted), entry(second, value="other:Thing", dist=other), entry(Scripted, name="third"))
    words = "two installed packages offer the scanner 'strange' (moth-other, moth-strange); uninstall one of them"
    for use in (scanners, lambda: make_scanner("third", {})):
        with pytest.raises(MothError, match=re.escape(words)):
            use()
    result = listed(code=2)
    assert result.stdout.count(f"cannot be used: {words}") == 2 and result.stderr.strip() == f"Error: {words}"
    assert "moth-other, other" in result.stdout and "moth-strange, strange.place" in result.stdout
    assert listed("scanners", code=2).stderr.strip() == f"Error: {words}"
    install(monkeypatch, entry(Scale), entry(Scale), group="trojai_moth.hardeners")
    with pytest.raises(MothError, match="two installed packages offer the hardener 'strange'"):
        hardeners()


@pytest.mark.parametrize(("find", "noun"), [(scanners, "scanner"), (hardeners, "hardener")])
def test_none_at_all_says_what_to_run_and_only_broken_ones_say_why(find, noun, monkeypatch):
    install(monkeypatch, group=f"trojai_moth.{noun}s")
    with pytest.raises(MothError, match=rf"no {noun} is installed; run: pip install"):
        find()
    assert noun not in [line.split()[0] for line in listed().stdout.splitlines()]
    install(monkeypatch, entry(ImportError("no x"), name="bad"), group=f"trojai_moth.{noun}s")
    with pytest.raises(MothError, match=rf"the {noun} 'bad' \(strange.place:Thing\) cannot be imported: ImportError"):
        find()
    assert "cannot be used" in row(listed().stdout, "bad")


@pytest.fixture(scope="module")
def page():
    files = dict(FILE.findall(PAGE.read_text(encoding="utf-8")))
    assert set(files) == {"pyproject.toml", "moth_noise.py", "test_moth_noise.py"}
    return files


@pytest.fixture(scope="module")
def call(page, tmp_path_factory):
    """Run a module with the page's plugin installed beside everything else, as the page says."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    for name, text in page.items():
        (source / name).write_text(text, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "install", *alone, "--target", str(target), "."], cwd=source, check=True)
    assert (target / "moth_noise-0.3.dist-info").is_dir()

    def call(*words, cwd=target):
        process = Forked(*words, cwd=cwd, environment={"PYTHONPATH": str(target)})
        stdout, stderr = process.communicate(timeout=300)
        return SimpleNamespace(returncode=process.returncode, stdout=stdout, stderr=stderr)

    return call


def test_the_pages_plugin_is_short(page):
    lines = [line for line in "\n".join(page.values()).splitlines() if line.strip()]
    assert len(lines) <= 60 and len(page["moth_noise.py"].splitlines()) <= 40


def test_the_pages_plugin_appears_when_it_is_installed(call):
    result = call("trojai_moth", "plugins")
    assert result.returncode == 0, result.stderr
    expected = ["scanner", "noise", "0.3", "moth-noise, moth_noise"]
    assert re.split(r"  +", row(result.stdout, "noise"))[:4] == expected
    assert "Flags a network that sees one and the same class" in row(result.stdout, "noise")
    assert "neural-cleanse" in result.stdout and "cannot be used" not in result.stdout
    assert "moth-noise" not in listed().stdout


def test_the_pages_test_passes_and_would_not_for_a_worse_plugin(call, page, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_moth_noise.py").write_text(page["test_moth_noise.py"], encoding="utf-8")
    options = ("pytest", "-q", "-p", "no:cacheprovider", "test_moth_noise.py")
    result = call(*options, cwd=tmp_path)
    assert result.returncode == 0 and re.search(r"^1\d passed", result.stdout, re.MULTILINE), result.stdout
    worse = page["moth_noise.py"].replace(", generator=stream)", ")")
    (tmp_path / "moth_noise.py").write_text(worse, encoding="utf-8")  # comes before the one that is installed
    result = call(*options, cwd=tmp_path)
    # Two draws of noise may well say the same; where they were drawn from shows each time.
    assert result.returncode == 1 and "it drew from a global random stream" in result.stdout, result.stdout


def test_a_score_must_agree_with_the_verdict():
    class Liar(Scripted):
        def scan(self, subject, samples, *, seed):
            return ScanResult(scanner="liar", outcome="clean", score=2.0, probability=0.1, reason="trust me")

    verdict = Liar()(make_subject(PlantedNet()), planted_samples(), seed=0)
    assert verdict.outcome == "not judged" and "clean but gave the score 2.0" in verdict.reason


def test_broken_and_double_plugins_are_named(monkeypatch):
    for entries, words in (
        ([Entry(ImportError("no module named x"))], r"'scripted' \(tests:Scripted\) cannot be imported: ImportError"),
        ([Entry(), Entry()], "two installed packages offer the scanner 'scripted'"),
        ([], "no scanner is installed"),
    ):
        install(monkeypatch, *entries)
        with pytest.raises(MothError, match=words):
            scanners()
    install(monkeypatch, Entry())
    with pytest.raises(MothError, match="choose from scripted"):
        make_scanner("other", {})
