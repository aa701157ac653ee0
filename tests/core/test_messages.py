"""What is said while work goes on, and how -v, -q and --debug change it."""

import io
import logging
import re
import sys

import click
import pytest
from click.testing import CliRunner

from trojai_moth.cli import console
from trojai_moth.cli.base import Command, Group
from trojai_moth.cli.console import shown_progress
from trojai_moth.cli.main import COMMANDS, main
from trojai_moth.core import messages
from trojai_moth.core.errors import MothError

LOG = logging.getLogger("trojai_moth.tests")
WORDS = ("searching", "images chosen", "preprocessing is a guess")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def say():
    for level, text in zip((logging.DEBUG, logging.INFO, logging.WARNING), WORDS, strict=True):
        LOG.log(level, text)


@click.group(cls=Group)
def program():
    """A group as the command line's."""


@program.command("work")
def work():
    """Say something at each level."""
    say()
    click.echo("result")
    if messages.debugging():
        click.echo("debugging")


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(program, words)


@pytest.mark.parametrize(
    ("options", "shown"), [([], WORDS[1:]), (["-q"], WORDS[2:]), (["--quiet"], WORDS[2:]), (["-v"], WORDS),
                           (["--verbose"], WORDS), (["--debug"], WORDS[1:])],
)  # fmt: skip
def test_the_options_stand_before_or_after_the_command(run, options, shown):
    before, after = run(*options, "work"), run("work", *options)
    debugging = "debugging\n" if "--debug" in options else ""
    for result in (before, after):
        assert result.exit_code == 0 and result.stdout == f"result\n{debugging}"
        lines = result.stderr.splitlines()
        assert [text for text in WORDS if any(line.endswith(f" {text}") for line in lines)] == list(shown)
        assert len(lines) == len(shown) and all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
        assert lines[-1].endswith(" warning: preprocessing is a guess")


def test_more_and_less_exclude_each_other(run):
    for words in (["-q", "work", "-v"], ["-v", "-q", "work"], ["work", "-q", "--verbose"]):
        result = run(*words)
        assert result.exit_code == 2 and "-v and -q cannot be given together" in result.stderr
    assert run("-q", "work", "-q").exit_code == 0


def test_they_are_listed_once_and_apart(run):
    for text in (run("--help").stdout, run("work", "--help").stdout):
        messages_at = text.index("Messages:")
        assert all(text.count(option) == 1 and text.index(option) > messages_at for option in ("-v,", "-q,", "--debug"))
        assert text.index("--help") < messages_at
    assert all(isinstance(main.get_command(click.Context(main), name), Command | Group) for name in COMMANDS)


@pytest.mark.parametrize(("words", "command"), [("card -q diff -h", "card diff"), ("card -v . -h", "card make")])
def test_a_card_needs_no_word_for_making_it(words, command):
    assert CliRunner().invoke(main, words.split()).stdout.startswith(f"Usage: main {command} ")


def test_a_command_leaves_logging_as_it_was(run):
    logger = logging.getLogger(messages.LOGGER)
    before = (list(logger.handlers), logger.level)
    run("-v", "--debug", "work")
    assert (list(logger.handlers), logger.level) == before and not messages.debugging()


def test_later_settings_replace_earlier_ones(capsys):
    with messages.configured(logging.DEBUG):
        messages.configure(logging.WARNING, debug=True)
        say()
        assert messages.level() == logging.WARNING and messages.debugging()
    assert capsys.readouterr().err.count("\n") == 1 and not messages.debugging()


def test_what_files_are_called_steers_no_terminal(capsys):
    with messages.configured(logging.INFO):
        try:
            raise ValueError("a\x1b[2Jb\nc")
        except ValueError:
            LOG.exception("in %s", "d\x1b[2J\re\nf")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(r" error: in d\x1b[2J\re\nf") and lines[1] == "Traceback (most recent call last):"
    assert all(line.isprintable() for line in lines) and r"ValueError: a\x1b[2Jb" in lines


def test_somebody_who_watches_needs_no_date(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with messages.configured(logging.INFO):
        say()
    assert re.fullmatch(r"\d\d:\d\d:\d\d images chosen\n\d\d:\d\d:\d\d warning: .*\n", sys.stderr.getvalue())


def test_a_stream_that_takes_nothing_ends_no_work(monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with messages.configured(logging.INFO):
        say()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("level", "shown"), [(logging.DEBUG, "1 2 3 4"), (logging.INFO, "1 3"), (logging.WARNING, "")])
def test_progress_in_a_log_is_a_line_now_and_then(capsys, clock, level, shown):
    with messages.configured(level), shown_progress() as progress:
        for clock[0], text in ((1.0, "1"), (30.0, "2"), (31.5, "3"), (61.0, "4")):
            progress(text)
    assert " ".join(line.split()[-1] for line in capsys.readouterr().err.splitlines()) == shown


def test_progress_on_a_terminal_is_one_line_that_goes_away(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    screen = sys.stderr
    with messages.configured(logging.INFO), shown_progress() as progress:
        progress("pair 1 [bold]of[/] 9")
        LOG.info("something to keep")
        progress("pair 2 of 9")
    text = screen.getvalue()
    assert "pair 1 [bold]of[/] 9" in text and "pair 2 of 9" in text and sys.stderr is screen
    assert "something to keep\n" in text
    erased = "\x1b[2K"
    assert erased in text[text.rindex("pair 2 of 9") :]


def test_progress_on_a_terminal_is_hidden_by_quiet(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with messages.configured(logging.WARNING), shown_progress() as progress:
        progress("pair 1 of 9")
    assert sys.stderr.getvalue() == ""


@pytest.fixture
def failing(monkeypatch, tmp_path):
    """Run a command of the program that raises."""

    def failing(error, *options):
        def fail(_):
            raise error

        monkeypatch.setattr("trojai_moth.loading.inspect_model", fail)
        return CliRunner().invoke(main, [*options, "inspect", str(tmp_path / "model.pt")])

    return failing


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TypeError("no\nnumber"), "this is a bug; please report it: TypeError: no number"),
        (MothError("model.pt: is empty; fetch it again"), "model.pt: is empty; fetch it again"),
        (OSError(28, "No space left on device", "out.json"), "out.json: No space left on device"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_goes_wrong_is_one_line_and_with_debug_a_traceback(failing, error, line):
    hint = " (run again with --debug for the traceback)" if isinstance(error, TypeError) else ""
    result = failing(error)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {line}{hint}\n")
    debugged = failing(error, "--debug")
    assert debugged.exit_code == 2 and debugged.stderr.startswith("Traceback (most recent call last):\n")
    assert debugged.stderr.splitlines()[-1] == f"Error: {line}" and type(error).__name__ in debugged.stderr
