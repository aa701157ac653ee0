import numpy as np
import pytest
import torch
from fake_round import write_model

from trojai_moth.core.images import ImagePool
from trojai_moth.core.seeding import derive_seed
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_case
from trojai_moth.rounds.samples import Samples, augment, collect_samples

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
        "logit_scale",
    }
    directory = str(case.directory)
    assert not any(directory in repr(value) for value in vars(opened.subject).values())
    assert directory not in collect(cases(2)).description


def test_seeds_of_models_differ(cases):
    one, other = (derive_seed(derive_seed(0, name), "images") for name in ("id-0", "id-1"))
    assert not same(collect(cases(5), seed=one), collect(cases(5), seed=other))
