"""docs/results-schema.md and the tables have the same columns and types."""

import re

from conftest import ROOT

from trojai_moth.eval.report.export import CANDIDATE_TYPES
from trojai_moth.eval.results import _TYPES, COLUMNS


def documented(heading):
    text = (ROOT / "docs" / "results-schema.md").read_text()
    part = text.split(f"## {heading}:")[1].split("\n## ")[0]
    found = {}
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found |= {name: cells[1] for name in re.findall(r"`(\w+)`", cells[0])} if len(cells) > 2 else {}
    return found


def test_results():
    assert documented("results") == {name: _TYPES.get(name, "text") for name in COLUMNS}


def test_candidates():
    assert documented("candidates") == {name: kind.replace("str", "text") for name, kind in CANDIDATE_TYPES.items()}
