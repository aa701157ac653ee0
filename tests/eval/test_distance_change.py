import dataclasses

import pytest

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.records import from_json, to_json
from trojai_moth.eval.gain import DistanceChange, compare_distances
from trojai_moth.triggers.distance_records import DistanceMatrix, DistanceSettings, PairDistance

PAIRS = [(v, t) for v in range(4) for t in range(4) if v != t]


def matrix(size, pairs=PAIRS, **changes):
    """size(v, t) for every pair; anything else by name."""
    found = {pair: size(*pair) for pair in pairs}
    fields = {
        "model_id": "id-00000001",
        "architecture": "toy",
        "classes": 4,
        "source_sha256": "a" * 64,
        "weights_sha256": "b" * 64,
        "version": "1",
        "torch": "2",
        "device": "cpu",
        "data": "toys",
        "settings": DistanceSettings(),
        "images": (9,) * 4,
        "image_sha256": tuple((f"{label}0", f"{label}1") for label in range(4)),
        "distances": tuple(tuple(found.get((v, t)) for t in range(4)) for v in range(4)),
        "pairs": tuple(
            PairDistance(victim=v, target=t, images=9, sizes=(d,), distance=d, l1=d and 3 * d, spread=None)
            for (v, t), d in found.items()
        ),
        "censored": sum(d is None for d in found.values()),
        "mean": 1.0,
        "mean_l1": 3.0,
        "geometric_mean": 1.0,
        "minimum": 1.0,
        "spread": None,
        "warnings": (),
        "seconds": 1.0,
    }
    return DistanceMatrix(**{**fields, **changes})


def old(v, t):
    return 10.0 * (v + 1) + t


BEFORE = matrix(old)
AFTER = matrix(lambda v, t: 2 * old(v, t), weights_sha256="c" * 64)


def test_the_gain_and_the_smallest_pairs():
    change = compare_distances(BEFORE, AFTER)
    assert [figure.change for _, figure in change.gain.changes] == pytest.approx([1.0] * 3) and change.gain.pairs == 12
    smallest = [(pair.victim, pair.target, pair.before, pair.after) for pair in change.smallest_pairs]
    assert smallest == [(v, t, old(v, t), 2 * old(v, t)) for v, t in [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2)]]
    assert change.notes == () and change.settings["steps"] == 1000
    assert from_json(DistanceChange, to_json(change)) == change


def test_unmeasured_pairs_are_not_censored_ones():
    part = PAIRS[:3]
    gone = matrix(lambda v, t: None if t == 2 else 5.0, part)
    gain = compare_distances(matrix(old, part), gone).gain
    assert (gain.pairs, gain.censored_before, gain.censored_after) == (2, 0, 1)


OTHER = dataclasses.replace(DistanceSettings(), steps=999)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (matrix(old, classes=5), "4 classes and 5"),
        (matrix(old, settings=OTHER), "steps is 1000 and 999"),
        (matrix(old, settings=dataclasses.replace(OTHER, steps=1000, seeds=(1, 2, 3))), "seeds is"),
        (matrix(old, settings=dataclasses.replace(OTHER, steps=1000, success_bound=0.8)), "success_bound is 0.9 and 0"),
        (matrix(old, PAIRS[1:]), "0->1 was measured in one of them only"),
        (matrix(old, image_sha256=(("00", "01"), ("10", "11"), ("20", "29"), ("30", "31"))), "other images of class 2"),
        (matrix(old, image_sha256=(("00", "01"), ("10",), ("20", "21"), ("30", "31"))), "other images of class 1"),
    ],
)
def test_what_is_not_comparable_is_refused_in_one_line(other, words):
    for pair in ((BEFORE, other), (other, BEFORE)):
        with pytest.raises(SettingsError) as caught:
            compare_distances(*pair, names=("A.json", "B.json"))
        text = str(caught.value)
        assert text.startswith("A.json and B.json: not comparable") and "\n" not in text
    with pytest.raises(SettingsError, match=words):
        compare_distances(BEFORE, other)


def test_settings_of_speed_do_not_matter():
    faster = dataclasses.replace(DistanceSettings(), batch_images=7, rows_per_group=9)
    assert compare_distances(BEFORE, matrix(old, settings=faster)).gain.mean.change == 0


def test_distances_of_a_search_that_was_cut_short_are_said_to_be_too_large():
    few = [dataclasses.replace(DistanceSettings(), **short) for short in ({"steps": 250}, {"stall_steps": 60})]
    words = ["at most 250 steps (paper: 1000)", "at most 1000 steps, or 60 without progress (paper: 1000)"]
    for settings, said in zip(few, words, strict=True):
        (note,) = compare_distances(matrix(old, settings=settings), dataclasses.replace(AFTER, settings=settings)).notes
        assert said in note and note.endswith("distances come out too large")


def test_what_should_be_known_is_noted():
    after = matrix(old, source_sha256="d" * 64, device="other", torch="3", warnings=("not these",))
    notes = compare_distances(matrix(old, warnings=("few images",)), after).notes
    assert notes[0] == "few images" and "not these" not in notes
    for words in ("different model files", "the same weights", "torch: 2 before, 3 after", "device: cpu before, other"):
        assert any(words in note for note in notes), words
