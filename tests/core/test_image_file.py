"""Image files of every kind, depth and size that people have, and of those that an attacker makes."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trojai_moth.core import image_file
from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.image_file import find_files, read_rgb, read_shape
from trojai_moth.core.images import ImageReader, read_image, read_small

GREY = np.arange(256).reshape(16, 16)
RGB = np.stack([GREY] * 3, -1).astype(np.uint8)


def png(values, colour_type, depth=16):
    """A PNG as no other program may write it, straight from values (h, w, channels)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of Pillow's may reach a user
        return np.asarray(read_rgb(path))


def refused(path, **limits):
    with pytest.raises(UnreadableModelError) as caught:
        read_rgb(path, **limits)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.TIFF", "a.webp", "a.ppm"])
def test_every_kind_is_read_by_its_name(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(read(tmp_path / name), RGB)


@pytest.mark.parametrize(
    ("colour_type", "values"),
    [
        (0, GREY[..., None] * 257),
        (2, np.stack([GREY * 257] * 3, -1)),
        (4, np.stack([GREY * 257, GREY * 0 + 30_000], -1)),
        (6, np.stack([GREY * 257] * 3 + [GREY * 0], -1)),
    ],
)
def test_sixteen_bits_of_a_png_are_scaled_and_opacity_is_dropped(tmp_path, colour_type, values):
    (tmp_path / "a.png").write_bytes(png(values, colour_type))
    assert np.array_equal(read(tmp_path / "a.png"), RGB)


@pytest.mark.parametrize(
    "content",
    [
        b"P5\n16 16\n255\n" + GREY.astype(np.uint8).tobytes(),
        b"P5\n16 16\n65535\n" + (GREY * 257).astype(">u2").tobytes(),
        b"P2\n# by hand\n16 16\n255\n" + " ".join(map(str, GREY.flatten())).encode(),
    ],
)
def test_grey_maps_of_every_depth(tmp_path, content):
    (tmp_path / "a.pgm").write_bytes(content)
    assert np.array_equal(read(tmp_path / "a.pgm"), RGB)
    (tmp_path / "dark.pgm").write_bytes(b"P5\n1 1\n65535\n\0\xff")
    assert read(tmp_path / "dark.pgm").max() == 1  # 255 of 65535


def test_the_shape_is_known_before_an_image_is_decoded(tmp_path):
    camera = Image.Exif()
    for orientation, shape in ((1, (20, 30)), (3, (20, 30)), (6, (30, 20)), (8, (30, 20))):
        camera[0x0112] = orientation
        Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=camera)
        assert read_shape(tmp_path / "a.jpg") == shape == read(tmp_path / "a.jpg").shape[:2]


def test_sixteen_bits_are_rounded_to_the_nearest(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.array([[[128], [129], [385], [65_407], [65_535]]]), 0))
    assert read(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 1, 255, 255]


@pytest.mark.parametrize(
    "values",
    [
        (GREY * 257).astype(np.uint16),
        (GREY * 257).astype(np.int32),
        GREY.astype(np.int32),
        GREY.astype(np.float32),
        (GREY / 255).astype(np.float32),
    ],
    ids=["uint16", "int32 to 65535", "int32 to 255", "float to 255", "float to 1"],
)
def test_deep_grey_is_read_where_white_is_plain(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array_equal(read(tmp_path / "a.tif"), RGB)


@pytest.mark.parametrize(
    "values",
    [
        (GREY * 1000).astype(np.int32),
        (GREY - 9).astype(np.int32),
        (GREY * 1.5).astype(np.float32),
        GREY * np.float32("nan"),
    ],
    ids=["beyond 65535", "below 0", "fractions beyond 1", "nan"],
)
def test_deep_grey_is_refused_where_nobody_says_what_is_white(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert "which is white is not said; save it in 8 bits" in refused(tmp_path / "a.tif")


def test_other_modes(tmp_path):
    image = Image.fromarray(RGB)
    few = image.quantize(8)
    few.save(tmp_path / "palette.png")
    few.save(tmp_path / "clear.png", transparency=bytes([0, 90] * 4))
    for name in ("palette.png", "clear.png"):
        assert np.array_equal(read(tmp_path / name), np.asarray(few.convert("RGB")))
    image.convert("1").save(tmp_path / "bits.png")
    assert set(read(tmp_path / "bits.png").ravel().tolist()) == {0, 255}
    image.convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    assert abs(read(tmp_path / "print.jpg").astype(int) - RGB).max() <= 4
    Image.new("LAB", (4, 4)).save(tmp_path / "lab.tif")
    assert "its colours are LAB; save it as RGB" in refused(tmp_path / "lab.tif")


@pytest.mark.parametrize("name", ["a.jpg", "a.jfif", "a.png", "a.tif", "a.webp"])
def test_a_camera_held_upright_is_followed(tmp_path, name):
    exif, tall = Image.Exif(), np.zeros((40, 20, 3), dtype=np.uint8)
    exif[0x112] = 6
    tall[:10] = 255
    Image.fromarray(np.rot90(tall)).save(tmp_path / name, exif=exif)
    turned = read(tmp_path / name)
    assert turned.shape == (40, 20, 3) and abs(turned.astype(int) - tall).mean() < 3


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first(tmp_path, name):
    red = Image.new("RGB", (16, 16), "red")
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(RGB).save(tmp_path / name, save_all=True, append_images=[red], **options)
    assert np.array_equal(read(tmp_path / name), RGB)


def test_what_is_damaged_or_of_another_kind_says_so_in_one_line(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other.png").write_bytes(whole)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no")
    (tmp_path / "none.png").write_bytes(png(np.zeros((0, 0, 1)), 0))
    Image.fromarray(RGB).save(tmp_path / "a.gif")
    (tmp_path / "gif.png").write_bytes((tmp_path / "a.gif").read_bytes())
    note = PngInfo()
    note.add_text("words", "x" * 2_000_000, zip=True)
    Image.fromarray(RGB).save(tmp_path / "words.png", pnginfo=note)
    for name, words in (
        ("half.jpg", "save it again, or leave it out"),
        ("other.png", "a JPEG image by its content; call it other.jpeg"),
        ("empty.png", "it is empty"),
        ("text.png", "damaged, or no PNG image"),
        ("none.png", "damaged, or no PNG image"),
        ("a.gif", "only PNG, JPEG, WebP, BMP, TIFF and PPM are read"),
        ("gif.png", "a GIF image by its content; save it as PNG"),
        ("words.png", "too large"),
        ("missing.png", "No such file"),
    ):
        line = refused(tmp_path / name)
        assert ": not a readable image (" in line and words in line


def test_photographs_are_made_small_while_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "_LARGE", 10_000)
    sky = np.zeros((800, 1200, 3), dtype=np.uint8)
    sky[:, 300:900] = 200
    for name in ("a.jpg", "a.png"):
        Image.fromarray(sky).save(tmp_path / name)
        small = read_small(tmp_path / name, 40)
        assert min(small.shape[1:]) in range(80, 160) and small.shape[2] / small.shape[1] == pytest.approx(
            1.5, abs=0.02
        )
        assert small[:, :, small.shape[2] // 2].float().mean() == pytest.approx(200, abs=2)
    assert read_rgb(tmp_path / "a.png", side=500).size == (1200, 800)  # it would be smaller than twice that


def test_what_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (60, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    assert "60 x 50 pixels; at most 59 a side; make it smaller" in refused(tmp_path / "a.png", longest=59)
    monkeypatch.setattr(image_file, "_MOST_DECODED", 2999)
    assert "megapixels; save it with" in refused(tmp_path / "a.png")
    monkeypatch.setattr(image_file, "_MOST_PIXELS", 2999)
    assert "megapixels; save it with" in refused(tmp_path / "a.png", side=1)
    Image.new("RGB", (1025, 8)).save(tmp_path / "wide.png")
    with pytest.raises(UnreadableModelError, match="1025 x 8 pixels; at most 1024 a side"):
        read_image(tmp_path / "wide.png")


def test_a_models_images_are_read_until_all_take_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("trojai_moth.core.images._MOST_BYTES", 3 * 250)
    for name, side in (("a", 10), ("b", 10), ("c", 10), ("d", 7)):
        Image.new("1", (side, side)).save(tmp_path / f"{name}.png")
    reader = ImageReader()
    assert [reader.read(tmp_path / f"{name}.png").shape for name in "ab"] == [(3, 10, 10)] * 2
    with pytest.raises(UnreadableModelError, match=r"c\.png: .*10 x 10 pixels, and with those before it more than"):
        reader.read(tmp_path / "c.png")
    assert reader.read(tmp_path / "d.png").shape == (3, 7, 7)


def test_files_at_any_depth_less_what_systems_leave(tmp_path):
    (tmp_path / "b" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "__MACOSX").mkdir()
    for name in ("a.png", "._a.png", "Thumbs.db", "b/c.png", "b/.ipynb_checkpoints/c.png", "__MACOSX/a.png"):
        (tmp_path / name).touch()
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in find_files(tmp_path)] == ["a.png", "b/c.png"]


def test_no_decoder_is_guessed(tmp_path):
    """Pillow would take PostScript by its content and start Ghostscript, if that is installed."""
    words = io.BytesIO()
    Image.new("RGB", (8, 8)).save(words, "EPS")
    for name in ("a.png", "a.jpg", "a.jfif", "a.webp", "a.bmp", "a.tif"):
        (tmp_path / name).write_bytes(words.getvalue())
        assert "not a readable image" in refused(tmp_path / name)
    (tmp_path / "a.eps").write_bytes(words.getvalue())
    assert "only PNG" in refused(tmp_path / "a.eps")
