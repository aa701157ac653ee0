import json
import os
import re
import warnings
import zlib

import numpy as np
import pytest
import torch
from fake_round import cropped, write_logits, write_model
from PIL import Image

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.images import list_examples, read_image
from trojai_moth.core.subject import Preprocessing
from trojai_moth.rounds.open_folder import open_folder, read_logits
from trojai_moth.rounds.preprocessing import HALF_TOLERANCE, LOGITS_TOLERANCE
from trojai_moth.rounds.reading import read_case

CPU = torch.device("cpu")
FIRST = "class_0_example_0.png"


def opened(directory):
    return open_folder(read_case(directory), CPU)


@pytest.fixture
def model_dir(tmp_path):
    return write_model(tmp_path / "id-00000000")


def change_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(directory):
    with pytest.raises(UnreadableModelError) as caught:
        opened(directory)
    text = str(caught.value)
    assert "\n" not in text and str(directory) in text
    return text


@pytest.mark.parametrize(("stored", "size"), [(36, 32), (35, 32), (72, 64), (67, 64), (32, 32)])
def test_sizes_come_from_the_config(tmp_path, stored, size):
    """The published logits were computed from images cropped by other code; of an odd margin less is at the front."""
    directory = write_model(tmp_path / "id-00000000", stored=stored, size=size, per_class=2)
    case = opened(directory)
    assert case.examples.x.shape == (6, 3, size, size) and case.raw.shape == (6, 3, stored, stored)
    expected, labels = cropped(directory, size)
    assert torch.equal(case.examples.x, expected) and torch.equal(case.examples.y, labels)
    assert case.examples.x.dtype == torch.float32 and case.examples.x.min() >= 0 and case.examples.x.max() <= 1
    assert case.subject.size == size and case.check.startswith("published logits reproduced")


@pytest.mark.parametrize(("stored", "size", "first"), [(36, 32, 2), (35, 32, 1), (72, 64, 4), (3, 2, 0)])
def test_the_crop_is_from_the_centre(stored, size, first):
    """Every pixel says where it is: row in the first channel, column in the second."""
    place = torch.arange(stored, dtype=torch.uint8)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    image = torch.stack([rows, columns, torch.zeros_like(rows)])
    x = Preprocessing(stored_size=stored, size=size)(image[None]) * 255
    assert x[0, 0, :, 0].round().tolist() == list(range(first, first + size))
    assert x[0, 1, 0].round().tolist() == list(range(first, first + size))


def test_a_shifted_crop_is_noticed(tmp_path):
    """Three pixels are enough: the check by logits would not pass a wrong crop of a larger stored size."""
    directory = write_model(tmp_path / "id-00000000")
    for path, _ in list_examples(directory / "clean_example_data"):
        pixels = np.roll(read_image(path).permute(1, 2, 0).numpy(), 3, axis=0)
        Image.fromarray(pixels).save(path)
    assert "does not reproduce clean-example-logits.csv" in refused(directory)


def test_the_model_is_ready_and_examples_are_in_order(model_dir):
    case = opened(model_dir)
    assert case.subject.module.training is False and case.subject.model_id == "id-00000000"
    assert case.names[0] == FIRST and case.examples.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert case.subject.accuracy(case.examples.x, case.examples.y) == 1.0


def test_other_logits_refuse_with_the_numbers(model_dir):
    path = model_dir / "clean-example-logits.csv"
    rows = read_logits(path, 3)
    scale = float(np.abs(rows[FIRST]).max())
    for share, fits in ((LOGITS_TOLERANCE / 2, True), (LOGITS_TOLERANCE * 3, False)):
        changed = {**rows, FIRST: rows[FIRST] + np.array([share * scale, 0, 0])}
        lines = [f"{name}, {', '.join(map(repr, map(float, row)))}" for name, row in changed.items()]
        path.write_text("Example, Logits\n" + "\n".join(lines))
        if fits:
            assert opened(model_dir).check.startswith("published logits reproduced")
    text = refused(model_dir)
    error = float(re.search(r"relative error ([\d.e-]+),", text)[1])
    assert error == pytest.approx(3 * LOGITS_TOLERANCE, rel=0.1)
    assert f"allowed {LOGITS_TOLERANCE:g}" in text and "accuracy 1.000" in text


@pytest.mark.parametrize("tolerance_share", [0.5, 2.0])
def test_half_precision_logits_get_their_own_tolerance(model_dir, tolerance_share):
    """Numbers that half precision prints may be as far off as that precision's arithmetic is, and no further."""
    module = opened(model_dir).subject.module
    shift = 1 + tolerance_share * HALF_TOLERANCE
    write_logits(model_dir, module, write=lambda value: str(np.float16(float(value) * shift)))
    if tolerance_share < 1:
        assert opened(model_dir).check.startswith("published logits reproduced")
    else:
        assert f"allowed {HALF_TOLERANCE:g}" in refused(model_dir)


def test_the_same_error_in_full_precision_is_refused(model_dir):
    module = opened(model_dir).subject.module
    write_logits(model_dir, module, write=lambda value: f"{float(value) * (1 + HALF_TOLERANCE / 2):.9f}")
    assert f"allowed {LOGITS_TOLERANCE:g}" in refused(model_dir)


def test_huge_published_logits_are_a_reason_and_no_warning(model_dir):
    module = opened(model_dir).subject.module
    write_logits(model_dir, module, write=lambda value: repr(float(value) * 1e30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "does not reproduce" in refused(model_dir)


def test_every_image_needs_its_row(model_dir):
    path = model_dir / "clean-example-logits.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:]]))
    assert f"has no row for {FIRST}" in refused(model_dir)


@pytest.mark.parametrize(
    "row", [f"{FIRST}, 1.0, 2.0", f"{FIRST}, 1, 2, nan", f"{FIRST}, 1, 2, x", f"{FIRST}, 1, 2, 3, 4", FIRST]
)
def test_broken_logits_are_named(model_dir, row):
    (model_dir / "clean-example-logits.csv").write_text(f"Example, Logits\n{row}\n")
    assert "clean-example-logits.csv: not a logits file" in refused(model_dir)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"\n",
        lambda text: text.replace(b"\n", b"\n\n"),
        lambda text: text.replace(b"\n", b"\r\n") + b" \r\n",
        lambda text: b"\n" + text,
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text + b",,,\n",
        lambda text: text.replace(b"\n", b",\n"),
        lambda text: text.replace(b",", b"\t"),
        lambda text: text.replace(b",", b";"),
        lambda text: text.replace(b",", b";").replace(b".", b",").replace(b",png", b".png"),
        lambda text: text.decode().encode("utf-16"),
    ],
)
def test_logits_that_an_editor_touched_are_the_same(model_dir, change):
    path = model_dir / "clean-example-logits.csv"
    before = read_logits(path, 3)
    path.write_bytes(change(path.read_bytes()))
    after = read_logits(path, 3)
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)


def test_logits_that_are_not_text_or_not_a_file(model_dir):
    path = model_dir / "clean-example-logits.csv"
    path.write_bytes(b"Example\n\xff\xfe\x00")
    assert "not a logits file" in refused(model_dir)
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in refused(model_dir)


def test_without_logits_the_labels_decide(model_dir):
    (model_dir / "clean-example-logits.csv").unlink()
    assert opened(model_dir).check == "no published logits; accuracy on examples 1.000"
    folder = model_dir / "clean_example_data"
    for number in range(3):  # 3 of 12 images change places with another class: 6 wrong, 50 %
        one, other = folder / f"class_0_example_{number}.png", folder / f"class_1_example_{number}.png"
        spare = one.rename(folder / "spare.png")
        other.rename(one)
        spare.rename(other)
    assert opened(model_dir).check.endswith("accuracy on examples 0.500")
    for path in folder.iterdir():  # class 0 becomes 3, which is then 1, and so on: nothing is right
        path.rename(path.with_name(path.name.replace(f"class_{path.name[6]}", f"class_{int(path.name[6]) + 3}")))
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace(path.name[:7], f"class_{(int(path.name[6]) + 1) % 3}")))
    text = refused(model_dir)
    shares = re.findall(r"accuracy ([\d.]+)", text)
    assert "the classes of the example images are not in the model's order: it takes 0 -> " in text
    assert len(shares) == 21 and "RGB, /255, crop 32 of 36" in text and "number them as the model does" in text


def spoil(directory, name=FIRST, size=(36, 36)):
    Image.new("RGB", size).save(directory / "clean_example_data" / name)


def test_images_of_another_size_or_class(model_dir):
    spoil(model_dir, size=(36, 35))
    assert f"{FIRST}: 36 x 35 pixels, but config.json says 36 x 36" in refused(model_dir)
    spoil(model_dir)
    spoil(model_dir, "class_3_example_0.png")
    assert "class_3_example_0.png: class 3, but config.json says 3 classes" in refused(model_dir)


def test_images_that_are_none(model_dir):
    path = model_dir / "clean_example_data" / FIRST
    good = path.read_bytes()
    broken_chunk = good.replace(b"IDAT", b"\xff\xfe,R", 1)
    for content in (b"", b"not an image", good[: len(good) // 2], broken_chunk):
        path.write_bytes(content)
        assert f"{FIRST}: not a readable image" in refused(model_dir)


def test_only_png_is_decoded(model_dir):
    """Pillow would guess PostScript from the content and start Ghostscript, if that is installed."""
    path = model_dir / "clean_example_data" / FIRST
    for form in ("BMP", "JPEG", "EPS"):
        Image.new("RGB", (36, 36)).save(path, format=form)
        assert f"{FIRST}: not a readable image" in refused(model_dir)


def test_pictures_that_would_fill_the_memory_are_refused(tmp_path):
    """A PNG of a few bytes can claim any size."""
    path = tmp_path / "x.png"
    Image.new("1", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(UnreadableModelError, match="not a readable image"):
        read_image(path)


def test_no_examples_at_all(model_dir):
    for path, _ in list_examples(model_dir / "clean_example_data"):
        path.unlink()
    os.mkfifo(model_dir / "clean_example_data" / FIRST)
    assert "no images named class_C_example_N.png" in refused(model_dir)


def test_numbers_are_sorted_as_numbers(tmp_path):
    for name in ("class_10_example_0.png", "class_2_example_10.png", "class_2_example_9.png", "class_1_example_x.png"):
        (tmp_path / name).touch()
    assert [(path.name[:-4], label) for path, label in list_examples(tmp_path)] == [
        ("class_2_example_9", 2),
        ("class_2_example_10", 2),
        ("class_10_example_0", 10),
    ]
    assert list_examples(tmp_path / "nothing") == []


def test_a_network_that_can_not_take_the_images(tmp_path):
    directory = write_model(tmp_path / "id-00000000")
    change_config(directory, cnn_img_size_pixels=6, img_size_pixels=6)
    for path, _ in list_examples(directory / "clean_example_data"):
        Image.new("RGB", (6, 6)).save(path)
    assert "model.pt: cannot take images of 6 x 6 pixels" in refused(directory)


def test_config_and_model_must_agree(model_dir):
    change_config(model_dir, number_classes=4)
    assert "has 3 classes, but its configuration says" in refused(model_dir)
    change_config(model_dir, number_classes=3, model_architecture="resnet18")
    assert "holds a squeezenetv1_1, but its configuration says resnet18" in refused(model_dir)
    (model_dir / "model.pt").write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR.")
    assert "model.pt" in refused(model_dir)


def test_weights_that_overflow_are_refused(model_dir):
    """Finite weights whose logits are not: no number could be compared."""
    case = opened(model_dir)
    with torch.no_grad():
        for parameter in case.subject.module.parameters():
            parameter.mul_(1e9)
    torch.save(case.subject.module, model_dir / "model.pt")
    assert "logits that are not finite" in refused(model_dir)
