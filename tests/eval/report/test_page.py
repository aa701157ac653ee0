"""The report as text: what is in it, that nothing of a hostile round can become markup, and the tables for others."""

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from PIL import Image
from run_on_paper import HOSTILE, write_distances, write_run, write_triggers

from trojai_moth.eval.report.export import CANDIDATE_TYPES, export_tables, write_tables
from trojai_moth.eval.report.page import BINS, render_page, size_chart
from trojai_moth.eval.report.run_view import CANDIDATE, read_view
from trojai_moth.eval.results import read_results

from ...triggers.test_heatmap import matrix


class Reader(HTMLParser):
    """Tags, the links and sources in them, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.scripts, self._script = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.handlers = [name for name, _ in attrs if name.startswith("on")]
        assert not self.handlers
        if tag == "script":
            self._script = dict(attrs).get("type", "javascript")

    def handle_data(self, data):
        if self._script:
            self.scripts.append((self._script, data))

    def handle_endtag(self, tag):
        self._script = None if tag == "script" else self._script


@pytest.fixture
def view(tmp_path):
    """Six models, some labelled, two with a card."""
    ids, labels = write_run(tmp_path / "run")
    rows = read_view(tmp_path / "run").rows
    rows["label"] = [labels[model_id] for model_id in ids]
    rows.to_csv(tmp_path / "run" / "results.csv", index=False)
    cards = tmp_path / "run" / "cards"
    write_distances(cards / ids[0], matrix(5, lambda v, t: 10.0 + v), matrix(5, lambda v, t: 20.0 + v))
    Image.new("RGB", (8, 8)).save(cards / ids[0] / "class_pairs.png")
    return read_view(tmp_path / "run")


def test_triggers_of_the_journal_are_on_the_page(tmp_path):
    ids, _ = write_run(tmp_path / "run")
    assert "data:image/png" not in render_page(read_view(tmp_path / "run"))
    best = write_triggers(tmp_path / "run", ids[1], "after")
    page = render_page(read_view(tmp_path / "run"))
    data = json.loads(next(text for kind, text in Reader(page).scripts if kind == "application/json"))
    ((victim, target, uri),) = data["triggers"][ids[1]]["after"]
    assert (victim, target) == (best.victim, best.target) and uri.startswith("data:image/png;base64,")
    assert list(data["triggers"]) == [ids[1]]


def test_the_view_joins_labels_cards_and_protocol(view):
    assert view.rows["label"].notna().all() and view.summary.models == 6
    assert [row.name for row in view.protocol] == [
        "scanner alone", "oracle: clean ones hardened", "naive: all hardened",
    ]  # fmt: skip
    first = view.models["id-00000000"]
    assert first["distances"]["before"][1][0] == 11.0 and first["distances"]["pairs"][0][4] == 3.0
    assert list(view.pictures) == ["id-00000000"] and view.models["id-00000001"]["distances"] is None


def test_the_page_holds_every_model_and_needs_nothing_else(view):
    text = render_page(view)
    page = Reader(text)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert [kind for kind, _ in page.scripts] == ["application/json", "javascript"]
    data = json.loads(page.scripts[0][1])
    assert list(data["models"]) == list(view.rows["model"])
    assert len(re.findall(r'<tr data-label="', text)) == 6
    assert data["csv"]["results"] == view.rows.to_csv(index=False)
    assert data["csv"]["protocol"].count("\n") == 4 and data["csv"]["sizes"].count("\n") == 2 * BINS + 1
    assert data["pictures"]["id-00000000"].startswith("data:image/png;base64,")
    assert "not made with <code>--verdict blind" in text


def test_nothing_of_a_hostile_round_becomes_markup(tmp_path):
    write_run(tmp_path / "run", hostile=True)
    view = read_view(tmp_path / "run")
    assert any(HOSTILE in str(reason) for reason in view.rows["reason"])
    text = render_page(view)
    page = Reader(text)
    harmless = Reader(render_page(harmless_view(tmp_path)))
    assert page.tags == [*harmless.tags[: page.tags.index("tbody")], *page.tags[page.tags.index("tbody") :]]
    assert "img" not in page.tags and "b" not in page.tags and page.tags.count("script") == 2
    assert HOSTILE in json.loads(page.scripts[0][1])["models"]["id-00000000"]["before"]["reason"]
    assert "49" not in re.sub(r"[^{}]*", "", text) and "{{ 7*7 }}" in text


def harmless_view(tmp_path):
    write_run(tmp_path / "harmless")
    return read_view(tmp_path / "harmless")


def test_the_policy_lets_only_this_script_run(view):
    text = render_page(view)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    import base64
    import hashlib

    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_a_run_without_labels_or_triggers_is_shown_too(tmp_path):
    write_run(tmp_path / "run", models=5)
    view = read_view(tmp_path / "run")
    assert view.protocol == () and "Ways to decide" not in render_page(view)
    empty = view.rows.assign(size_before=float("nan"), size_after=float("nan"))
    assert size_chart(empty) is None


def test_the_chart_counts_every_model_once(view):
    chart = size_chart(view.rows)
    counts = chart.counts.groupby("when")[["clean", "poisoned", "unlabelled"]].sum().sum(axis=1)
    assert counts["before"] == view.rows["size_before"].notna().sum()
    assert counts["after"] == view.rows["size_after"].notna().sum()
    assert sum(len(panel.bars) for panel in chart.panels) > 0


def test_tables_come_back_as_they_were(view, tmp_path):
    pytest.importorskip("pyarrow")
    tables = export_tables(view)
    written = write_tables(tables, tmp_path / "out", parquet=True)
    assert [path.name for path in written] == [
        "results.csv", "candidates.csv", "results.parquet", "candidates.parquet",
    ]  # fmt: skip
    again = pd.read_parquet(tmp_path / "out" / "results.parquet")
    pd.testing.assert_frame_equal(again, view.rows, check_dtype=False)
    pd.testing.assert_frame_equal(read_results(tmp_path / "out" / "results.csv"), view.rows, check_dtype=False)
    candidates = pd.read_parquet(tmp_path / "out" / "candidates.parquet")
    scans = view.rows["flagged_before"].notna().sum() + view.rows["flagged_after"].notna().sum()
    assert len(candidates) == 6 * scans and set(candidates.columns) == {"model", "stage", "rank", *CANDIDATE}
    assert set(candidates.columns) == set(CANDIDATE_TYPES)
    best = candidates[(candidates["rank"] == 1) & (candidates["stage"] == "before")].set_index("model")["size"]
    known = view.rows.set_index("model")["size_before"].dropna()
    assert best.to_dict() == pytest.approx(known.to_dict(), rel=1e-3)


def test_without_pyarrow_the_csv_is_there_and_one_line_says_so(view, tmp_path, monkeypatch):
    import sys

    from trojai_moth.core.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"trojai-moth\[parquet\]"):
        write_tables(export_tables(view), tmp_path / "out", parquet=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["candidates.csv", "results.csv"]
