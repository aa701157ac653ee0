"""What a run of ``fleet_parts`` says that nothing happens to, and what others say."""

import pytest
from fleet_parts import install_for_all, make_run

from trojai_moth.eval.results import write_results
from trojai_moth.runs.execute import execute


def table(run):
    """results.csv without what no two runs have in common."""
    rows, _ = write_results(run.journal, {})
    return rows.drop(columns="seconds").to_csv(index=False)


def undisturbed_table(the_round, folder):
    """Of a run over ``make_round``'s in this process, written below this folder."""
    with pytest.MonkeyPatch.context() as patch:
        install_for_all(folder / "plugins", patch)
        run = make_run(*the_round, folder / "run", folder / "marks")
        execute(run)
    return table(run)
