import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from run_on_paper import write_run

from trojai_moth.cli.main import main


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", models=5)
    return tmp_path / "run"


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_page_or_markdown(run, tmp_path):
    result = call("report", run)
    assert result.exit_code == 0 and result.stdout == f"{run / 'report.html'}: 5 models, 0 with a card\n"
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    result = call("report", run, "--format", "markdown")
    assert result.exit_code == 0 and result.stdout.startswith("# Protocol: ") and "| id-00000004 |" in result.stdout
    assert call("report", run, "--format", "markdown", "--out", tmp_path / "r.md").exit_code == 0
    assert (tmp_path / "r.md").read_text() == result.stdout


def test_labels_of_a_round_are_joined(run, tmp_path):
    lines = "".join(f"id-{number:08d},{number == 0}\n" for number in range(5))
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "METADATA.csv").write_text(f"model_name,poisoned\n{lines}")
    result = call("export", run, "--truth", tmp_path / "round", "--no-parquet", "--out", tmp_path / "tables")
    assert result.exit_code == 0 and result.stdout.count("\n") == 2
    rows = (tmp_path / "tables" / "results.csv").read_text().splitlines()
    assert rows[1].startswith("id-00000000,squeezenetv1_1,5,True,") and ",False,True," in rows[2]


def edit(run, model, stage, **changes):
    path = run / "journal" / f"{model}.{stage}.json"
    record = json.loads(path.read_text())
    for name, value in changes.items():
        place, _, key = name.rpartition("__")
        (record[place] if place else record)[key] = value
    path.write_text(json.dumps(record))


FORMULAS = ("=cmd|'/C calc'!A0", "+1+cmd|x", "-1+A1", "@SUM(1+1)", "\t=1", "\r=1", "x\r=1", " =1", "\uff1d1")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_table_is_a_formula(run, tmp_path, text):
    edit(run, "id-00000003", "before", verdict__reason=text, note=text, architecture=text)
    assert call("export", run, "--no-parquet", "--out", tmp_path).exit_code == 0
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = text.replace("\r", "\n") if text.startswith("x") else "'" + text.replace("\r", "\n")
    row = next(row for row in rows if row["model"] == "id-00000003")
    assert {row["reason"], row["note"], row["architecture"]} == {shown}
    assert row["score_before"] == "-0.4"  # which is a number, and stays one
    assert call("report", run).exit_code == 0
    data = (run / "report.html").read_text().partition('id="data">')[2].partition("</script>")[0]
    rows = list(csv.DictReader(io.StringIO(json.loads(data)["csv"]["results"])))
    assert next(row for row in rows if row["model"] == "id-00000003")["note"] == shown


HOSTILE = {
    "deep": "[" * 200_000,
    "a huge number": '{"seconds": ' + "9" * 5000 + "}",
    "half a character": '{"reason": "\\ud800"}',
    "another type": "[1]",
    "empty": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["run.json", "journal/id-00000000.before.json", "journal/id-00000004.failure.json"])
def test_a_hostile_record_is_one_line_that_names_it(run, name, text):
    (run / name).write_text(text)
    for words in (("report", run), ("export", run, "--no-parquet"), ("report", run, "--format", "markdown")):
        result = call(*words)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1 and len(result.stderr) < 600
        assert Path(name).name in result.stderr and "damaged" in result.stderr and "bug" not in result.stderr
    result = call("status", run)
    assert result.exit_code == (2 if name == "run.json" else 0) and "bug" not in result.stderr


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("before", {"verdict__score": 0.5}),  # it says that it is clean
        ("before", {"verdict__probability": 7.0}),
        ("before", {"classes": 2**62}),
        ("before", {"classes": -1}),
        ("before", {"seconds": -1}),
        ("before", {"accuracy": "much"}),
        ("before", {"unknown": 1}),
    ],
)
def test_an_edited_record_is_one_line_or_no_harm(run, stage, changes):
    edit(run, "id-00000003", stage, **changes)
    result = call("report", run)
    assert "bug" not in result.stderr
    assert result.exit_code == 0 or "id-00000003.before.json: damaged" in result.stderr
    assert result.exit_code == (0 if changes == {"classes": 2**62} else 2)


@pytest.mark.parametrize(
    "text", ["", "model\na\n", "model,label\na,maybe\n", "label\nTrue\n", "a\xff,b", '"', "x\0y\n"]
)
def test_a_table_of_results_that_was_changed_is_one_line(run, text):
    (run / "results.csv").write_bytes(text.encode("latin-1"))
    result = call("report", run)
    assert result.exit_code == 2 and f"{run / 'results.csv'}: " in result.stderr and "bug" not in result.stderr
    assert "delete it" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["{", "[" * 200_000, "{}"])
def test_a_card_that_no_verdict_needs_is_left_out(run, text):
    folder = run / "cards" / "id-00000000"
    folder.mkdir(parents=True)
    (folder / "class_distances.json").write_text(text)
    (folder / "class_pairs.png").write_text("no picture")
    result = call("report", run)
    assert result.exit_code == 0 and "0 with a card" in result.stdout
    assert "class_distances.json" in result.stderr and "class_pairs.png: no PNG" in result.stderr


@pytest.mark.parametrize("command", ["report", "export"])
def test_what_is_no_run_is_one_line(tmp_path, command):
    result = call(command, tmp_path)
    assert result.exit_code == 2 and "not a run directory; give one that rescan made" in result.stderr
