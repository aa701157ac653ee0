"""The bounds that decide where no rule fits, on the records that they were set on: what the documents say of them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
score_rule = pytest.importorskip("score_rule")
SETS = (*score_rule.LEARNED, "tenth", "eleventh")


@pytest.fixture(scope="module")
def judged():
    """Flagged models with whether they were taught a filter, by stamps alone."""
    found = [score_rule.blind_to_filters(record) for name in SETS for record in score_rule.read_set(name)]
    return [(model, model.conditions["trigger"] != "polygon") for model in score_rule.scored(found, None)]


def test_no_known_polygon_is_below_a_bound(judged):
    injected = [model for model, filtered in judged if model.poisoned and not filtered]
    assert len(injected) == 78 and not any(model.cleared_blind for model in injected)


def test_most_natural_triggers_are(judged):
    natural = [model for model, _ in judged if not model.poisoned]
    assert (sum(model.cleared_blind for model in natural), len(natural)) == (95, 127)


def test_a_filter_is_no_patch_and_needs_more_than_stamps(judged):
    filtered = [model.cleared_blind for model, filtered in judged if model.poisoned and filtered]
    assert sum(filtered) > len(filtered) / 2
