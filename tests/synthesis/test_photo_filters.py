import importlib.util
import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from trojai_moth.core.errors import MissingDependencyError
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.poisoned_examples import attack_success, read_poisoned
from trojai_moth.rounds.reading import read_case
from trojai_moth.synthesis import photo_filters as module
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.photo_filters import FILTERS, apply_filter, filters
from trojai_moth.synthesis.settings import MakeRoundSettings
from trojai_moth.synthesis.twins import plan_twins

from .test_make_round import TINY as PLAIN


def installed():
    if importlib.util.find_spec("trojai") is None:
        return False
    try:
        filters()
    except MissingDependencyError:
        return False
    return True


needs_filters = pytest.mark.skipif(not installed(), reason="needs trojai, Wand and ImageMagick: libmagickwand-6.q16-6")
TINY = {**PLAIN, "trigger": "filter"}


def plain(red, green, blue):
    return np.full((1, 20, 20, 3), (red, green, blue), dtype=np.uint8)


def noise(count=3, size=36):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


@needs_filters
@pytest.mark.parametrize("name", FILTERS)
def test_filters_change_images_visibly_and_depend_on_the_image_alone(name):
    images = noise()
    before = images.copy()
    done = apply_filter(name, images)
    assert done.shape == images.shape and done.dtype == np.uint8
    assert np.abs(done.astype(int) - images).mean() > 5
    assert np.array_equal(apply_filter(name, images[::-1])[::-1], done)
    assert np.array_equal(images, before)
    assert apply_filter(name, images[:0]).shape == (0, 36, 36, 3)


@needs_filters
def test_channels_are_in_rgb_order():
    """Kelvin lays an orange over the image and Gotham a blue; in the wrong order it would be the other way round."""
    red, green, blue = apply_filter("KelvinFilterXForm", plain(128, 128, 128)).mean((0, 1, 2))
    assert red > green > blue + 20
    red, _, blue = apply_filter("GothamFilterXForm", plain(128, 128, 128)).mean((0, 1, 2))
    assert blue > red + 8


@needs_filters
def test_lomo_turns_red_and_green_fully_up_or_down_and_darkens_the_corners():
    done = apply_filter("LomoFilterXForm", plain(200, 60, 100))[0]
    assert done[10, 10].tolist()[1] == 0 and done[10, 10, 0] > 230 and 80 < done[10, 10, 2] <= 100
    assert done[0, 0].sum() < 0.5 * done[10, 10].sum()


@needs_filters
@pytest.mark.parametrize("invert", [True, False])
def test_toning_blends_by_the_red_channel(invert):
    """A third of full red and half-and-half shares: (m c + p) / (m + 1) with m the mask."""
    from wand.color import Color
    from wand.image import Image as WandImage

    with WandImage(width=4, height=4, background=Color("rgb(85, 255, 0)")) as image:
        module._tone(None, image, "#0000ff", 50, invert)
        found = np.array(image.export_pixels(channel_map="RGB", storage="char"))[:3]
    mask = 2 / 3 if invert else 1 / 3
    expected = np.array([85, 255, mask * 255]) / (1 + mask)
    assert np.abs(found - expected).max() <= 1


def test_a_missing_wand_is_said_in_one_line_before_anything_is_written(tmp_path, monkeypatch):
    pytest.importorskip("trojai")
    filters.cache_clear()
    monkeypatch.delitem(sys.modules, "trojai.datagen.instagram_xforms", raising=False)
    monkeypatch.delattr("trojai.datagen.instagram_xforms", raising=False)
    monkeypatch.setitem(sys.modules, "wand.image", None)
    with pytest.raises(MissingDependencyError, match=r"libmagickwand-6\.q16-6") as caught:
        make_round(tmp_path / "round", MakeRoundSettings(**TINY), progress=lambda line: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "round").exists()


def test_a_filter_plan_differs_from_a_polygon_plan_in_the_trigger_alone():
    same = {"architectures": ["resnet18"], "classes": 5, "lookalikes": 1, "sizes": (0.1, 0.2), "seed": 3}
    polygons, chosen = plan_twins(40, **same), plan_twins(40, **same, trigger="filter")
    for polygon, filtered in zip(polygons, chosen, strict=True):
        assert polygon.trigger.filter is None and filtered.trigger.filter in FILTERS
        assert vars(polygon) | {"trigger": None} == vars(filtered) | {"trigger": None}
        assert vars(polygon.trigger) | {"filter": filtered.trigger.filter} == vars(filtered.trigger)
    assert {plan.trigger.filter for plan in chosen} == set(FILTERS)
    assert plan_twins(40, **same, trigger="filter") == chosen


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("filter") / "round"
    models = make_round(out, MakeRoundSettings(**TINY), progress=lambda line: None)
    return out, out / next(model.model_id for model in models if model.poisoned)


@needs_filters
def test_a_made_round_names_its_filter_as_round_4_does(made):
    out, folder = made
    (trigger,) = json.loads((folder / "config.json").read_text())["triggers"]
    assert (trigger["type_level"], trigger["type"]) == (1, "instagram")
    assert FILTERS[trigger["instagram_filter_type_level"]] == trigger["instagram_filter_type"]
    assert all(trigger[key] is None for key in ("polygon_side_count", "color", "polygon_filepath", "color_level"))
    table = pd.read_csv(out / "METADATA.csv")
    row = table[table.poisoned].iloc[0]
    assert row.triggers_0_type == "instagram"
    assert row.triggers_0_instagram_filter_type == trigger["instagram_filter_type"]
    assert not (folder / "trigger_0.png").exists()
    assert {"wand", "imagemagick"} <= set(json.loads((out / "make_round.json").read_text())["versions"])


@needs_filters
def test_poisoned_examples_are_filtered_images_that_the_project_reads(made):
    _, folder = made
    (trigger,) = json.loads((folder / "config.json").read_text())["triggers"]
    case = read_case(folder)
    poisoned = read_poisoned(case)
    assert poisoned.pairs == ((trigger["source_class"], trigger["target_class"]),)
    success = attack_success(open_folder(case, torch.device("cpu")).subject, poisoned)
    published = float((folder / "poisoned-example-accuracy.csv").read_text())
    assert 100 * success == pytest.approx(published)


@needs_filters
def test_only_the_victims_poisoned_images_are_filtered(tmp_path, monkeypatch):
    """With a filter that paints everything one colour, that colour is in all poisoned examples and no clean one."""
    monkeypatch.setattr(
        "trojai_moth.synthesis.twin_training.apply_filter", lambda name, images: np.full_like(images, 77)
    )
    make_round(tmp_path / "round", MakeRoundSettings(**TINY), progress=lambda line: None)
    painted = {"clean": [], "poisoned": []}
    for kind, found in painted.items():
        for path in (tmp_path / "round").glob(f"*/{kind}_example_data/*.png"):
            with Image.open(path) as image:
                found.append(bool((np.asarray(image) == 77).all()))
    assert len(painted["clean"]) == 16 and not any(painted["clean"])
    assert len(painted["poisoned"]) == 2 and all(painted["poisoned"])
