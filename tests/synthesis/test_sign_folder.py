import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from trojai_moth.core.errors import SettingsError
from trojai_moth.synthesis.compose import Composer, ComposeSettings
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.polygon import COLOURS
from trojai_moth.synthesis.settings import MakeRoundSettings
from trojai_moth.synthesis.sign_folder import read_sign, read_sign_folder
from trojai_moth.synthesis.twins import plan_twins

from .test_make_round import TINY, needs_trojai, silent

SIDE = 20
BOUNDS = {"closest": 0.02, "apart": 0.15}
FACES = {"red": (160, 20, 20), "blue": (20, 40, 160), "green": (20, 120, 40), "white": (250, 250, 250)}
FACES |= {"black": (10, 10, 10), "yellow": (240, 210, 0)}


def sign(face, mark=None, size=(40, 40)):
    """A disc with a small bar at a height, transparent around it."""
    picture = Image.new("RGBA", size)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((0, 0, size[0] - 1, size[1] - 1), fill=(*face, 255))
    if mark is not None:
        draw.rectangle((16, mark, 24, mark + 3), fill=(120, 120, 120, 255))
    return picture


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """Six colours, a near-twin of red and of blue, and red once more."""
    folder = tmp_path_factory.mktemp("signs")
    for name, face in FACES.items():
        sign(face).save(folder / f"{name}.png")
    (folder / "more").mkdir()
    sign(FACES["red"], mark=10).save(folder / "more" / "red twin.webp", lossless=True)
    sign(FACES["blue"], mark=20).save(folder / "more" / "blue twin.png")
    sign(FACES["red"]).save(folder / "red again.png")
    (folder / "LICENSE").write_text("no picture")
    return folder


def read(folder, **bounds):
    return read_sign_folder(folder, SIDE, **{**BOUNDS, **bounds})


def test_near_twins_are_found_by_measuring_and_copies_are_never_together(signs):
    found = read(signs)
    place = {path.relative_to(signs).as_posix(): number for number, path in enumerate(found.files)}
    pairs = set()
    for seed in range(30):
        chosen = found.choose(5, 1, np.random.default_rng(seed))
        assert [file.rpartition("/")[2] for file in chosen.files] == sorted(f.rpartition("/")[2] for f in chosen.files)
        assert not {"red.png", "red again.png"} <= set(chosen.files)
        numbers = [place[file] for file in chosen.files]
        distances = found.distances[np.ix_(numbers, numbers)]
        close = {(i, j) for i in range(5) for j in range(i + 1, 5) if distances[i, j] < BOUNDS["apart"]}
        assert close == set(chosen.near_twins) == {chosen.closest_pair}
        assert chosen.closest_distance == pytest.approx(distances[chosen.closest_pair], abs=1e-4)
        pairs |= {frozenset(chosen.files[label] for label in pair) for pair in close}
    reds = [{name, "more/red twin.webp"} for name in ("red.png", "red again.png")]
    assert pairs == set(map(frozenset, [*reds, {"blue.png", "more/blue twin.png"}]))


def test_sets_without_lookalikes_have_no_two_that_are_close_and_follow_from_the_seed(signs):
    found = read(signs)
    sets = [found.choose(6, 0, np.random.default_rng(seed)) for seed in range(10)]
    assert all(one.closest_distance >= BOUNDS["apart"] and one.near_twins == () for one in sets)
    assert len({one.files for one in sets}) > 3
    assert sets == [read(signs).choose(6, 0, np.random.default_rng(seed)) for seed in range(10)]


def test_both_pairs_of_near_twins_can_be_in_one_set(signs):
    chosen = read(signs).choose(6, 2, np.random.default_rng(0))
    assert len(chosen.near_twins) == 2 and len({label for pair in chosen.near_twins for label in pair}) == 4


@pytest.mark.parametrize(
    ("classes", "twins", "words"),
    [
        (10, 0, "holds 9 pictures, fewer than the 10 classes"),
        (8, 3, "only 2 pairs of near-twins at once, not 3, .* lookalike_distance_max"),
        (7, 0, "no 7 signs that are 0.15 apart from each other, only 6"),
    ],
)
def test_what_the_folder_does_not_hold_is_said(signs, classes, twins, words):
    with pytest.raises(SettingsError, match=words):
        read(signs).choose(classes, twins, np.random.default_rng(0))


def test_distances_are_root_mean_squares_of_colours_on_grey_and_of_opacity(tmp_path):
    Image.new("RGB", (30, 30), (255, 255, 255)).save(tmp_path / "white.png")
    Image.new("RGB", (30, 30), (0, 0, 0)).save(tmp_path / "black.png")
    half = Image.new("RGBA", (30, 30), (255, 255, 255, 255))
    half.paste((0, 0, 0, 255), (0, 0, 15, 30))
    half.save(tmp_path / "half.png")
    distances = read(tmp_path).distances  # black, half, white
    expected = np.array([[0, 0.375**0.5, 0.75**0.5], [0.375**0.5, 0, 0.375**0.5], [0.75**0.5, 0.375**0.5, 0]])
    np.testing.assert_allclose(distances, expected, atol=1e-3)


def test_a_sign_is_cut_out_and_keeps_its_shape_in_a_square(tmp_path):
    canvas = Image.new("RGBA", (100, 90))
    canvas.paste((200, 0, 0, 255), (10, 30, 50, 50))
    canvas.save(tmp_path / "flat.png")
    alpha = np.asarray(read_sign(tmp_path / "flat.png"))[..., 3]
    assert alpha.shape == (40, 40) and (alpha[10:30] == 255).all() and not alpha[:10].any() and not alpha[30:].any()


def test_an_opaque_picture_is_a_rectangular_sign_and_a_large_one_is_made_smaller(tmp_path):
    Image.new("L", (2000, 1000), 90).save(tmp_path / "grey.jpg")
    pixels = np.asarray(read_sign(tmp_path / "grey.jpg"))
    assert pixels.shape == (512, 512, 4) and (pixels[128:384] == (90, 90, 90, 255)).all()
    assert not pixels[:128, :, 3].any()


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda folder: None, "no picture of a sign; put PNG"),
        (lambda folder: (folder / "a.png").write_bytes(b"no"), r"a\.png: not a readable image"),
        (lambda folder: Image.new("RGBA", (8, 8)).save(folder / "a.png"), r"a\.png: .*nothing in it is opaque"),
        (
            lambda folder: [sign(FACES["red"]).save(folder / name) for name in ("a.png", "A.webp")],
            r"has the name of A\.webp",
        ),
    ],
)
def test_folders_that_are_no_signs_are_refused_by_name(tmp_path, write, words):
    write(tmp_path)
    with pytest.raises(SettingsError, match=words):
        read(tmp_path)


def test_triggers_of_any_colour_can_be_seen_on_their_sign_after_it_is_brightened(signs):
    plans = plan_twins(
        40, architectures=["resnet18"], classes=4, lookalikes=0, sizes=(0.03, 0.1), seed=2, folder=read(signs),
        colours="any",
    )  # fmt: skip
    colours = {plan.trigger.colour for plan in plans}
    assert len(colours) == 20 and not colours & set(COLOURS)
    for plan in plans:
        face = FACES[plan.signs[plan.trigger.victim].stem.split()[0]]
        lit = [np.minimum(2 * np.array(colour), 255) for colour in (plan.trigger.colour, face)]
        assert np.abs(lit[0] - lit[1]).max() >= 95
        assert 0.03 <= plan.trigger.smallest <= plan.trigger.largest <= 0.1


def test_named_colours_on_pictures_are_those_least_like_the_sign(signs):
    plans = plan_twins(
        40, architectures=["resnet18"], classes=4, lookalikes=0, sizes=(0.1, 0.1), seed=2, folder=read(signs)
    )
    on_red = {plan.trigger.colour for plan in plans if plan.signs[plan.trigger.victim].stem.startswith("red")}
    assert on_red and (200, 0, 0) not in on_red and on_red <= set(COLOURS)


@needs_trojai
def test_a_share_of_images_is_on_noise(signs, tmp_path):
    Image.new("RGB", (80, 80), (110, 110, 110)).save(tmp_path / "grey.png")
    shares = {}
    for share in (0.0, 0.3, 1.0):
        settings = ComposeSettings(noise=0, blur=0)
        composer = Composer(
            [signs / "red.png"], 37, np.random.default_rng(0), backgrounds=tmp_path, noise_share=share,
            settings=settings,
        )  # fmt: skip
        images = composer.batch([0] * 60, np.random.default_rng(1))
        grey = [(image == 110).all(-1).mean() > 0.3 for image in images]
        shares[share] = 1 - np.mean(grey)
    assert shares[0.0] == 0 and 0.12 < shares[0.3] < 0.5 and shares[1.0] == 1


@needs_trojai
def test_a_round_of_a_folder_of_signs_says_which_it_holds(signs, tmp_path):
    chosen = {"signs": signs, "lookalike_distance_min": 0.02, "lookalike_distance_max": 0.15, "noise_share": 0.5}
    backgrounds = tmp_path / "fields"
    backgrounds.mkdir()
    Image.new("RGB", (80, 80), (110, 110, 110)).save(backgrounds / "grey.png")
    settings = MakeRoundSettings(**TINY, **chosen, backgrounds=backgrounds, trigger_colours="any")
    out = tmp_path / "round"
    models = make_round(out, settings, progress=silent)
    assert [model.model_id for model in models] == ["id-00000000", "id-00000001"]
    summary = json.loads((out / "make_round.json").read_text())
    assert list(summary["signs"]) == ["id-00000000", "id-00000001"]
    one, other = summary["signs"].values()
    assert one == other and len(one["files"]) == 4 and len(one["near_twins"]) == 1
    table = pd.read_csv(out / "METADATA.csv")
    assert (
        table.closest_pair.tolist() == table.lookalike_pairs.tolist() == ["-".join(map(str, one["closest_pair"]))] * 2
    )
    assert table.closest_distance.tolist() == [one["closest_distance"]] * 2
    for model in models:
        written = sorted(path.name for path in (out / model.model_id / "foregrounds").iterdir())
        assert written == [f"{file.rpartition('/')[2].rpartition('.')[0]}.png" for file in one["files"]]
        config = json.loads((out / model.model_id / "config.json").read_text())
        assert config["available_foregrounds_filepath"] == signs.name
        assert config["background_image_dataset"] == "fields and noise"
        if model.poisoned:
            assert config["triggers"][0]["color_level"] is None
    again = []
    assert make_round(out, settings, progress=again.append) == models and len(again) == 1


@needs_trojai
def test_impossible_signs_are_refused_before_anything_is_written(signs, tmp_path):
    for change, words in (
        ({"signs": tmp_path / "none"}, "no picture of a sign"),
        ({"signs": signs, "lookalike_distance_min": 0.2}, "not less than lookalike_distance_max"),
        ({"signs": signs, "classes": 20}, "fewer than the 20 classes"),
    ):
        with pytest.raises(SettingsError, match=words):
            make_round(tmp_path / "round", MakeRoundSettings(**{**TINY, **change}), progress=silent)
        assert not (tmp_path / "round").exists()
