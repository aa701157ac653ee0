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


@pytest.mark.parametrize("command", ["report", "export"])
def test_what_is_no_run_is_one_line(tmp_path, command):
    result = call(command, tmp_path)
    assert result.exit_code == 2 and "not a run directory; give one that rescan made" in result.stderr
