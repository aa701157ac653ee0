"""Files of strangers, as they are: every one is read as data, and what is no image classifier is refused by name."""

import csv

import pytest

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import inspect_model, load_model

FILES = {
    "akamaster": 2,
    "ibau": 5,
    "nad": 3,
    "odyssey": 2,
    "squeezenet": 3,
    "trojai-other": 3,
    "verazuo": 1,
    "wxr1998": 2,
}


@pytest.fixture
def zoo(extra_data):
    folder = extra_data / "real" / "zoo"
    if not folder.is_dir():
        pytest.skip("needs the zoo of real models")
    with open(folder / "zoo.csv", encoding="utf-8", newline="") as table:
        return folder, [row for row in csv.DictReader(table) if (folder / row["file"]).is_file()]


@pytest.mark.parametrize("owner", FILES)
def test_real_files(zoo, owner):
    folder, rows = zoo
    rows = [row for row in rows if row["file"].startswith(f"{owner}/")]
    assert len(rows) == FILES[owner]
    for row in rows:
        found = inspect_model(folder / row["file"])
        assert found.tensors and found.first_tensors, row["file"]
        if owner == "trojai-other":
            with pytest.raises(UnreadableModelError, match=r"of TrojAI .*, not an image classifier; give a model"):
                load_model(folder / row["file"])
        elif owner == "squeezenet":
            assert load_model(folder / row["file"]).classes == int(row["classes"])
        else:
            assert found.outputs == int(row["classes"]) and "name what does, --architecture" in found.reason
