import builtins
import importlib.util
import os

import numpy as np
import pytest
import torch
from PIL import Image

from trojai_moth.core.errors import MissingDependencyError, SettingsError
from trojai_moth.synthesis.backgrounds import noise_backgrounds, random_crop, read_backgrounds
from trojai_moth.synthesis.compose import Composer, ComposeSettings, compose_stored, to_input
from trojai_moth.synthesis.datagen import datagen
from trojai_moth.synthesis.polygon import Polygon, draw_polygon, stamp
from trojai_moth.synthesis.traffic_signs import Sign, draw_sign, sign_set

needs_trojai = pytest.mark.skipif(
    importlib.util.find_spec("trojai") is None,
    reason="needs trojai: pip install --no-deps trojai==0.2.23",
)


@pytest.fixture
def foregrounds(tmp_path):
    # Plain string order is 10-0, 2-0, 9-0: red, green, blue.
    for name, face in (("9-0", "blue"), ("10-0", "red"), ("2-0", "green")):
        draw_sign(Sign(outline="square", face=face, symbol="disc", dark_symbol=True)).save(tmp_path / f"{name}.png")
    return list(tmp_path.glob("*.png"))


def grey_folder(folder, shade=110, size=(90, 60)):
    folder.mkdir()
    Image.new("RGB", size, (shade,) * 3).save(folder / "grey.png")
    return folder


def test_lookalikes_differ_in_a_few_pixels_and_others_in_many():
    signs, pairs = sign_set(7, 2, np.random.default_rng(0))
    assert pairs == [(0, 1), (2, 3)]
    drawn = [np.asarray(draw_sign(sign, 64)).astype(int) for sign in signs]

    def changed(i, j):
        return (abs(drawn[i] - drawn[j]).sum(-1) > 60).mean()

    for i in range(7):
        for j in range(i):
            if (j, i) in pairs:
                assert 0.005 < changed(i, j) < 0.05
            else:
                assert changed(i, j) > 0.1


def test_a_sign_is_opaque_inside_and_transparent_outside():
    alpha = np.asarray(draw_sign(Sign(outline="circle", face="red", symbol="bar"), 64))[..., 3]
    assert alpha[32, 32] == 255 and alpha[0, 0] == 0


@pytest.mark.parametrize(("classes", "lookalikes"), [(3, 2), (100, 0), (200, 30)])
def test_impossible_sign_sets_are_refused(classes, lookalikes):
    with pytest.raises(SettingsError, match="cannot be drawn"):
        sign_set(classes, lookalikes, np.random.default_rng(0))


def test_noise_backgrounds_are_mid_bright_and_not_flat():
    for picture in noise_backgrounds(8, 30, np.random.default_rng(1)):
        assert picture.shape == (60, 60, 3)
        assert 65 < picture.mean() < 165 and picture.std() > 10
        assert random_crop(picture, 30, np.random.default_rng(2)).shape == (30, 30, 3)


def test_backgrounds_of_a_folder_are_shrunk_and_small_ones_left_out(tmp_path):
    folder = grey_folder(tmp_path / "bg", size=(400, 200))
    Image.new("RGB", (10, 500)).save(folder / "thin.png")
    pictures = read_backgrounds(folder, 30)
    assert [picture.shape for picture in pictures] == [(60, 120, 3)]


def test_of_too_many_backgrounds_evenly_spread_ones_are_kept(tmp_path, monkeypatch, notes):
    folder = tmp_path / "bg"
    folder.mkdir()
    for shade in range(9):
        Image.new("RGB", (60, 40), (shade,) * 3).save(folder / f"{shade}.webp", lossless=True)
    monkeypatch.setattr("trojai_moth.synthesis.backgrounds._MOST_BYTES", 4 * 3 * 60 * 40)
    assert [picture.max() for picture in read_backgrounds(folder, 20)] == [0, 3, 6]
    assert notes.messages == [f"{folder}: 3 of 9 pictures are used, as many as fit into memory"]


def test_a_background_that_is_no_image_is_refused_by_name(tmp_path):
    folder = grey_folder(tmp_path / "bg")
    (folder / "bad.jpg").write_bytes(b"no")
    with pytest.raises(SettingsError, match=r"bad\.jpg: not a readable image .*leave it out"):
        read_backgrounds(folder, 30)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no background picture"):
        read_backgrounds(tmp_path, 30)


def polygon(smallest, largest, fill=1.0):
    mask = np.zeros((40, 40), dtype=bool)
    mask[:, : int(40 * fill)] = True
    return Polygon(mask=mask, colour=(200, 0, 0), sides=4, smallest=smallest, largest=largest)


def test_a_stamp_lies_on_the_sign_and_has_its_share_of_the_area():
    sign = np.zeros((40, 40, 4), dtype=np.uint8)
    sign[5:35, 5:35] = (0, 0, 150, 255)
    for seed in range(20):
        stamped = stamp(sign, polygon(0.04, 0.09), np.random.default_rng(seed))
        red = (stamped == (200, 0, 0, 255)).all(-1)
        assert not red[sign[..., 3] == 0].any()
        # A square turned inside its own square keeps between half of it (45 degrees, corners cut) and all of it.
        assert 0.5 * 6**2 <= red.sum() <= 9**2
    assert (sign[..., 0] == 0).all()


def test_a_stamp_shrinks_until_it_fits_a_thin_sign():
    sign = np.zeros((40, 40, 4), dtype=np.uint8)
    sign[:, 10:13] = 255
    stamped = stamp(sign, polygon(0.5, 0.5), np.random.default_rng(0))
    red = (stamped == (200, 0, 0, 255)).all(-1)
    assert 0 < red.sum() <= 9 and not red[:, :10].any() and not red[:, 13:].any()


@needs_trojai
def test_polygons_depend_on_their_generator_alone_and_leave_numpys_stream_alone():
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (draw_polygon(40, 5, (0, 0, 200), 0.1, 0.1, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert (first.mask == again.mask).all() and (first.mask != other.mask).any()
    assert first.mask.mean() >= 0.35
    picture = np.asarray(first.picture())
    assert ((picture[..., 3] == 255) == first.mask).all() and picture[..., :3].max() == 1


@needs_trojai
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_sign_that_is_a_pipe_is_not_waited_for(foregrounds):
    foregrounds[1].unlink()
    os.mkfifo(foregrounds[1])
    with pytest.raises(SettingsError, match=r"png: not a readable image \(not a regular file"):
        compose_stored(foregrounds, per_class=1, stored_size=37, generator=1)


def test_what_systems_leave_among_backgrounds_is_passed_over(tmp_path):
    photos = grey_folder(tmp_path / "photos")
    (photos / "._grey.png").write_bytes(b"no image")
    (photos / ".ipynb_checkpoints").mkdir()
    (photos / ".ipynb_checkpoints" / "grey-checkpoint.png").write_bytes(b"no image")
    (photos / "again").symlink_to(photos)  # round and round
    (photos / "linked.png").symlink_to(photos / "grey.png")
    assert len(read_backgrounds(photos, 20)) == 2


@needs_trojai
def test_composed_images_have_the_promised_form(foregrounds):
    images, labels = compose_stored(foregrounds, per_class=4, stored_size=37, generator=1)
    assert images.shape == (12, 37, 37, 3) and images.dtype == np.uint8 and images.max() > 0.9 * 255
    x = to_input(images, 32)
    assert x.shape == (12, 3, 32, 32) and x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@needs_trojai
def test_the_same_seed_gives_the_same_images_from_numbers_and_torch_generators(foregrounds):
    def images(generator):
        return compose_stored(foregrounds, per_class=2, stored_size=37, generator=generator)[0]

    assert np.array_equal(images(3), images(3))
    assert not np.array_equal(images(3), images(4))
    assert np.array_equal(images(torch.Generator().manual_seed(3)), images(torch.Generator().manual_seed(3)))
    stream = torch.Generator().manual_seed(3)
    assert not np.array_equal(images(stream), images(stream))


@needs_trojai
def test_classes_are_the_file_names_in_string_order(foregrounds, tmp_path):
    grey = grey_folder(tmp_path / "bg")
    images, labels = compose_stored(foregrounds, per_class=8, stored_size=37, generator=0, backgrounds=grey)
    images = to_input(images, 32)
    # On grey the strongest channel is the sign's: 10-0 red, 2-0 green, 9-0 blue.
    excess = images.sum((2, 3)) - images.sum((1, 2, 3))[:, None] / 3
    assert (excess.argmax(1) == labels).all()


@needs_trojai
def test_signs_cover_their_share_of_the_image_at_any_place(foregrounds, tmp_path):
    grey = grey_folder(tmp_path / "bg")
    settings = ComposeSettings(tilt=0, blur=0, noise=0)
    images = Composer(foregrounds, 60, np.random.default_rng(0), backgrounds=grey, settings=settings).batch(
        [0] * 60, np.random.default_rng(0)
    )
    covered = (images != 110).any(-1)
    shares = covered.mean((1, 2))
    # A square sign fills 0.98 * 0.92 = 0.81 of its square's area; sides are drawn between 26 and 37 of 60 pixels.
    assert 0.12 < shares.min() < 0.22 and 0.27 < shares.max() < 0.4
    corners = np.array([np.argwhere(one).min(0) for one in covered])
    assert (corners.min(0) <= 4).all() and (corners.max(0) >= 25).all()


@needs_trojai
def test_the_centre_is_cropped():
    images = np.arange(8 * 8, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(3, -1)
    cropped = to_input(images, 4)
    assert cropped.shape == (1, 3, 4, 4)
    assert cropped[0, 0, 0, 0] == pytest.approx((2 * 8 + 2) / 255) and cropped[0, 2, 3, 3] == pytest.approx(45 / 255)


@needs_trojai
def test_broken_inputs_are_refused_in_one_line(foregrounds, tmp_path):
    bad = tmp_path / "99-0.png"
    bad.write_bytes(b"not a picture")
    huge = tmp_path / "98-0.png"
    Image.new("1", (1100, 8)).save(huge)
    for paths, settings, word in (
        ([huge], None, r"98-0.png: .*1100 x 8 pixels; at most 1024 a side; .*transparent surround"),
        ([bad], None, "99-0.png: not a readable image"),
        ([], None, "none given"),
        (foregrounds, ComposeSettings(sign_area_min=0.5), "larger than sign_area_max"),
    ):
        with pytest.raises(SettingsError, match=word):
            compose_stored(paths, per_class=1, stored_size=37, generator=0, settings=settings)


def test_a_missing_trojai_is_one_line_with_the_mend(foregrounds, monkeypatch):
    real = builtins.__import__

    def without_trojai(name, *args, **kwargs):
        if name.startswith("trojai."):
            raise ModuleNotFoundError("No module named 'trojai'", name="trojai")
        return real(name, *args, **kwargs)

    datagen.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_trojai)
    with pytest.raises(MissingDependencyError, match=r"trojai is needed .* pip install --no-deps trojai==0\.2\.23"):
        compose_stored(foregrounds, per_class=1, stored_size=37, generator=0)


@needs_trojai
@pytest.mark.parametrize("name", ["id-00000001", "id-00000004"])
def test_a_published_style_model_recognises_composed_images(extra_data, name):
    loading = pytest.importorskip("trojai_moth.loading")
    model = extra_data / "pilot-round" / name
    signs = list((model / "foregrounds").glob("*.png"))
    images, labels = compose_stored(signs, per_class=20, stored_size=72, generator=1)
    with torch.no_grad():
        right = loading.load_model(model / "model.pt").module(to_input(images, 64)).argmax(1) == labels
    by_class = [right[labels == label].float().mean().item() for label in range(int(labels.max()) + 1)]
    assert min(by_class) >= 0.85 and right.float().mean() >= 0.95
