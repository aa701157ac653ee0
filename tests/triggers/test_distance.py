import dataclasses
import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from toys import BRIGHT, SIZE, PlantedNet, make_subject, planted_images

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_json, to_json
from trojai_moth.rounds.distances import distances
from trojai_moth.rounds.model import open_model
from trojai_moth.triggers import distance
from trojai_moth.triggers.distance import choose_pairs, image_hashes, measure_distances, weights_hash
from trojai_moth.triggers.distance_records import FAST, FAST_ERROR, DistanceMatrix, DistanceSettings, protocol
from trojai_moth.triggers.inversion import random_start
from trojai_moth.triggers.task import make_task

PAIRS = [(v, t) for v in range(3) for t in range(3) if v != t]
SETTINGS = DistanceSettings(steps=150, patience=5, initial_cost=0.01, seeds=(1, 2), stall_steps=150)
FASTER = DistanceSettings(steps=2, seeds=(1, 2, 3))


def measure(settings=SETTINGS, net=None, images=None, **options):
    return measure_distances(make_subject(net or PlantedNet()), images or planted_images(), settings, "toys", **options)


def flat(groups):
    return [pair for group in groups for pair in group]


@pytest.fixture(scope="module")
def full():
    return measure()


@pytest.fixture
def planted(monkeypatch):
    """Let every inversion answer with planted sizes, by (victim, target); returns the calls' pairs."""
    calls, sizes = [], {}

    def answer(subject, x, y, settings, pairs):
        calls.append(list(pairs))
        return torch.tensor([sizes.get(pair, [10.0] * len(settings.seeds)) for pair in pairs], dtype=torch.float64)

    monkeypatch.setattr(distance, "_sizes", answer)
    return calls, sizes


def test_distances_are_the_closed_form_ones(full):
    for victim, target in PAIRS:
        assert BRIGHT[victim] - 1e-3 <= full.distances[victim][target] <= 1.15 * BRIGHT[victim]
    assert all(full.distances[label][label] is None for label in range(3)) and full.censored == 0
    assert full.mean == pytest.approx(statistics.fmean(pair.distance for pair in full.pairs))
    assert full.mean_l1 == pytest.approx(3 * full.mean) and full.minimum == min(pair.distance for pair in full.pairs)
    assert full.geometric_mean == pytest.approx(statistics.geometric_mean(pair.distance for pair in full.pairs))
    assert full.geometric_mean < full.mean


def test_every_seed_is_kept_and_the_smallest_counts(full):
    assert [(pair.victim, pair.target) for pair in full.pairs] == PAIRS
    for pair in full.pairs:
        assert len(pair.sizes) == 2 and pair.sizes[0] != pair.sizes[1]
        assert pair.distance == min(pair.sizes) == full.distances[pair.victim][pair.target]
        assert pair.l1 == 3 * pair.distance and pair.images == 6
        # Of two values the standard deviation is their difference over the square root of two.
        assert pair.spread == pytest.approx(abs(math.log(pair.sizes[0] / pair.sizes[1])) / math.sqrt(2))
    assert full.spread == pytest.approx(statistics.fmean(pair.spread for pair in full.pairs)) and full.spread < 0.1


def test_seeds_are_rows_of_their_own(full):
    alone = measure(dataclasses.replace(SETTINGS, seeds=(2,)))
    for pair, single in zip(full.pairs, alone.pairs, strict=True):
        assert single.sizes[0] == pytest.approx(pair.sizes[1], rel=0.02)
    assert alone.spread is None and alone.pairs[0].spread is None


def test_every_row_starts_from_its_own_pair_and_seed(monkeypatch):
    rows, real = [], distance.invert

    def spy(subject, x, task, settings, start):
        rows.extend(zip(task.victims, task.targets.tolist(), *start, strict=True))
        return real(subject, x, task, settings, start)

    monkeypatch.setattr(distance, "invert", spy)
    measure(FASTER, pairs=PAIRS[:4])
    assert len(rows) == 12
    y, seen = planted_images().y, [(pair, seed) for pair in PAIRS[:4] for seed in FASTER.seeds]
    for (victim, target, mask, pattern), (pair, seed) in zip(rows, seen, strict=True):
        expected = random_start(make_task(y, [pair]), (3, SIZE, SIZE), seed)
        assert (victim, target) == pair
        assert torch.equal(mask, expected[0][0]) and torch.equal(pattern, expected[1][0])


def test_a_planted_backdoor_is_the_smallest_distance():
    found = measure(net=PlantedNet(backdoor=(2, 0, 6.0)))
    assert found.distances[2][0] == found.minimum <= 1.3 * BRIGHT[2] / 6 and found.distances[2][1] > 10


def test_a_pair_without_a_trigger_is_censored():
    net, images = PlantedNet(), planted_images()
    net.rows.data[2] = 0  # nothing lights class 2 any more
    images.x[images.y == 2] = images.x[images.y == 1]
    found = measure(net=net, images=images, pairs=[(0, 1), (0, 2), (1, 0)])
    assert found.distances[0][2] is None and found.censored == 1
    gone = found.pairs[1]
    assert gone.sizes == (None, None) and gone.distance is gone.l1 is gone.spread is None
    kept = [found.distances[0][1], found.distances[1][0]]
    assert found.mean == pytest.approx(statistics.fmean(kept)) and found.minimum == pytest.approx(kept[0])


def test_censored_seeds_are_in_no_figure(planted):
    nan = math.nan
    planted[1].update({(0, 1): [nan, 8.0, nan], (0, 2): [nan, 2.0, 4.0], (1, 0): [nan] * 3})
    found = measure(FASTER)
    by_pair = {(pair.victim, pair.target): pair for pair in found.pairs}
    assert by_pair[0, 1].sizes == (None, 8.0, None) and by_pair[0, 1].distance == 8.0
    assert by_pair[0, 1].spread is None and by_pair[0, 2].spread == pytest.approx(math.log(2) / math.sqrt(2))
    assert found.censored == 1 and found.mean == pytest.approx((8 + 2 + 30) / 5) and found.minimum == 2.0
    assert found.geometric_mean == pytest.approx((8 * 2 * 1000) ** 0.2)
    assert found.spread == pytest.approx(by_pair[0, 2].spread / 4)  # the three planted tens have a spread of 0


def test_classes_that_are_one_to_the_model_are_at_distance_zero(planted):
    planted[1][0, 1] = [-1e-5, 3.0, math.nan]
    found = measure(FASTER)
    assert found.pairs[0].sizes == (0.0, 3.0, None) and found.minimum == found.geometric_mean == found.pairs[0].l1 == 0
    assert found.pairs[0].spread is None and found.censored == 0


def test_nothing_found_is_none_not_zero(planted):
    planted[1].update({pair: [math.nan] * 3 for pair in PAIRS})
    found = measure(FASTER)
    assert found.censored == 6
    assert [found.mean, found.mean_l1, found.geometric_mean, found.minimum, found.spread] == [None] * 5
    assert from_json(DistanceMatrix, to_json(found)) == found


def test_round_trip(full):
    assert from_json(DistanceMatrix, to_json(full)) == full
    assert full.device == "cpu" and full.torch == torch.__version__ and full.settings == SETTINGS
    assert full.weights_sha256 == weights_hash(make_subject(PlantedNet()))


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_groups_and_order_do_not_change_sizes(full, rows):
    found = measure(dataclasses.replace(SETTINGS, rows_per_group=rows), pairs=PAIRS[::-1])
    assert [(pair.victim, pair.target) for pair in found.pairs] == PAIRS
    for pair, expected in zip(found.pairs, full.pairs, strict=True):
        assert pair.sizes == pytest.approx(expected.sizes, rel=0.02)


def test_a_subset_is_part_of_the_whole(full):
    found = measure(pairs=[(2, 1), (0, 2)])
    assert [(pair.victim, pair.target) for pair in found.pairs] == [(0, 2), (2, 1)]
    assert found.distances[0][1] is None and found.censored == 0
    for pair in found.pairs:
        assert pair.distance == pytest.approx(full.distances[pair.victim][pair.target], rel=0.02)


def test_groups_are_never_larger_than_asked_for(planted):
    calls, lines = planted[0], []
    measure(dataclasses.replace(FASTER, rows_per_group=7), images=planted_images(per_class=30), progress=lines.append)
    assert [len(group) for group in calls] == [1, 2, 2, 1] and flat(calls) == PAIRS
    assert [line.split(" rows")[0] for line in lines] == ["3/18", "9/18", "15/18", "18/18"]
    assert lines[-1].endswith(", 0 s left")
    calls.clear()
    measure(dataclasses.replace(FASTER, rows_per_group=2))  # a pair's seeds stay together
    assert [len(group) for group in calls] == [1] * 6


def test_only_so_many_images_and_the_first_ones():
    images = planted_images(per_class=8)
    few = dataclasses.replace(FASTER, images_per_class=3)
    found = measure(few, images=images)
    assert found.images == (3, 3, 3) and found.pairs[0].images == 3
    every = image_hashes(images, 3)
    assert found.image_sha256 == tuple(part[:3] for part in every)
    assert len({name for part in every for name in part}) == 24
    changed = ImagePool(images.x.clone(), images.y)
    changed.x[0, 0, 0, 0] += 0.25
    assert [a == b for a, b in zip(image_hashes(changed, 3)[0], every[0], strict=True)] == [False] + [True] * 7


def test_few_images_are_warned_of(planted):
    assert measure(FASTER).warnings == ()
    (line,) = measure(FASTER, images=planted_images(per_class=5)).warnings
    assert "classes 0, 1, 2 (fewest 5)" in line and "too small" in line
    (line,) = measure(FASTER, originals=[6, 2, 9]).warnings  # the rest are augmented copies
    assert "class 1 (fewest 2)" in line
    assert measure(FASTER, originals=[6, 2, 9], pairs=[(0, 1)]).warnings == ()


def test_a_class_without_images_is_left_out_as_victim_and_said(planted):
    images = planted_images()
    found = measure(FASTER, images=images.take(torch.nonzero(images.y != 1).flatten()))
    assert {pair.victim for pair in found.pairs} == {0, 2} and found.images == (6, 0, 6)
    assert found.warnings == ("no images of class 1: not measured as victim",)


def test_why_classes_are_lacking_is_said_by_those_who_know(planted):
    images = planted_images()
    found = measure(
        FASTER, images=images.take(torch.nonzero(images.y != 1).flatten()), lacking=["one image of class 1"]
    )
    assert found.warnings == ("one image of class 1",)
    assert measure(FASTER, images=images.take(images.positions(0)), pairs=[(0, 1)], lacking=[]).warnings == ()


def test_a_class_with_one_image_is_not_called_one_without(planted):
    pool = planted_images()
    single = pool.take(torch.cat([pool.positions(0), pool.positions(1)[:1], pool.positions(2)]))
    model = open_model(PlantedNet(), images=single.x, labels=single.y, device="cpu")
    line = distances(model, settings=FASTER).warnings[-1]
    assert line.startswith("a single image of class 1, and none is held back") and "--on train" in line


def test_weights_have_a_hash_of_their_own():
    net = PlantedNet()
    before = weights_hash(make_subject(net))
    assert weights_hash(make_subject(net).clone()) == before
    net.rows.data[0, 0, 0, 0] += 1e-6
    assert weights_hash(make_subject(net)) != before


class Stopped(Exception):
    """What a test stops a measurement with."""


def test_an_interrupted_measurement_goes_on_where_it_was(planted, tmp_path):
    calls, sizes = planted
    sizes.update({pair: [3.0 + number, math.nan, 20.0] for number, pair in enumerate(PAIRS)})
    file, settings = tmp_path / "d.partial.json", dataclasses.replace(FASTER, rows_per_group=3)

    def stop(line):
        if line.startswith("9/"):
            raise Stopped

    with pytest.raises(Stopped):
        measure(settings, partial=file, progress=stop)
    assert file.exists() and calls == [PAIRS[:1], PAIRS[1:2], PAIRS[2:3]]
    calls.clear()
    # Settings that only change the speed may differ, and so may the pairs that are asked for.
    found = measure(dataclasses.replace(settings, rows_per_group=300, batch_images=1000), partial=file)
    assert flat(calls) == PAIRS[3:]
    calls.clear()
    assert measure(settings, partial=file, pairs=PAIRS[1:2]).pairs == found.pairs[1:2] and calls == []
    uninterrupted = dataclasses.replace(measure(settings), seconds=found.seconds)
    assert found == dataclasses.replace(uninterrupted, settings=found.settings)


@pytest.mark.parametrize("what", ["settings", "weights", "images"])
def test_what_another_measurement_left_is_refused(planted, tmp_path, what):
    file = tmp_path / "d.partial.json"
    measure(FASTER, partial=file)
    net = PlantedNet(backdoor=(0, 1, 2.0))
    net.rows.data += 0.5
    other = {
        "settings": {"settings": dataclasses.replace(FASTER, steps=3)},
        "weights": {"net": net},
        "images": {"images": planted_images(seed=4)},
    }
    left = file.read_bytes()
    with pytest.raises(SettingsError, match=r"d\.partial\.json: was left by a measurement with other"):
        measure(**{"settings": FASTER, **other[what]}, partial=file)
    assert file.read_bytes() == left


def test_pairs_by_name_by_number_and_all():
    images = planted_images()
    assert choose_pairs(images.counts(3), None, 0) == PAIRS
    assert choose_pairs(images.counts(3), " 2->0, 0->1,2->0", 0) == [(0, 1), (2, 0)]
    three, two = (choose_pairs(images.counts(3), number, 5) for number in ("3", "2"))
    assert len(two) == 2 and set(two) < set(three) <= set(PAIRS)
    assert choose_pairs(images.counts(3), "3", 5) == three and choose_pairs(images.counts(3), "99", 5) == PAIRS
    assert len({tuple(choose_pairs(images.counts(3), "3", seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize("wanted", ["1->1", "0->3", "7->0", "1", "x->1", "0->1,", "0-1", "-1->0", ""])
def test_pairs_that_do_not_exist_are_refused(wanted):
    images = planted_images()
    without_one = images.take(torch.nonzero(images.y != 1).flatten())
    with pytest.raises(SettingsError, match="--pairs"):
        choose_pairs(without_one.counts(3), "1->0" if wanted == "1" else wanted, 0)


def test_nothing_to_measure_is_an_error():
    with pytest.raises(SettingsError, match="at least one pair"):
        measure(FASTER, pairs=[])
    with pytest.raises(SettingsError, match="at least one seed"):
        measure(dataclasses.replace(FASTER, seeds=()))


def test_the_stated_error_is_the_measured_one():
    """The record is made by benchmarks/distance_fast.py; until there is one, nothing may be stated."""
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "distance_fast.json"
    if not file.exists():
        assert FAST_ERROR == "its error has not been measured yet"
        return
    made = json.loads(file.read_text())
    assert made["summary"]["sentence"] == FAST_ERROR and made["summary"]["fast_against_full"]["pairs"] >= 30
    changed = json.loads(json.dumps(dict(FAST)))
    assert {name: made["settings"]["fast"][name] for name in changed} == changed


def test_the_presets():
    paper = DistanceSettings()
    assert (paper.images_per_class, paper.steps, paper.success_bound, len(paper.seeds)) == (100, 1000, 0.9, 3)
    assert paper.stall_steps >= paper.steps and paper.patience == 10 and paper.initial_cost == 1e-3
    fast = DistanceSettings(**FAST)
    assert fast.steps < paper.steps and len(fast.seeds) == 1 and fast.success_bound == paper.success_bound
    assert protocol(paper) != protocol(fast)
    assert protocol(paper) == protocol(dataclasses.replace(paper, rows_per_group=1, batch_images=1))
