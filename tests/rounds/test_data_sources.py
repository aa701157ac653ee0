"""Images to harden with that are not the round's own: folders, mixtures, and signs in the wrong order."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fake_round import write_model
from pictures import save
from torch import nn

from trojai_moth.cli.main import main
from trojai_moth.core.errors import SettingsError, UnreadableModelError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_dict
from trojai_moth.core.subject import Preprocessing, Subject
from trojai_moth.rounds.class_accuracy import check_images
from trojai_moth.rounds.data_settings import DataSettings, source_settings
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_case
from trojai_moth.rounds.samples import collect_samples

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images"


def test_what_data_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "a+b").mkdir()
    (tmp_path / "images.npz").touch()

    def source(text):
        return from_dict(DataSettings, source_settings(text, None))

    assert source("examples") == DataSettings() and source("composed").sources == ("composed",)
    assert (source("mine").source, source("mine").folder) == ("folder", "mine")
    assert source("a+b").folder == "a+b"
    assert (source("examples+images.npz").source, source("images.npz").folder) == ("examples+folder", "images.npz")
    assert (source("examples+composed").sources, source("composed+mine").folder) == (("examples", "composed"), "mine")
    for wrong in ("nothing", "examples+nothing", "mine+mine", "", "examples+"):
        with pytest.raises(SettingsError, match="--data"):
            source(wrong)
    for wrong in ("x", "examples composed", "+examples"):
        with pytest.raises(SettingsError, match="source"):
            from_dict(DataSettings, {"source": wrong})


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    case = read_case(write_model(tmp_path_factory.mktemp("data") / "id-0", per_class=4))
    return case, open_folder(case, CPU)


@pytest.fixture
def unchecked(monkeypatch):
    """Images that are made to be told apart need not be recognised by the model."""
    monkeypatch.setattr("trojai_moth.rounds.samples.check_images", lambda *arguments, **rest: None)


@pytest.fixture
def grey(folder):
    """Class c in greys from 10 + 80 c on, in 6 sizes each."""
    for label in range(3):
        for number in range(6):
            save(folder / f"{label}" / f"{number}.png", 10 + 80 * label + number, (30 + 5 * number, 50))
    return folder


@pytest.mark.usefixtures("unchecked")
def test_a_folder_is_split_and_filled_up_like_examples(opened, grey):
    settings = DataSettings(source="folder", folder=str(grey), train_per_class=8, held_per_class=5)
    samples = collect_samples(*opened, settings, 3)
    assert torch.bincount(samples.train.y).tolist() == [8] * 3 and torch.bincount(samples.clean.y).tolist() == [2] * 3
    assert torch.bincount(samples.held.y).tolist() == [5] * 3 and "folder, 6-6 per class" in samples.description
    originals = {round(float(image.mean()) * 255) for image in samples.clean.x}
    assert originals <= {10 + 80 * label + number for label in range(3) for number in range(6)}
    few = DataSettings(source="folder", folder=str(grey), train_per_class=2, held_per_class=1)
    assert "folder, 3-3 per class" in collect_samples(*opened, few, 3).description  # no more are read than are wanted


@pytest.mark.usefixtures("unchecked")
def test_other_forms_of_the_same_images_give_the_same_samples(opened, grey, tmp_path):
    settings = DataSettings(source="folder", folder=str(grey), train_per_class=4, held_per_class=2)
    expected = collect_samples(*opened, settings, 3)
    files = [path for label in range(3) for path in sorted((grey / f"{label}").iterdir())]
    lines = [f"{path},{path.parent.name}\n" for path in files]
    (tmp_path / "list.csv").write_text("".join(["file,label\n", *lines]))
    values = np.array([[10 + 80 * (number // 6) + number % 6] * 3 for number in range(len(files))], dtype=np.uint8)
    pixels = np.broadcast_to(values[:, None, None], (len(files), 50, 50, 3))
    np.savez(tmp_path / "list.npz", x=pixels, y=[number // 6 for number in range(len(files))])
    for name in ("list.csv", "list.npz"):
        found = collect_samples(*opened, replace(settings, folder=str(tmp_path / name)), 3)
        assert torch.equal(found.train.x, expected.train.x) and torch.equal(found.clean.x, expected.clean.x)


def test_a_folder_source_needs_a_folder(opened):
    with pytest.raises(UnreadableModelError, match=r"data\.folder: not given"):
        collect_samples(*opened, DataSettings(source="folder"), 0)


@pytest.mark.usefixtures("unchecked")
def test_a_mixture_gives_each_source_its_part(opened, grey):
    settings = DataSettings(source="examples+folder", folder=str(grey), train_per_class=8, held_per_class=4)
    samples = collect_samples(*opened, settings, 3)
    assert torch.bincount(samples.train.y).tolist() == [8] * 3 and " + folder" in samples.description
    flat = samples.train.x.amax((1, 2, 3)) == samples.train.x.amin((1, 2, 3))
    first = samples.train.first_per_class(2).x
    both = first.amax((1, 2, 3)) == first.amin((1, 2, 3))
    assert both.tolist() == [False, True] * 3 and 6 <= int(flat.sum()) <= 12  # grey copies may have black edges
    assert torch.equal(samples.train.x, collect_samples(*opened, settings, 3).train.x)


class Ordered(nn.Module):
    """Takes an image for the class that its grey value stands for, by a table."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.tensor(table)

    def forward(self, x):
        return nn.functional.one_hot(self.table[(x.mean((1, 2, 3)) * 10).round().long()], len(self.table)).float()


def order(table, per_class=4):
    subject = Subject("id", Ordered(table), "toy", len(table), Preprocessing(stored_size=4, size=4), CPU, "")
    y = torch.arange(len(table)).repeat_interleave(per_class)
    x = (y / 10)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    return subject, ImagePool(x, y)


def check(table, per_class=4, expected=None):
    return check_images(*order(table, per_class), "signs/", order="signs", mend="mend them", expected=expected)


def test_images_in_order_pass_and_a_few_wrong_ones_of_a_class_do_too():
    found = check([0, 1, 2, 3, 4])
    assert found.overall == 1.0 and found.words == "100.0% of 20 images right"
    found = check([0, 0, 2, 3, 4], per_class=2)  # 1 looks like 0, and two images do not say more
    assert found.overall == pytest.approx(0.8) and found.words.endswith("least of class 1: 0 of 2")


def test_a_class_that_is_all_wrong_is_refused_by_name():
    with pytest.raises(UnreadableModelError, match="0 of 3 images of class 1 right and takes most for 0"):
        check([0, 0, 2, 3, 4], per_class=3)


def test_an_accuracy_clearly_below_the_expected_one_is_refused():
    table = [0, 0, 2, 3, 4]
    assert check(table, per_class=2, expected=0.95).overall == pytest.approx(0.8)  # 10 images do not tell them apart
    with pytest.raises(UnreadableModelError, match=r"where 100\.0% is expected"):
        check([0, 0, 2, 2, 4, 4, *range(6, 20)], per_class=2, expected=1.0)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([1, 0, 2, 3, 4, 5, 6, 7], "takes 0 -> 1 -> 0 "),
        ([0, 2, 3, 1, 4, 6, 5, 7], "takes 1 -> 2 -> 3 -> 1; 5 -> 6 -> 5 "),
        ([1, 2, 3, 4, 0], "takes 0 -> 1 -> 2 -> 3 -> 4 -> 0 "),
    ],
)
def test_classes_that_changed_places_are_refused(table, words):
    """Two of eight are enough, which leaves three quarters of the images right."""
    with pytest.raises(UnreadableModelError, match="not in the order of the classes") as caught:
        check(table)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_signs_of_another_model_are_refused():
    with pytest.raises(UnreadableModelError, match="only 20% of the images get their label"):
        check([3, 3, 3, 3, 3])


def test_order_is_checked_where_images_are_composed(tmp_path, extra_data):
    pytest.importorskip("trojai", reason="composing needs trojai: pip install --no-deps trojai==0.2.23")

    folder = shutil.copytree(extra_data / "pilot-round" / "id-00000000", tmp_path / "id-00000000")
    settings = DataSettings(source="composed", train_per_class=10, held_per_class=2)
    case = read_case(folder)
    opened = open_folder(case, CPU)
    collect_samples(case, opened, settings, 0)
    first, second = sorted((folder / "foregrounds").iterdir())[:2]
    spare = first.rename(folder / "spare.png")
    second.rename(first)
    spare.rename(second)
    with pytest.raises(UnreadableModelError, match="0 -> 1 -> 0"):
        collect_samples(case, opened, settings, 0)
    with pytest.raises(UnreadableModelError, match="0 -> 1 -> 0"):
        collect_samples(case, opened, replace(settings, source="examples+composed"), 0)


def test_backgrounds_of_ones_own_are_used(tmp_path, extra_data):
    pytest.importorskip("trojai", reason="composing needs trojai: pip install --no-deps trojai==0.2.23")
    case = read_case(extra_data / "pilot-round" / "id-00000004")
    opened = open_folder(case, CPU)
    save(tmp_path / "grounds" / "green.png", 130, (200, 200))
    settings = DataSettings(source="composed", backgrounds=str(tmp_path / "grounds"), train_per_class=3)
    samples = collect_samples(case, opened, settings, 0)
    corner = samples.train.x[:, :, :3, :3].mean((1, 2, 3)).median() * 255
    assert abs(float(corner) - 130) < 15


def test_scan_takes_a_folder_and_refuses_what_is_none(tmp_path, grey):
    model = write_model(tmp_path / "id-00000000", per_class=2)
    quick = ["--set", "scanner.screen_steps=2", "--set", "scanner.steps=2", "--set", "data.train_per_class=3"]
    wanted = ["scan", str(model), "--data", str(grey), "--json", str(tmp_path / "out.json"), *quick]
    result = CliRunner().invoke(main, wanted)
    assert (result.exit_code == 2 and "of the images get their label" in result.output) or "order" in result.output
    own = tmp_path / "own"
    for image in (model / "clean_example_data").iterdir():
        (own / image.name[6]).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, own / image.name[6])
    wanted[3] = str(own)
    result = CliRunner().invoke(main, wanted)
    assert result.exit_code in (0, 1, 3), result.output
    assert json.loads((tmp_path / "out.json").read_text())["scanner"] == "neural-cleanse"
    result = CliRunner().invoke(main, ["scan", str(model), "--data", "nowhere"])
    assert result.exit_code == 2 and "--data nowhere" in result.output
