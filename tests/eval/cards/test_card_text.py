"""What a card says of hardening: the three changes of the same pairs, and what is in none of them."""

import dataclasses

import pytest

from trojai_moth.eval.cards.card import Origin, Outcome, make_record
from trojai_moth.eval.cards.text import card_text
from trojai_moth.eval.distance_bounds.bounds import BoundSettings, combine
from trojai_moth.rounds.data_settings import DataSettings

from ...triggers.test_heatmap import matrix


def card(before, after=None, **outcome):
    more = {"weights_sha256": "", "seed": 0, "data": "", "features": "", "notes": ()}
    bounds = combine(before, after, {}, area=32 * 32, settings=BoundSettings(), **more)
    return make_record(
        before, after, bounds, Outcome(**outcome), Origin(data=DataSettings(), on="held", seed=0), (32, 32)
    )


def rows(made):
    return [line for line in card_text(made).splitlines() if line.startswith("|")]


BEFORE = matrix(3, lambda v, t: 10.0 + v)


def test_hardening_is_three_changes_with_their_intervals_in_the_table_and_the_results():
    outcome = {"accuracy_before": 1.0, "accuracy_after": 0.9, "images": "9 images", "verdict": "cleared"}
    made = card(BEFORE, matrix(3, lambda v, t: 2 * (10.0 + v)), **outcome)
    assert rows(made) == [
        "| class distance in pixels | before hardening | after | change (95 % interval over pairs) |",
        "|---|---|---|---|",
        "| mean | 11.0 | 22.0 | +100% (+100% to +100%) |",
        "| geometric mean | 11.0 | 21.9 | +100% (+100% to +100%) |",
        "| smallest | 10.0 | 20.0 | +100% (+100% to +100%) |",
        "| accuracy on 9 images | 100.0% | 90.0% | |",
        "| verdict of the scan | | cleared | |",
    ]
    names = ("class_distance_mean_change", "class_distance_geometric_mean_change", "class_distance_minimum_change")
    for name in names:
        assert made.scalars()[name] == 1.0
        assert made.conditions(name)["interval_95"] == pytest.approx([1.0, 1.0])
    assert "interval_95" not in made.conditions("class_distance_mean")
    assert made.conditions("accuracy_after_hardening") is None


def test_pairs_that_lost_their_trigger_are_counted_and_in_no_change():
    after = matrix(3, lambda v, t: None if v == 2 else 15.0)
    lines = rows(card(BEFORE, after))
    assert "| mean of the 4 pairs with both | 10.5 | 15.0 | +43% (+36% to +50%) |" in lines
    assert "| mean of all found | 12.0 | 12.0 | |" in lines  # as the two matrices say
    assert lines[-1] == "| pairs without a trigger | 0 | 2 | |"
    lost = rows(card(BEFORE, matrix(3, lambda v, t: None)))
    assert not any("%" in line for line in lost[2:]) and lost[-1] == "| pairs without a trigger | 0 | 6 | |"


def test_a_search_that_was_cut_short_is_noted():
    short = dataclasses.replace(BEFORE.settings, steps=250)
    assert "Note: searched for at most 250 steps (paper: 1000): distances come out too large." in card_text(
        card(dataclasses.replace(BEFORE, settings=short))
    )
    assert "paper" not in card_text(card(BEFORE))
