import pandas as pd
from rich.console import Console

from trojai_moth.cli.display import verdict_table
from trojai_moth.eval.results import COLUMNS


def test_one_long_name_leaves_room_for_all_verdicts(capsys):
    rows = pd.DataFrame([dict.fromkeys(COLUMNS), dict.fromkeys(COLUMNS)])
    rows["model"], rows["verdict"] = ["id-" + "n" * 120, "id-00000001"], "not judged"
    Console(width=120).print(verdict_table(rows))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "not judged" in line and "id-00000001" in line]
    assert "".join(line.split(" ")[0] for line in lines[1:]).startswith("id-" + "n" * 120)
