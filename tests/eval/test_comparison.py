import math
from dataclasses import replace

import pytest
import torch
from fake_hardener import Scale, ScaleSettings, named
from toys import AS_STORED, BACKDOOR_ROW, BRIGHT, PlantedNet, make_subject, planted_images, planted_samples

from trojai_moth.core.errors import RunDirectoryError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_dict, from_json, read_record, to_json
from trojai_moth.eval.comparison import (
    ABLATION,
    Comparison,
    ComparisonSettings,
    Entry,
    Judgement,
    Method,
    legend,
    make_table,
    methods_of,
    to_frame,
    write_chart,
)
from trojai_moth.eval.contest import Contest
from trojai_moth.hardeners.weights import load_weights
from trojai_moth.rounds.config_file import CaseConfig
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.rounds.open_folder import OpenedFolder
from trojai_moth.rounds.poisoned_examples import PoisonedExamples

BEFORE = ((None, 2.0, 10.0), (None, None, 20.0), (4.0, 8.0, None))
ALL = tuple((v, t) for v in range(3) for t in range(3) if v != t)
# Twice, half, found at last, alike, lost, fourfold.
AFTER = ((None, 4.0, 5.0), (6.0, None, 20.0), (None, 32.0, None))


def judgement(distances, accuracy=0.9, attack=None):
    return Judgement(accuracy=accuracy, robustness=0.4, attack_success=attack, distances=distances, seconds=3.0)


def entry(method, distances, *, seconds=None, **figures):
    return Entry(method=method, seconds=seconds, judgement=judgement(distances, **figures))


class TestTable:
    def test_changes_are_over_pairs_with_both_sizes(self):
        entries = [entry("original", BEFORE, attack=0.9), entry("moth", AFTER, seconds=90, accuracy=0.88, attack=0.1)]
        first, row = make_table(entries, ALL)
        assert (row.pairs, row.pairs_tried, row.shrunk) == (4, 6, 1)
        assert (row.mean.before, row.mean.after, row.mean.change) == pytest.approx((40 / 4, 61 / 4, 61 / 40 - 1))
        assert row.geometric.change == pytest.approx(math.sqrt(2) - 1)
        assert (row.smallest.before, row.smallest.after, row.smallest.change) == (2.0, 4.0, 1.0)
        for change in (row.mean, row.geometric, row.smallest):
            assert change.low < change.change <= change.high
        assert row.distance_pixels == row.mean.after
        assert row.distance_l1 == pytest.approx(3 * row.distance_pixels)
        assert row.minutes == 1.5 and row.accuracy_loss == pytest.approx(0.02)
        assert (row.attack_before, row.attack_after) == (0.9, 0.1)
        assert first.distance_pixels == pytest.approx(44 / 5) and first.pairs == 5
        assert first.mean is first.accuracy_loss is first.attack_after is first.minutes is None

    def test_changes_are_over_the_chosen_pairs_and_the_injected_ones_are_apart(self):
        entries = [entry("original", BEFORE), entry("moth", AFTER)]
        first, row = make_table(entries, [(0, 1), (2, 0)], injected=[(0, 2), (1, 2)])
        assert (row.pairs, row.pairs_tried, row.mean.change) == (1, 2, 1.0)
        assert (row.injected_before_pixels, row.injected_after_pixels) == (10.0, 5.0)
        assert first.injected_before_pixels == 10.0 and first.injected_after_pixels is None
        assert make_table(entries, ALL, injected=[(2, 0)])[1].injected_after_pixels is None

    def test_a_failed_method_is_a_row_without_figures(self):
        entries = [entry("original", BEFORE), Entry(method="pgd", failure="no room")]
        row = make_table(entries, ALL)[1]
        assert row.failure == "no room" and row.accuracy is row.mean is row.distance_pixels is None

    def test_a_method_that_leaves_no_pair_to_measure_has_no_change(self):
        nothing = ((None,) * 3,) * 3
        row = make_table([entry("original", BEFORE), entry("uap", nothing)], ALL)[1]
        assert row.pairs == 0 and row.mean is row.smallest is row.distance_l1 is None and row.accuracy == 0.9

    def test_a_table_needs_the_original(self):
        for entries in ([], [Entry(method="moth", failure="x")]):
            with pytest.raises(ValueError, match="original"):
                make_table(entries, ALL)

    def test_the_frame_has_a_column_per_field_and_whole_pairs(self):
        entries = [entry("original", BEFORE), entry("moth", AFTER), Entry(method="pgd", failure="x")]
        lines = to_frame(make_table(entries, ALL)).to_csv(index=False).splitlines()
        assert lines[0].startswith("method,accuracy,robustness,minutes,distance_pixels,distance_l1,pairs,pairs_tried,")
        assert "mean_before,mean_after,mean_change,mean_low,mean_high,geometric_before," in lines[0]
        assert ",4,6,10.0,15.25,0.52" in lines[2] and lines[3].startswith("pgd,,") and lines[3].endswith(",x")


def test_methods_once_each_then_the_ablation():
    found = methods_of(["pgd", "moth", "pgd"], ablation=True)
    assert [method.label for method in found] == ["pgd", "moth", *(f"moth without {part}" for part in ABLATION)]
    assert [method.hardener for method in found[2:]] == ["moth"] * 4
    assert found[2].slug == "moth-without-symmetric" and Method(hardener="a/../b").slug == "a-b"


class Erasable(PlantedNet):
    """The planted network with a backdoor 0 -> 2 whose strength is a weight."""

    def __init__(self):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        self.backdoor = (0, 2, 3.0 * float(self.strength.detach()))
        return super().forward(x)


METER = {"images_per_class": 2, "steps": 90, "seeds": [1], "stall_steps": 60}
JUDGE = {"robustness": {"steps": 2}, "judge": {"robustness_per_class": 2}}
SETTINGS = from_dict(ComparisonSettings, {"distance": METER, **JUDGE})
# Distances are not found with it, which is enough where they do not matter.
QUICK = from_dict(ComparisonSettings, {"distance": {**METER, "steps": 2}, **JUDGE})
ERASE = (Method(hardener="erase"), named("erase", "strength")(ScaleSettings(factor=0.0)))
IDLE = (Method(hardener="idle"), named("idle")())
CRASH = (Method(hardener="crash"), named("crash")(ScaleSettings(error="no\nroom")))


@pytest.fixture
def contest(tmp_path):
    """A quick contest on the planted network with a backdoor; Scale.calls is empty at the start."""
    subject, images = make_subject(Erasable()), planted_images(per_class=2)
    case = ModelFolder("id-toy", tmp_path / "model", CaseConfig(architecture="toy", classes=3, size=subject.size))
    opened = OpenedFolder(subject, (images.x * 255).byte(), images, (), "toy", AS_STORED)
    x = images.x[images.y == 0].clone()
    x[:, :, BACKDOOR_ROW, :3] = 1.0
    poisoned = PoisonedExamples(ImagePool(x, torch.zeros(2, dtype=torch.int64)), torch.tensor([2, 2]))
    Scale.calls.clear()
    return Contest(case, opened, planted_samples(), poisoned, QUICK, tmp_path / "out", lambda text: None)


@pytest.fixture
def exact(contest):
    """The same contest, whose distances are those of the planted network."""
    return replace(contest, settings=SETTINGS)


def called():
    return [name for name, _, _ in Scale.calls]


def test_erasing_a_planted_backdoor_shows_in_distance_and_attack_success(exact):
    comparison = exact.run([ERASE, IDLE])
    original, erased, idle = comparison.table
    before, after = (comparison.entries[number].judgement.distances for number in (0, 1))
    # In closed form 4 / 3 pixels and 4; what is inverted comes close from above.
    assert BRIGHT[0] / 3 < before[0][2] < 0.75 * BRIGHT[0] < 0.95 * BRIGHT[0] < after[0][2] < 2 * BRIGHT[0]
    # The same images, pairs and starts: other victims' figures stay as they are.
    assert [after[1][t] for t in (0, 2)] == pytest.approx([before[1][t] for t in (0, 2)], rel=0.01)
    assert (original.attack_before, erased.attack_after, idle.attack_after) == (1.0, 0.0, 1.0)
    assert (original.injected_before_pixels, erased.injected_after_pixels) == (before[0][2], after[0][2])
    assert idle.mean.change == idle.accuracy_loss == 0 and erased.smallest.change > 0.2
    assert original.accuracy == 1.0 and 0 <= original.robustness <= 1
    assert len({seed for _, _, seed in Scale.calls}) == 1


def test_the_injected_pair_is_measured_even_where_chance_leaves_it_out(exact):
    few = replace(exact, settings=replace(SETTINGS, judge=replace(SETTINGS.judge, pairs=1)))
    comparison = few.run([])
    measured = [pair for pair in ALL if comparison.entries[0].judgement.distances[pair[0]][pair[1]] is not None]
    assert len(comparison.pairs) == 1 and comparison.table[0].pairs_tried == 1
    assert set(measured) == {*comparison.pairs, (0, 2)} and comparison.injected == ((0, 2),)


def test_poisoned_images_reach_no_hardener(contest):
    seen = []

    class Spy(Scale):
        name = "spy"

        def harden(self, work, samples, *, seed, progress):
            seen.append((vars(samples), vars(work)))
            return super().harden(work, samples, seed=seed, progress=progress)

    contest.run([(Method(hardener="spy"), Spy())])
    tensors = [pool.x for pool in (seen[0][0][name] for name in ("train", "held", "clean"))]
    assert all(not torch.equal(x, mine) for pool in tensors for x in pool for mine in contest.poisoned.images.x)
    assert set(seen[0][1]) == set(vars(make_subject(PlantedNet())))


def test_a_method_that_fails_does_not_end_the_table_and_is_tried_again(contest):
    comparison = contest.run([CRASH, IDLE])
    assert [row.failure for row in comparison.table] == [None, "RuntimeError: no room", None]
    again = contest.run([(CRASH[0], named("crash")()), IDLE])
    assert [row.failure for row in again.table] == [None, None, None] and called() == ["crash", "idle", "crash"]


def test_what_is_done_is_not_done_again(contest, monkeypatch):
    interrupted = (Method(hardener="erase"), named("erase")(ScaleSettings(error="interrupt")))
    with pytest.raises(KeyboardInterrupt):
        contest.run([IDLE, interrupted])
    partial = read_record(Comparison, contest.out / "comparison.json")
    assert [row.method for row in partial.table] == ["original", "idle"]
    whole = contest.run([IDLE, ERASE])
    assert called() == ["idle", "erase", "erase"]
    monkeypatch.setattr("trojai_moth.eval.contest.measure_distances", None)
    assert contest.run([IDLE, ERASE]) == whole and len(called()) == 3


def test_a_death_between_hardening_and_judging_keeps_the_weights(contest, monkeypatch):
    def die(subject, poisoned):
        if float(subject.module.strength.detach()) == 0:
            raise KeyboardInterrupt
        return 1.0

    with monkeypatch.context() as dying:
        dying.setattr("trojai_moth.eval.contest.attack_success", die)
        with pytest.raises(KeyboardInterrupt):
            contest.run([ERASE])
    weights = load_weights(contest.out / "weights" / "erase.safetensors", contest.opened.subject)
    assert float(weights.module.strength.detach()) == 0
    row = contest.run([ERASE]).table[1]
    assert called() == ["erase"] and row.attack_after == 0.0 and row.minutes is not None


def test_methods_may_be_added_but_settings_may_not_change(contest):
    contest.run([IDLE])
    assert len(contest.run([IDLE, ERASE]).table) == 3 and called() == ["idle", "erase"]
    with pytest.raises(RunDirectoryError, match=r"idle\.json: made with other settings \(factor: 1\.0 there, 0\.5 now"):
        contest.run([(IDLE[0], named("idle")(ScaleSettings(factor=0.5)))])
    other = replace(contest, settings=replace(QUICK, seed=4))
    with pytest.raises(RunDirectoryError, match=r"settings\.seed: 0 there, 4 now"):
        other.run([IDLE])


def test_a_comparison_survives_json_and_says_how_it_was_made(contest):
    comparison = contest.run([IDLE, CRASH])
    text = (contest.out / "comparison.json").read_text()
    assert from_json(Comparison, text) == comparison and to_json(comparison) == text
    assert comparison.entries[1].settings == {"factor": 1.0, "error": "", "without": []}
    words = legend(comparison)
    for part in ("2 steps within 8/255", "At most 2 images, 2 steps, 1 seed(s)", "rougher", "2 poisoned example"):
        assert part in words
    paper = replace(comparison, poisoned_examples=0, settings=ComparisonSettings(distance={}))
    assert "the paper's protocol." in legend(paper) and "attack" not in legend(paper)
    assert (contest.out / "comparison.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("entrants", [[], [CRASH], [IDLE, CRASH, ERASE]])
def test_the_chart_is_a_picture_whatever_failed(exact, entrants):
    comparison = exact.run(entrants)
    write_chart(comparison, exact.out / "comparison.png")
    assert (exact.out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_share_of_each_class_is_attacked():
    pool = ImagePool(torch.arange(5.0)[:, None, None, None].expand(5, 3, 2, 2), torch.tensor([1, 0, 1, 1, 0]))
    assert pool.first_per_class(2).x[:, 0, 0, 0].tolist() == [1, 4, 0, 2]
