"""A plugin's time: interrupted where Python can, looked at afterwards where it cannot, and nothing else disturbed."""

import importlib
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fake_round import write_round

from trojai_moth.cli.main import main
from trojai_moth.core import time_limit
from trojai_moth.core.records import read_record
from trojai_moth.core.time_limit import TimeLimitExceeded, run_with_time_limit
from trojai_moth.eval.results import read_results
from trojai_moth.hardeners.moth import Moth
from trojai_moth.runs.workers.stopping import SIGNALS, Stopping
from trojai_moth.scanners.neural_cleanse import NeuralCleanse
from trojai_moth.scanners.result import ScanResult

NEVER_S = 60
# A scan that takes no time and finds what it finds.
SHORT = ["--set", "scanner.steps=2", "--set", "scanner.screen_steps=2"]


@pytest.fixture(autouse=True)
def no_timer_is_left():
    handler = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getsignal(signal.SIGALRM) is handler and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def timed(action, seconds=0.1):
    started = time.monotonic()
    with pytest.raises(TimeLimitExceeded, match=r"time budget of 0\.1 s"):
        run_with_time_limit(seconds, action)
    return time.monotonic() - started


def busy():
    while True:
        pass


@pytest.mark.parametrize("action", [lambda: time.sleep(NEVER_S), busy, threading.Event().wait])
def test_what_hangs_is_interrupted(action):
    assert 0.1 <= timed(action) < 5


def test_what_is_in_time_is_returned_and_raised():
    assert run_with_time_limit(NEVER_S, lambda: 3) == 3 and run_with_time_limit(None, lambda: 4) == 4
    with pytest.raises(ZeroDivisionError):
        run_with_time_limit(NEVER_S, lambda: 1 / 0)


def test_catching_everything_once_does_not_help(monkeypatch):
    monkeypatch.setattr(time_limit, "REPEAT_S", 0.1)
    caught = []

    def stubborn():
        while True:
            try:
                time.sleep(NEVER_S)
            except BaseException as error:
                caught.append(type(error).__name__)
                if len(caught) == 3:
                    return "done after all"

    assert timed(stubborn) < 5 and caught == ["OutOfTime"] * 3


def test_exceptions_do_not_catch_it():
    def careful():
        try:
            time.sleep(NEVER_S)
        except Exception:
            return "caught"

    timed(careful)


def test_another_exception_after_the_time_is_a_time_out_too():
    def disguised():
        try:
            time.sleep(NEVER_S)
        except BaseException:
            raise ValueError("something else") from None

    timed(disguised)


def test_in_another_thread_late_is_late():
    """Nothing is interrupted there, which is what the module says; the answer is not taken."""
    seen = []

    def elsewhere():
        try:
            run_with_time_limit(0.1, lambda: time.sleep(0.3))
        except TimeLimitExceeded as error:
            seen.append(str(error))
        seen.append(run_with_time_limit(NEVER_S, time_limit.can_interrupt))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == ["took longer than its time budget of 0.1 s", False] and time_limit.can_interrupt()


def test_handler_and_timer_from_before_are_put_back():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 30)
        timed(lambda: time.sleep(NEVER_S))
        assert not rung and 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 29.9
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert run_with_time_limit(NEVER_S, lambda: time.sleep(0.3) or len(rung)) == 0  # falls due meanwhile
        end = time.monotonic() + 10
        while not rung and time.monotonic() < end:
            time.sleep(0.01)
        assert len(rung) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_one_budget_within_another():
    def outer():
        with pytest.raises(TimeLimitExceeded, match=r"0\.05 s"):
            run_with_time_limit(0.05, lambda: time.sleep(NEVER_S))
        time.sleep(NEVER_S)

    timed(outer)
    with pytest.raises(TimeLimitExceeded, match=r"0\.1 s"):
        run_with_time_limit(0.1, lambda: run_with_time_limit(0.3, lambda: time.sleep(NEVER_S)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_user_who_interrupts_is_heard(number):
    stopping = Stopping()
    with stopping.listening(*SIGNALS), pytest.raises(KeyboardInterrupt):
        run_with_time_limit(NEVER_S, lambda: signal.raise_signal(number))
    assert stopping.asked


def test_torch_is_as_before():
    def leaves_gradients_off():
        torch.set_grad_enabled(False)
        time.sleep(NEVER_S)

    timed(leaves_gradients_off)
    assert torch.is_grad_enabled()


@pytest.fixture(scope="module")
def round_dir(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("round") / "round", models=1)


@pytest.fixture
def call(round_dir, tmp_path, monkeypatch):
    """Run the program with a scanner and a hardener that hang, and write below an empty folder."""

    def hang(*_, **__):
        time.sleep(NEVER_S)

    def call(command, *options, hangs):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(importlib.import_module(hangs[0]), hangs[1], type(hangs[1], (hangs[2],), {hangs[3]: hang}))
        place = round_dir if command == "rescan" else round_dir / "id-00000000"
        small = ["--data", "examples", "--set", "data.train_per_class=4", "--set", "data.held_per_class=4"]
        return CliRunner().invoke(main, [command, str(place), *small, *options])

    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    yield call
    for sign, handler in handlers.items():
        signal.signal(sign, handler)


SCANNER = ("trojai_moth.scanners.neural_cleanse", "NeuralCleanse", NeuralCleanse, "scan")
HARDENER = ("trojai_moth.hardeners.moth", "Moth", Moth, "harden")
LATE = "took longer than its time budget of 0.2 s"


def test_scan_gives_up(call):
    result = call("scan", "--scanner-budget", "0.2", "--json", "v.json", hangs=SCANNER)
    assert result.exit_code == 2 and f"NOT JUDGED by neural-cleanse: the scanner {LATE}" in result.stdout
    verdict = read_record(ScanResult, Path("v.json"))
    assert verdict.skip == "time-out" and verdict.seconds < 30


def test_harden_gives_up(call):
    result = call("harden", "--hardener-budget", "0.2", "--out", "w.safetensors", hangs=HARDENER)
    assert result.exit_code == 2 and result.stderr.strip().endswith(f"Error: the hardener moth {LATE}")
    assert not Path("w.safetensors").exists()


@pytest.mark.parametrize(
    ("option", "hangs", "more", "stage"),
    [
        ("--scanner-budget", SCANNER, [], "before"),
        ("--hardener-budget", HARDENER, ["--harden", "all", *SHORT], "failure"),
    ],
)
def test_rescan_goes_on_and_says_so(call, option, hangs, more, stage):
    result = call("rescan", "--out", "run", option, "0.2", *more, hangs=hangs)
    assert result.exit_code == 2, result.output
    rows = read_results(Path("run/results.csv"))
    assert rows["verdict"].to_list() == ["not judged"] and LATE in rows["reason"].iloc[0]
    assert LATE in Path(f"run/journal/id-00000000.{stage}.json").read_text()


@pytest.mark.parametrize("option", ["--scanner-budget", "--hardener-budget"])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_an_impossible_budget_is_refused(call, option, seconds):
    result = call("rescan", "--out", "run", option, seconds, hangs=SCANNER)
    assert result.exit_code == 2 and "budget" in result.stderr and not Path("run").exists()
