"""How images are read: the ways themselves, their order, and what speaks for one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_round import fit_last_layer, write_model
from torch import nn

from trojai_moth.core.channels import Normalisation, usual
from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_json, to_json
from trojai_moth.core.subject import Preprocessing, Subject
from trojai_moth.rounds.config_file import CaseConfig
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.preprocessing import (
    PreprocessingChoice,
    PreprocessingSearch,
    PreprocessingTrial,
    best_trials,
    candidates,
)
from trojai_moth.rounds.reading import read_case
from trojai_moth.rounds.samples import collect_samples

CPU = torch.device("cpu")
RGB = Preprocessing(stored_size=40, size=32)


def images(count=4, side=40, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(20, 200, (count, 3, side, side)).astype(np.uint8))


def nist(image, size, bgr, min_max):
    """One image (3, h, w) as the rounds' own inference code reads it, written out apart from the package."""
    array = image.permute(1, 2, 0).numpy()
    edge = (array.shape[1] - size) // 2
    array = array[edge : edge + size, edge : edge + size].astype(np.float64)
    array = array[..., ::-1] if bgr else array
    array = np.transpose(array, (2, 0, 1))
    if min_max:
        array = array - np.min(array)
        return array / np.max(array)
    return array / 255


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("min_max", [False, True])
def test_images_are_read_as_the_rounds_do(bgr, min_max):
    """The corners are outside of the crop, so their extremes must not count for the scale."""
    raw = images()
    raw[:, :, 0, 0], raw[:, :, 0, 1] = 0, 255
    reading = replace(RGB, colours="BGR" if bgr else "RGB", scaling="min-max" if min_max else "/255")
    expected = np.stack([nist(image, 32, bgr, min_max) for image in raw])
    assert np.allclose(reading(raw).numpy(), expected, atol=1e-6) and reading(raw).dtype == torch.float32


def test_an_image_of_one_value_is_black_under_min_max():
    flat = torch.full((1, 3, 40, 40), 90, dtype=torch.uint8)
    assert torch.equal(replace(RGB, scaling="min-max")(flat), torch.zeros(1, 3, 32, 32))


def test_a_shrunk_image_shows_the_whole():
    small = replace(RGB, fit="resize")(torch.arange(0, 240, 6, dtype=torch.uint8).expand(1, 3, 40, 40))
    assert small.shape == (1, 3, 32, 32) and float(small.min()) < 0.01 and float(small.max()) > 0.9
    assert torch.equal(replace(RGB, fit="resize", size=40)(images()), images().float() / 255)


def test_it_survives_json():
    reading = Preprocessing(stored_size=256, size=224, fit="resize", colours="BGR", scaling="min-max")
    assert from_json(Preprocessing, to_json(reading)) == reading and reading.words == "BGR, min-max, resize 224 of 256"
    assert from_json(Preprocessing, '{"stored_size": 256, "size": 224}') == Preprocessing(stored_size=256, size=224)
    found = PreprocessingChoice(
        chosen=reading,
        by="accuracy",
        reason="r",
        images=3,
        readings=(PreprocessingTrial(preprocessing=reading, accuracy=0.5),),
    )
    assert from_json(PreprocessingChoice, to_json(found)) == found


@pytest.mark.parametrize(
    ("config", "stored", "sizes"),
    [
        (CaseConfig(stored_size=256, size=224), 256, ["crop 224 of 256", "whole 256", "resize 224 of 256"]),
        (CaseConfig(), 224, ["whole 224", "crop 192 of 224", "resize 192 of 224"]),
        (CaseConfig(), 256, ["crop 224 of 256", "whole 256", "resize 224 of 256"]),
        (CaseConfig(architecture="x", stored_size=256), 256, ["whole 256", "crop 224 of 256", "resize 224 of 256"]),
        (CaseConfig(stored_size=72, size=64), 72, ["crop 64 of 72", "whole 72", "resize 64 of 72"]),
        (CaseConfig(size=299), 299, ["whole 299", "crop 288 of 299", "resize 288 of 299"]),
        (CaseConfig(), 32, ["whole 32"]),
    ],
)
def test_the_order_of_candidates(config, stored, sizes):
    """By size as each round has it, RGB before BGR and /255 before min-max; then the usual means and deviations."""
    ways = ["RGB, /255", "RGB, min-max", "BGR, /255", "BGR, min-max"]
    plain = [f"{way}, {size}" for size in sizes for way in ways]
    common = [
        f"RGB, /255, {size}, {whose} mean and std" for whose in ("ImageNet's", "CIFAR-10's", "0.5") for size in sizes
    ]
    assert [one.words for one in candidates(config, (stored, stored))] == plain + common
    said = Normalisation(mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    words = "mean 0.1 0.2 0.3, std 1 1 1"
    assert [one.words for one in candidates(config, (stored, stored), said=said)] == [
        f"{way}, {words}" for way in plain
    ]
    assert candidates(replace(config, normalisation=said), (stored, stored)) == candidates(
        config, (stored, stored), said=said
    )


@pytest.mark.parametrize("whose", ["ImageNet's", "0.5", None])
def test_a_network_that_expects_a_mean_and_std_is_found_out(whose):
    """Levels of grey are its classes: read in another way, most images have another class's."""
    y = torch.arange(40) % 8
    raw = (20 + 30 * y + torch.arange(40) % 3)[:, None, None, None].expand(40, 3, 40, 40).to(torch.uint8)
    expected = replace(candidates(CONFIG, (40, 40))[0], normalisation=usual(3).get(whose))
    x = Subject("id", nn.Identity(), "toy", 8, RGB, CPU, "").reading(expected).module(expected(raw))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 8))
        optimiser = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(400):
            loss = nn.functional.cross_entropy(net(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    subject = Subject("id", net, "toy", 8, RGB, CPU, "")
    search = PreprocessingSearch(subject, raw, y, ("",) * 40, None, "model.pt", "logits.csv")
    found = search.find(candidates(CONFIG, (40, 40))[:1] + candidates(CONFIG, (40, 40))[-9:])
    assert found.chosen.normalisation == usual(3).get(whose) and found.accuracy > 0.9


def trial(way, accuracy, lead=0.5):
    chosen = replace(RGB, colours="BGR" if "BGR" in way else "RGB", scaling="min-max" if "min" in way else "/255")
    return PreprocessingTrial(preprocessing=chosen, accuracy=accuracy, lead=lead)


@pytest.mark.parametrize(
    ("other", "first"),
    [
        (trial("min", 0.97), "/255"),  # two images more of a hundred say nothing
        (trial("min", 0.97, lead=0.6), "min-max"),  # but classes that win clearly more do
        (trial("min", 0.99), "min-max"),
        (trial("min", 0.90, lead=0.9), "/255"),
    ],
)
def test_a_less_likely_reading_must_be_clearly_better(other, first):
    assert best_trials([trial("RGB", 0.95), other])[0].preprocessing.scaling == first


class Red(nn.Module):
    """Class 0 where the first channel is brighter than the last."""

    def forward(self, x):
        return torch.stack([x[:, 0].mean((1, 2)), x[:, 2].mean((1, 2))], 1)


class Full(nn.Module):
    """Class 0 where something is fully white; takes 32 pixels alone."""

    def forward(self, x):
        if x.shape[-1] != 32:
            raise RuntimeError("wants 32 pixels\nand nothing else")
        top = x.amax((1, 2, 3))
        return torch.stack([top - 0.95, 0.95 - top], 1)


def evidence(module, raw, y, published=None):
    subject = Subject("id-toy", module, "toy", 2, RGB, CPU, "0" * 64)
    names = tuple(f"{number}.png" for number in range(len(y)))
    rows = None if published is None else dict(zip(names, published, strict=True))
    return PreprocessingSearch(subject, raw, torch.tensor(y), names, rows, "model.pt", "logits.csv")


def coloured(reds):
    raw = images(len(reds))
    raw[:, 1] = 0
    for image, red in zip(raw, reds, strict=True):
        image[0 if red else 2] //= 2
        image[2 if red else 0] += 50
    return raw  # stored: class 0 has more of the last channel, so that only BGR puts it first


CONFIG = CaseConfig(stored_size=40, size=32)


def test_bgr_by_accuracy_and_its_ties_in_order():
    raw = coloured([True, False, True, False])
    found = evidence(Red(), raw, [0, 1, 0, 1]).find(candidates(CONFIG, (40, 40)))
    assert found.chosen.words == "BGR, /255, crop 32 of 40" and found.by == "accuracy" and found.images == 4
    assert found.tied[0] == "BGR, min-max, crop 32 of 40" and len(found.tied) == 5
    assert [reading.accuracy for reading in found.readings[:4]] == [0, 0, 1, 1]
    assert found.reason == "no published logits; accuracy on examples 1.000"


def test_min_max_by_accuracy_where_other_sizes_can_not_be_taken():
    raw = images(4) // 2
    found = evidence(Full(), raw, [0, 0, 0, 0]).find(candidates(CONFIG, (40, 40)))
    assert found.chosen.words == "RGB, min-max, crop 32 of 40"
    problems = {reading.preprocessing.size: reading.problem for reading in found.readings}
    assert problems[40] == "cannot take images of 40 x 40 pixels (wants 32 pixels)" and problems[32] == ""


def test_below_the_floor_every_candidate_is_in_the_message():
    raw = coloured([True, False, False, True])
    raw[:, [0, 2]] = raw[:, [2, 2]]
    with pytest.raises(UnreadableModelError) as caught:
        evidence(Red(), raw, [1, 1, 1, 1]).find(candidates(CONFIG, (40, 40))[:12])
    text = str(caught.value)
    assert "only 0% of the example images" in text and text.count("accuracy 0.00") == 12 and "\n" not in text
    assert "BGR, min-max, whole 40: accuracy 0.00" in text and "logits.csv" in text


class Pair(Red):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("module", "classes", "reason"),
    [
        (
            Pair(),
            5,
            "gives a tuple of 2 x 2, 2 x 3 x height x width for 2 images, not 2 x 5 first or last; give a module "
            "around it that returns its logits alone",
        ),
        (
            Red(),
            5,
            "gives 2 x 2 numbers for 2 images, not 2 x 5; correct the number of classes, or give another network",
        ),
    ],
)
def test_a_network_that_gives_no_logits_of_its_classes_is_refused_in_one_clause(module, classes, reason):
    subject = Subject("id-toy", module, "toy", classes, RGB, CPU, "0" * 64)
    search = PreprocessingSearch(subject, images(2), torch.tensor([0, 1]), ("a", "b"), None, "model.pt", "logits.csv")
    with pytest.raises(UnreadableModelError) as caught:
        search.find(candidates(CONFIG, (40, 40)))
    assert str(caught.value) == f"model.pt: {reason}"


def test_published_logits_go_before_accuracy():
    """All labels are those of RGB, but the logits were written in BGR, so the labels are wrong and not the reading."""
    raw = coloured([True, False, True, False])
    published = Red()(replace(RGB, colours="BGR")(raw)).double().numpy()
    found = evidence(Red(), raw, [1, 0, 1, 0], published).find(candidates(CONFIG, (40, 40)))
    assert (found.chosen.colours, found.by) == ("BGR", "logits") and len(found.readings) == 3
    assert found.reason.startswith("published logits reproduced within") and found.readings[2].accuracy == 0
    with pytest.raises(UnreadableModelError) as caught:
        evidence(Red(), raw, [1, 0, 1, 0], published * 3).find(candidates(CONFIG, (40, 40)))
    assert "does not reproduce logits.csv: relative error" in str(caught.value)
    assert str(caught.value).count(": error ") == 21


def test_of_many_images_a_hundred_of_all_classes_are_tried():
    raw = coloured([True] * 90 + [False] * 60)
    found = evidence(Red(), raw, [0] * 90 + [1] * 60).find(candidates(CONFIG, (40, 40)))
    assert found.images == 100 and found.readings[2].accuracy == 1.0


@pytest.fixture(scope="module")
def round_1(tmp_path_factory):
    """A model that reads as round 1's do, with the logits it then gives."""
    reading = Preprocessing(stored_size=36, size=32, colours="BGR", scaling="min-max")
    folder = write_model(tmp_path_factory.mktemp("bgr") / "id-00000000", per_class=3)
    opened = open_folder(read_case(folder), CPU)
    module, x = opened.subject.module, reading(opened.raw)
    fit_last_layer(module, x, opened.examples.y, 3)
    torch.save(module, folder / "model.pt")
    with torch.no_grad():
        rows = module(x).tolist()
    lines = [", ".join([name, *map(repr, row)]) for name, row in zip(opened.names, rows, strict=True)]
    (folder / "clean-example-logits.csv").write_text("\n".join(["Example, Logits", *lines]) + "\n")
    return folder, reading


def test_a_model_file_of_another_convention_is_opened_by_its_logits(round_1):
    folder, reading = round_1
    opened = open_folder(read_case(folder), CPU)
    assert opened.subject.preprocessing == reading == opened.convention.chosen
    assert opened.check.startswith("published logits reproduced within") and len(opened.convention.readings) == 4
    assert torch.equal(opened.examples.x, reading(opened.raw))


@pytest.mark.parametrize("source", ["examples", "folder"])
def test_augmented_images_are_read_the_same_way(round_1, tmp_path, source):
    folder, reading = round_1
    opened = open_folder(read_case(folder), CPU)
    settings = DataSettings(source=source, folder=str(folder / "clean_example_data"), train_per_class=6)

    def collected(preprocessing):
        subject = replace(opened.subject, preprocessing=preprocessing)
        examples = ImagePool(preprocessing(opened.raw), opened.examples.y)
        other = replace(opened, subject=subject, examples=examples)
        return collect_samples(read_case(folder), other, settings, seed=1)

    ours, plain = collected(reading), collected(Preprocessing(stored_size=36, size=32))
    for name in ("train", "held", "clean"):
        x, other = getattr(ours, name).x, getattr(plain, name).x.flip(1)
        low, high = other.amin((1, 2, 3), keepdim=True), other.amax((1, 2, 3), keepdim=True)
        assert torch.allclose(x, (other - low) / (high - low), atol=1e-5) and len(x) > 0


def test_a_mean_and_std_that_are_worse_than_none_are_refused():
    """Class 0 where red is above a half of white, which a network that is fed plainly gets right."""

    class Half(nn.Module):
        def forward(self, x):
            red = x[:, 0].mean((1, 2))
            return torch.stack([red - 0.5, 0.5 - red], 1)

    raw = torch.full((20, 3, 40, 40), 150, dtype=torch.uint8)
    raw[10:] = 100
    said = Normalisation(mean=(0.1, 0.1, 0.1), std=(0.5, 0.5, 0.5))
    with pytest.raises(UnreadableModelError, match=r"without that mean and std 1\.00; correct them"):
        evidence(Half(), raw, [0] * 10 + [1] * 10).find(candidates(CONFIG, (40, 40), said=said))
