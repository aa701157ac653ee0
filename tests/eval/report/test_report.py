import pandas as pd
import pytest

from trojai_moth.eval.report.markdown import to_markdown, verdict_lines
from trojai_moth.eval.results import COLUMNS
from trojai_moth.eval.summary import summarise


def row(model, label, verdict, flagged, **more):
    known = {"model": model, "label": label, "verdict": verdict, "flagged_before": flagged, "seconds": 2.0}
    return dict.fromkeys(COLUMNS) | known | more


@pytest.fixture
def rows():
    return pd.DataFrame(
        [
            row("id-1", False, "cleared", True, accuracy_before=0.99, accuracy_after=0.97, probability=0.1),
            row("id-2", False, "cleared", True, accuracy_before=0.98, accuracy_after=0.98, probability=0.2),
            row("id-3", False, "not judged", True, reason="time-out"),
            row("id-4", True, "kept", True, probability=0.9, pair_before="3->stop|sign", size_before=20.25),
            row("id-5", True, "not judged", None, reason="unreadable"),
        ]
    )


def find(lines, start):
    (line,) = [line for line in lines if line.startswith(start)]
    return line


def test_lines_say_counts_denominators_and_intervals(rows):
    lines = verdict_lines(summarise(rows, protocol="x"))
    assert find(lines, "Models:") == "Models: 5, of which 4 judged and 1 not judged."
    assert find(lines, "Flagged:") == "Flagged: 4 before, 2 after."
    assert find(lines, "Still flagged").endswith("first scan: 1.")
    assert find(lines, "Accuracy:") == "Accuracy: -1.0 percentage points on average over 2 hardened."
    assert find(lines, "False positives:") == (
        "False positives: 3 before, 1 after, among 3 clean judged (2 of 3 removed, 67 %, 95 % interval 9-99 %)."
    )
    assert find(lines, "True positives:") == (
        "True positives: 1 before, 1 after, among 1 poisoned judged (0 of 1 lost, 0 %, 95 % interval 0-98 %)."
    )
    assert find(lines, "Missed:") == "Missed: 0 of 1 poisoned judged never flagged (0 %, 95 % interval 0-98 %)."
    assert "over 3 labelled" in find(lines, "Probabilities after:")


def test_without_labels_the_reader_is_told_what_is_missing(rows):
    bare = rows.assign(label=None)
    summary = summarise(bare, protocol="x")
    lines = verdict_lines(summary)
    assert "ground_truth.csv" in find(lines, "Labels:")
    text = to_markdown(bare, summary)
    assert "positives:" not in text and "published" not in text


def test_partly_labelled_rounds_say_so(rows):
    lines = verdict_lines(summarise(rows.assign(label=[False, None, False, True, True]), protocol="x"))
    assert find(lines, "Labels:") == "Labels: known for 3 of 4 judged; rates are over these."


def test_no_rate_is_made_up_where_nothing_was_flagged():
    lines = verdict_lines(summarise(pd.DataFrame([row("id-1", False, "clean", False)]), protocol="x"))
    assert find(lines, "False positives:").endswith("there were none that could be removed.")
    assert not any(line.startswith(("Missed", "Accuracy", "Probabilities")) for line in lines)


def test_markdown_puts_published_results_beside_ours(rows):
    text = to_markdown(rows, summarise(rows, protocol="x"))
    assert "of NIST's own test sets" in text
    assert "| 288 | 0.322 | 0.902 |" in text and "| 288 | 0.318 | 0.907 |" in text
    assert "| this run, whole protocol | 3 |" in text


def test_markdown_has_one_well_formed_line_per_model(rows):
    text = to_markdown(rows, summarise(rows, protocol="x"))
    lines = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line.startswith("| id-")}
    assert sorted(lines) == list(rows["model"])
    assert {line.replace("\\|", "").count("|") for line in lines.values()} == {11}
    assert "3 to stop\\|sign" in lines["id-4"] and "20.2" in lines["id-4"] and "poisoned" in lines["id-4"]
    assert "time-out" in lines["id-3"]
    assert "nan" not in text.lower()


def test_text_from_a_round_can_not_break_the_table(rows):
    rows.loc[0, "model"] = "id|<b>[x](y)`\n| evil"
    line = find(to_markdown(rows, summarise(rows, protocol="x")).splitlines(), r"| id\|")
    assert line.startswith(r"| id\|\<b\>\[x\](y)\` \| evil | ")


def test_a_trigger_for_all_victims_is_named_so():
    rows = pd.DataFrame([row("id-1", True, "kept", True, pair_before="any->4", pair_after="0->2")])
    assert "any to 4 -> 0 to 2" in to_markdown(rows, summarise(rows, protocol="x"))
