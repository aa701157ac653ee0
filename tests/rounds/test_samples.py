import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_round import write_model

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.rounds import samples as samples_module
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_case
from trojai_moth.rounds.samples import ImageCounts, Samples, augment, collect_samples

POOLS = ("train", "held", "clean")
FEW = {"train_per_class": 6, "held_per_class": 4}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """A case of any number of images per class, opened once."""
    known = {}

    def cases(per_class):
        if per_class not in known:
            directory = write_model(tmp_path_factory.mktemp("round") / "id-0", per_class=per_class, seed=per_class)
            case = read_case(directory)
            known[per_class] = case, open_folder(case, torch.device("cpu"))
        return known[per_class]

    return cases


def collect(case, seed=1, **settings):
    return collect_samples(*case, DataSettings(**{**FEW, **settings}), seed)


def marked(case):
    """The same case with images of one grey value each; in a class every value is at least 1.5 times the one before.

    Augmentation moves brightness by 10 % at most, so that a copy can be traced to its original.
    """
    case, opened = case
    greys = []
    for label in range(opened.subject.classes):
        greys += [int(40 * 1.55**n) for n in range(len(opened.examples.positions(label)))]
    raw = torch.tensor(greys, dtype=torch.uint8)[:, None, None, None].expand(opened.raw.shape).contiguous()
    examples = ImagePool(raw[..., :32, :32].float() / 255, opened.examples.y)
    return case, type(opened)(opened.subject, raw, examples, opened.names, opened.check, opened.convention)


def any_images(subject, images, where, **rest):
    """In place of the check that the model recognises them, for images that are made to be told apart."""


def sources(pool):
    """Which originals (class, number) a pool's images come from, by the middle, where nothing is shifted in."""
    value = 255 * pool.x[:, :, 12:20, 12:20].amax(dim=(1, 2, 3))
    number = (value / 40).log() / np.log(1.55)
    return set(zip(pool.y.tolist(), number.round().int().tolist(), strict=True))


def same(first, second):
    parts = [(getattr(first, name), getattr(second, name)) for name in POOLS]
    return all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in parts)


@pytest.mark.parametrize("per_class", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_no_image_is_on_both_sides(cases, per_class, seed, monkeypatch):
    """Not even as an augmented copy."""
    monkeypatch.setattr("trojai_moth.rounds.samples.check_images", any_images)
    samples = collect(marked(cases(per_class)), seed=seed)
    train, held = sources(samples.train), sources(samples.held)
    assert train | held == {(label, number) for label in range(3) for number in range(per_class)}
    assert not train & held and sources(samples.clean) == held


def test_the_trace_would_see_a_leak(cases):
    """The tracing itself tells originals of a class apart, also through augmentation."""
    _, opened = marked(cases(5))
    for number in range(5):
        copies = augment(opened.raw[[number] * 12], opened.subject.preprocessing, seed=number)
        assert sources(ImagePool(copies, torch.zeros(12).long())) == {(0, number)}


@pytest.mark.parametrize(("per_class", "held"), [(1, 0), (2, 1), (5, 2)])
def test_how_many_of_each_class(cases, per_class, held):
    samples = collect(cases(per_class))
    for name, count in (("train", 6), ("held", 4 if held else 0), ("clean", held)):
        pool = getattr(samples, name)
        assert torch.bincount(pool.y, minlength=3).tolist() == [count] * 3, name
        assert pool.x.shape == (3 * count, 3, 32, 32) and pool.x.dtype == torch.float32
        assert pool.y.dtype == torch.int64
        assert count == 0 or (pool.x.min() >= 0 and pool.x.max() <= 1)
    assert f"{per_class}-{per_class} per class" in samples.description


def test_originals_come_first_and_are_never_dropped(cases):
    _, opened = cases(5)
    samples = collect(cases(5), train_per_class=1, held_per_class=1)
    originals = {bytes(image.numpy()) for image in opened.examples.x}
    assert len(samples.train) == 9 and len(samples.held) == len(samples.clean) == 6
    for pool in (samples.train, samples.held):
        assert all(bytes(image.numpy()) in originals for image in pool.x)


def test_a_class_without_images_is_left_out(cases):
    case, opened = cases(2)
    kept = torch.nonzero(opened.examples.y != 1).flatten()
    names = tuple(opened.names[i] for i in kept)
    fewer = type(opened)(
        opened.subject, opened.raw[kept], opened.examples.take(kept), names, opened.check, opened.convention
    )
    samples = collect((case, fewer))
    assert set(samples.train.y.tolist()) == set(samples.clean.y.tolist()) == {0, 2}
    assert "0-2 per class" in samples.description


def test_the_seed_decides_and_nothing_else(cases):
    first = collect(cases(5), seed=3)
    torch.rand(7)
    collect(cases(2), seed=8)
    assert same(first, collect(cases(5), seed=3))
    assert not same(first, collect(cases(5), seed=4))


def test_the_split_itself_goes_by_the_seed(cases):
    held = {bytes(collect(cases(5), seed=seed).clean.x.numpy()) for seed in range(5)}
    assert len(held) > 1


def test_how_many_are_asked_for_does_not_move_the_split(cases):
    few, many = (collect(cases(5), train_per_class=count, held_per_class=count) for count in (4, 9))
    assert torch.equal(few.clean.x, many.clean.x)
    for label in range(3):
        small, large = (samples.train.x[samples.train.positions(label)] for samples in (few, many))
        assert torch.equal(small, large[: len(small)])


@pytest.mark.parametrize("source", ["examples", "folder", "examples+folder"])
def test_images_of_some_classes_are_the_same_as_among_all(cases, source):
    case, opened = cases(5)
    settings = DataSettings(source=source, folder=str(case.examples), **FEW)
    whole = collect_samples(case, opened, settings, 1)
    asked = []

    def only(counts):
        asked.append(counts)
        return {2, 1}

    part = collect_samples(case, opened, settings, 1, only)
    for name in POOLS:
        ours, theirs = getattr(part, name), getattr(whole, name)
        kept = torch.nonzero(theirs.y != 0).flatten()
        assert torch.equal(ours.x, theirs.x[kept]) and torch.equal(ours.y, theirs.y[kept])
    assert part.description == whole.description
    assert asked == [ImageCounts(train=whole.train.counts(3), held=whole.held.counts(3))]


def test_composed_images_of_some_classes_are_the_same_as_among_all(extra_data):
    pytest.importorskip("trojai", reason="composing needs trojai: pip install --no-deps trojai==0.2.23")
    case = read_case(extra_data / "pilot-round" / "id-00000004")
    opened = open_folder(case, torch.device("cpu"))
    settings = DataSettings(source="composed", train_per_class=3, held_per_class=2)
    whole, part = (collect_samples(case, opened, settings, 1, only) for only in (None, lambda counts: {4}))
    assert part.train.counts(7) == (0, 0, 0, 0, 3, 0, 0) and whole.train.counts(7) == (3,) * 7
    for ours, theirs in ((part.train, whole.train), (part.held, whole.held)):
        assert torch.equal(ours.x, theirs.x[theirs.positions(4)])


@pytest.mark.parametrize("per_class", [1, 5])
def test_which_classes_can_not_be_measured_and_why(cases, per_class):
    case, opened = cases(per_class)
    kept = torch.nonzero(opened.examples.y != 0).flatten()
    without = replace(opened, raw=opened.raw[kept], examples=opened.examples.take(kept))
    found = []
    collect_samples(case, without, DataSettings(**FEW), 1, lambda counts: found.append(counts) or {1})
    none = "no images of class 0: not measured as victim"
    alone = "a single image of classes 1, 2, and none is held back: not measured as victim; add images, or measure"
    assert found[0].lacking("train") == (none,)
    assert [line.partition(" on those")[0] for line in found[0].lacking("held")] == [none, alone][: 3 - per_class // 2]


def test_more_than_the_memory_holds_is_refused_before_any_is_made(cases, monkeypatch, notes):
    settings = DataSettings(train_per_class=40, held_per_class=20)
    case, opened = cases(5)
    needed = 3 * 60 * 3 * 4 * 32 * 32
    monkeypatch.setattr(samples_module, "memory_for_data", lambda: needed - 1)
    with pytest.raises(
        SettingsError, match=r"180 images of 32 x 32 pixels take 2 MB .*data\.train_per_class=\d+ --set"
    ):
        collect_samples(case, opened, settings, 1)
    assert len(collect_samples(case, opened, settings, 1, lambda counts: {0, 1}).train) == 80  # of two classes it fits
    assert notes.messages == []
    monkeypatch.setattr(samples_module, "_MUCH_MEMORY", needed // 2)
    collect_samples(case, opened, settings, 1, lambda counts: {0, 1})
    (line,) = notes.messages
    assert "120 images of 32 x 32 pixels take 1 MB of memory; fewer take less: --set data.train_per_class=20" in line


def test_what_is_advised_fits(cases, monkeypatch):
    case, opened = cases(5)
    monkeypatch.setattr(samples_module, "memory_for_data", lambda: 60 * 3 * 4 * 32 * 32)
    settings = DataSettings(train_per_class=1_000_000, held_per_class=500_000)
    with pytest.raises(SettingsError) as caught:
        collect_samples(case, opened, settings, 1)
    train, held = re.findall(r"per_class=(\d+)", str(caught.value))
    assert len(
        collect_samples(case, opened, DataSettings(train_per_class=int(train), held_per_class=int(held)), 1).train
    )


def test_no_machine_holds_a_thousand_million_of_a_class():
    with pytest.raises(SettingsError, match=r"train_per_class"):
        from_dict(DataSettings, {"train_per_class": 1e9})


def test_other_random_streams_are_left_alone(cases):
    case = cases(2)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 (the stream that must stay as it is)
    expected, expected_numpy = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    collect(case)
    assert torch.equal(torch.rand(3), expected) and (np.random.rand(3) == expected_numpy).all()  # noqa: NPY002


def test_augmented_copies_are_all_different_and_near(cases):
    _, opened = cases(2)
    copies = augment(opened.raw[[0] * 10], opened.subject.preprocessing, seed=1)
    assert copies.shape == (10, 3, 32, 32) and copies.min() >= 0 and copies.max() <= 1
    assert len({bytes(image.numpy()) for image in copies}) == 10
    assert torch.equal(copies, augment(opened.raw[[0] * 10], opened.subject.preprocessing, seed=1))
    assert not torch.equal(copies, augment(opened.raw[[0] * 10], opened.subject.preprocessing, seed=2))
    assert augment(opened.raw[:0], opened.subject.preprocessing, seed=1).shape == (0, 3, 32, 32)


def test_no_label_can_reach_a_scanner(cases):
    """What a scanner is given holds images and their classes, and no field for anything else of a round."""
    assert set(Samples.__dataclass_fields__) == {*POOLS, "description", "unseen", "accuracy"}
    case, opened = cases(2)
    assert set(vars(opened.subject)) == {
        *("model_id", "module", "architecture", "classes", "preprocessing", "device", "source_sha256"),
        *("logit_scale", "output"),
    }
    directory = str(case.directory)
    assert not any(directory in repr(value) for value in vars(opened.subject).values())
    assert directory not in collect(cases(2)).description


def test_seeds_of_models_differ(cases):
    one, other = (derive_seed(derive_seed(0, name), "images") for name in ("id-0", "id-1"))
    assert not same(collect(cases(5), seed=one), collect(cases(5), seed=other))
