"""The supervising half of the entry point, with workers that are a few lines each; nothing here loads torch."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trojai_moth.submission.dialects import parse
from trojai_moth.submission.entrypoint import DEFAULT_BUDGETS, completed, metaparameters, run, time_budget
from trojai_moth.submission.predictions import inside, write_probability
from trojai_moth.submission.surroundings import child_environment, work_folder

from .test_endings import SAYS, alive, until


@pytest.fixture
def call(tmp_path):
    """Run the entry point with a worker of these lines; returns (exit code, text of the result file)."""

    def call(lines, *words, result=None):
        script = tmp_path / "worker.py"
        script.write_text(SAYS + lines)
        result = result or tmp_path / "result.txt"
        model = ["--model_filepath", str(tmp_path / "model.pt"), "--result_filepath", str(result)]
        code = run(
            [*model, "--scratch_dirpath", str(tmp_path / "scratch"), *words], worker=[sys.executable, str(script)]
        )
        return code, result.read_text() if result.exists() else None

    return call


def test_the_result_is_one_float_on_one_line(call):
    code, text = call("say(probability=0.25, stage='scanner')")
    assert code == 0 and text == "0.25\n"


def test_a_preliminary_result_is_there_before_the_worker_begins(call, tmp_path):
    look = f"say(note=open({str(tmp_path / 'result.txt')!r}).read())"
    code, text = call(look)
    assert (code, text) == (0, "0.5\n")


def test_the_preliminary_result_was_a_half(call, tmp_path, capfd):
    call(f"say(note='it said ' + open({str(tmp_path / 'result.txt')!r}).read())")
    assert "it said 0.5" in capfd.readouterr().err


def test_a_refinement_replaces_the_scanners_probability(call):
    assert call("say(probability=0.3, stage='scanner')\nsay(probability=0.9, stage='kept')") == (0, "0.9\n")


def test_out_of_time_the_scanners_probability_stands_and_the_budget_is_kept_to_the_second(call, capfd):
    started = time.monotonic()
    code, text = call(
        "say(probability=0.3, stage='scanner')\ntime.sleep(60)\nsay(probability=0.9)", "--time-budget", "4"
    )
    took = time.monotonic() - started
    assert (code, text) == (0, "0.3\n") and took < 4.0
    assert "out of time: what was found until then stands" in capfd.readouterr().err


def test_a_worker_that_ignores_signals_and_has_children_is_ended_all_the_same(call, tmp_path):
    child = tmp_path / "child"
    lines = f"""
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(child)!r}, "w").write(str(inner.pid))
say(probability=0.7)
time.sleep(60)"""
    code, text = call(lines, "--time-budget", "6")
    assert (code, text) == (0, "0.7\n")
    until(lambda: not alive(int(child.read_text())))


@pytest.mark.parametrize(
    "lines", ["os.abort()", "sys.exit(3)", "raise ValueError('hostile')", "say(note='refused'); sys.exit(1)"]
)
def test_a_worker_that_dies_leaves_the_half_and_a_line_in_the_log(call, capfd, lines):
    assert call(lines) == (0, "0.5\n")
    assert "trojai-moth: failed: what was found until then stands" in capfd.readouterr().err


@pytest.mark.parametrize("value", ["float('nan')", "1.5", "-0.1", "'0.4'", "None", "float('inf')"])
def test_what_is_no_probability_is_not_taken(call, capfd, value):
    assert call(f"say(probability=0.6)\nsay(probability={value})") == (0, "0.6\n")
    assert "is none, and is not taken" in capfd.readouterr().err


@pytest.mark.parametrize(("value", "written"), [(0.0, 1e-6), (1.0, 1 - 1e-6), (math.nan, 0.5), (0.02, 0.02)])
def test_results_lie_within_0_and_1(tmp_path, value, written):
    write_probability(tmp_path / "r.txt", value)
    assert float((tmp_path / "r.txt").read_text()) == written == inside(value)


def test_prints_of_libraries_go_to_the_log(call, capfd):
    assert call("print('a library talks')\nsay(probability=0.6)") == (0, "0.6\n")
    assert "worker: a library talks" in capfd.readouterr().err


def test_scratch_is_wiped_before_and_after(call, tmp_path):
    left = tmp_path / "scratch" / "trojai-moth"
    left.mkdir(parents=True)
    (left / "of-the-last-model").write_text("x")
    other = tmp_path / "scratch" / "not-ours"
    other.write_text("y")
    call("say(note=str(sorted(os.listdir('.'))))")
    assert not left.exists() and other.exists()


def test_the_worker_finds_an_empty_folder(call, capfd, tmp_path):
    left = tmp_path / "scratch" / "trojai-moth"
    left.mkdir(parents=True)
    (left / "of-the-last-model").write_text("x")
    call("say(note=str(sorted(os.listdir('.'))))")
    assert "['cache', 'home', 'request.json']" in capfd.readouterr().err


def test_no_home_no_downloads_and_caches_in_scratch(call, capfd, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    call("say(note=' '.join(os.environ[n] for n in ('HOME', 'XDG_CACHE_HOME', 'HF_HUB_OFFLINE', 'TMPDIR')))")
    words = next(line for line in capfd.readouterr().err.splitlines() if "xdg_cache_home" in line).split()[1:]
    assert all("/scratch/trojai-moth/" in words[number] for number in (0, 1, 3)) and words[2] == "1"


def test_a_relative_scratch_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert work_folder(Path("scratch")) == tmp_path / "scratch" / "trojai-moth"


def test_without_a_usable_scratch_a_temporary_folder_serves(tmp_path):
    (tmp_path / "file").write_text("")
    folder = work_folder(tmp_path / "file")
    assert folder.is_dir() and tmp_path not in folder.parents
    assert work_folder(None).is_dir()
    environment = child_environment(folder, {"PATH": "x"})
    assert Path(environment["HOME"]).is_dir() and environment["PATH"] == "x"


def test_a_result_that_can_not_be_written_is_misuse(call, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert call("say(probability=0.6)", result=tmp_path / "file" / "r.txt")[0] == 2
    assert "give a --result_filepath in a writable folder" in capfd.readouterr().err


def test_a_folder_that_takes_no_second_file_is_no_trouble(call, tmp_path, monkeypatch):
    result = tmp_path / "result.txt"
    result.write_text("")

    def refuse(path, text):
        raise PermissionError(13, "denied", str(path))

    monkeypatch.setattr("trojai_moth.submission.predictions.write_text", refuse)
    assert call("say(probability=0.6)", result=result) == (0, "0.6\n")


def test_misuse_is_one_line_and_exit_code_2(capfd):
    assert run(["infer"]) == 2
    assert capfd.readouterr().err == "trojai-moth: infer: give --model_filepath and --result_filepath\n"


def test_a_configuration_that_fails_says_so_in_its_exit_code(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text("import sys; sys.exit(1)")
    words = ["configure", "--configure_models_dirpath", str(tmp_path), "--scratch_dirpath", str(tmp_path / "s")]
    assert run(words, worker=[sys.executable, str(script)]) == 1


def test_the_order_holds_absolute_paths_and_values(call, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.json").write_text(json.dumps({"scanner_steps": 5}))
    lines = (
        "o = json.load(open(sys.argv[1]))\nsay(note=json.dumps([o['values'], o['metaparameters'], o['seconds'] < 9]))"
    )
    call(
        lines, "--metaparameters_filepath", "m.json", "--scanner_steps", "7", "--unheard_of", "1", "--time_budget", "9"
    )
    log = capfd.readouterr().err
    assert json.dumps([{"scanner_steps": 7}, str(tmp_path / "m.json"), True]) in log
    assert "--unheard_of: not known here and ignored" in log


def test_what_lies_beside_the_entry_point_is_used_where_nothing_is_said(tmp_path):
    (tmp_path / "metaparameters.json").write_text("{}")
    (tmp_path / "learned_parameters").mkdir()
    words = ["--model_filepath", "m", "--result_filepath", "r"]
    request = completed(parse(words), tmp_path)
    assert request.metaparameters == tmp_path / "metaparameters.json" and request.schema is None
    assert request.learned == tmp_path / "learned_parameters"
    assert completed(parse([*words, "--learned_parameters_dirpath", "own"]), tmp_path).learned == Path("own")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a": ' * 5000, "9" * 5000, "\xff", '{"time_budget": 1e999}'])
@pytest.mark.parametrize("option", [False, True])
def test_hostile_metaparameters_leave_a_result_and_the_worker_its_turn(call, tmp_path, capfd, text, option):
    (tmp_path / "m.json").write_text(text, encoding="latin-1")
    words = ["--scanner_steps", text] if option else ["--metaparameters_filepath", str(tmp_path / "m.json")]
    assert call("say(probability=0.6)", *words) == (0, "0.6\n")
    assert "Traceback" not in capfd.readouterr().err


def test_the_preliminary_result_is_there_before_anything_else_is_read(tmp_path, monkeypatch):
    def broken(*_):
        raise MemoryError

    monkeypatch.setattr("trojai_moth.submission.entrypoint.metaparameters", broken)
    monkeypatch.setattr("trojai_moth.submission.entrypoint.completed", broken)
    with pytest.raises(MemoryError):
        run(["--model_filepath", "m", "--result_filepath", str(tmp_path / "r.txt")])
    assert (tmp_path / "r.txt").read_text() == "0.5\n"


@pytest.mark.parametrize("budget", ["1e300", "inf", "nan", "9" * 400])
def test_a_budget_beyond_all_bounds_is_no_trouble(call, budget):
    assert call("say(probability=0.6)", "--time_budget", budget) == (0, "0.6\n")


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_broken_metaparameters_are_said_and_defaults_used(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    request = parse(
        ["--model_filepath", "m", "--result_filepath", "r", "--metaparameters_filepath", str(tmp_path / "m.json")]
    )
    values, problems = metaparameters(request)
    assert values == {} and "defaults are used" in problems[0]


@pytest.mark.parametrize(
    ("words", "values", "seconds"),
    [
        ([], {}, DEFAULT_BUDGETS["infer"]),
        ([], {"time_budget": 30}, 30),
        (["--time_budget", "20"], {"time_budget": 30}, 20),
        (["--time_budget", "never"], {"time_budget": 30}, 30),
        (["--time_budget", "-1"], {}, DEFAULT_BUDGETS["infer"]),
    ],
)
def test_the_time_budget_is_the_options_then_the_metaparameters_then_the_harness(words, values, seconds):
    assert time_budget(parse(["--model_filepath", "m", "--result_filepath", "r", *words]), values) == seconds
    assert DEFAULT_BUDGETS["infer"] < 600


def test_the_entry_point_does_not_load_torch():
    code = "import sys, trojai_moth.submission.entrypoint; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_budget_counts_from_the_start_of_the_process():
    code = (
        "import time; time.sleep(0.5); from trojai_moth.submission.surroundings import process_start; "
        "print(time.monotonic() - process_start())"
    )
    before = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.45 < float(done.stdout) < time.monotonic() - before + 0.05


def test_time_that_went_before_is_taken_from_the_budget(tmp_path, capfd):
    worker = tmp_path / "worker.py"
    worker.write_text("import time; time.sleep(60)")
    words = ["--model_filepath", "m", "--result_filepath", str(tmp_path / "r.txt"), "--time-budget", "100"]
    before = time.monotonic()
    assert run(words, worker=[sys.executable, str(worker)], started=before - 98) == 0
    assert time.monotonic() - before < 2.0
    assert "out of time" in capfd.readouterr().err


def test_the_real_entry_point_keeps_its_budget_whatever_its_worker_is_doing(tmp_path):
    """Counted from outside, with the worker that loads torch, which is not done by then or refuses the model."""
    result = tmp_path / "r.txt"
    (tmp_path / "model.pt").write_bytes(b"this is no model")
    words = ["--model_filepath", str(tmp_path / "model.pt"), "--result_filepath", str(result), "--time_budget", "5"]
    words += ["--scratch_dirpath", str(tmp_path / "scratch")]
    before = time.monotonic()
    command = [sys.executable, "-m", "trojai_moth.submission.entrypoint", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert time.monotonic() - before < 5.0
    assert result.read_text() == "0.5\n" and "what was found until then stands" in done.stderr
