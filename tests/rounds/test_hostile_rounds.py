"""Rounds whose folders, configurations and images want something that they may not have."""

import json
import os
import struct
import zlib
from pathlib import Path

import pytest
import torch
from fake_round import write_model, write_round

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.images import list_examples, read_image
from trojai_moth.rounds.model_folder import ModelFolder, SkippedModel
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_case, read_round

CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "round" / "id-00000000", per_class=2)


def moved_out(path, tmp_path):
    """The file or folder lies outside, and a link stands in its place."""
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize("name", ["model.pt", "config.json", "clean_example_data", "clean-example-logits.csv"])
def test_links_out_of_the_models_folder_are_refused(model, tmp_path, name):
    moved_out(model / name, tmp_path)
    with pytest.raises(UnreadableModelError, match=f"{name}: a link that leads out of its folder"):
        read_case(model)
    (found,) = read_round(model.parent)
    assert isinstance(found, SkippedModel) and "put the file there" in found.reason


def test_a_linked_example_image_is_refused(model, tmp_path):
    case = read_case(model)
    moved_out(next(iter(sorted(case.examples.iterdir()))), tmp_path)
    with pytest.raises(UnreadableModelError, match="a link that leads out"):
        open_folder(case, CPU)


def test_links_within_a_folder_and_folders_that_are_links_are_fine(model, tmp_path):
    """An owner may keep models elsewhere; what the link is called is then the model's name."""
    (model / "copy.pt").symlink_to(model / "model.pt")
    images = model / "clean_example_data"
    first = next(iter(sorted(images.iterdir())))
    (images / "class_0_example_9.png").symlink_to(first)
    (model / "clean-example-logits.csv").unlink()  # it has no row for the new name
    assert open_folder(read_case(model), CPU).subject.model_id == "id-00000000"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "id-00000007").symlink_to(model)
    (found,) = read_round(tmp_path / "elsewhere")
    assert isinstance(found, ModelFolder) and found.model_id == "id-00000007"


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"py/state":' * 50_000 + "1" + "}" * 50_000])
def test_deep_json_is_one_line(model, text):
    (model / "config.json").write_text(text)
    with pytest.raises(UnreadableModelError, match=r"config\.json") as caught:
        read_case(model)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_config_is_never_decoded_into_objects(model, tmp_path):
    """jsonpickle would call what py/reduce names."""
    sentinel = tmp_path / "ran"
    config = json.loads((model / "config.json").read_text())
    config["x"] = {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": [str(sentinel)]}]}
    (model / "config.json").write_text(json.dumps(config))
    assert isinstance(read_round(model.parent)[0], ModelFolder) and not sentinel.exists()


def png_that_claims(width, height):
    """A PNG of a few bytes whose header says that it is this large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (8193, 1)])
def test_images_with_huge_dimensions_are_refused(model, size):
    path = model / "clean_example_data" / "class_0_example_8.png"
    path.write_bytes(png_that_claims(*size))
    with pytest.raises(UnreadableModelError, match=r"class_0_example_8\.png: not a readable image"):
        read_image(path)
    with pytest.raises(UnreadableModelError, match="not a readable image"):
        open_folder(read_case(model), CPU)


@pytest.mark.parametrize("name", ["id-\n[bold]x", "id-\x1b[2Jx", "id-<script>alert(1)</script>"])
def test_names_with_newlines_and_markup_stay_in_their_line(tmp_path, name):
    root = write_round(tmp_path / "round", models=1)
    odd = root / name.replace("/", "_")
    odd.mkdir()
    reasons = [case.reason for case in read_round(root) if isinstance(case, SkippedModel)]
    assert len(reasons) == 1 and str(UnreadableModelError(reasons[0])).isprintable()


def test_pipes_and_devices_in_the_examples_are_not_opened(model):
    os.mkfifo(model / "clean_example_data" / "class_0_example_7.png")
    assert len(list_examples(model / "clean_example_data")) == len(open_folder(read_case(model), CPU).names)


def sign_names(model):
    return [path.name for path in read_case(model).signs]


def test_what_macos_and_editors_leave_is_neither_sign_nor_example(model):
    """A copy by way of an exFAT disk holds a ._X beside every X."""
    signs, examples = sign_names(model), list_examples(model / "clean_example_data")
    for path in [path for path in model.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (model / "foregrounds" / name).mkdir()
    (model / "foregrounds" / "0.png~").touch()
    assert sign_names(model) == signs and list_examples(model / "clean_example_data") == examples
    assert len(open_folder(read_case(model), CPU).names) == len(examples)


def test_signs_in_capitals_are_signs(model):
    signs = sign_names(model)
    for path in (model / "foregrounds").iterdir():
        path.rename(path.with_suffix(".PNG"))
    assert [Path(name).stem for name in sign_names(model)] == [Path(name).stem for name in signs] and signs


def test_a_sign_that_leads_out_is_refused(model, tmp_path):
    (model / "foregrounds" / "0.png").unlink(missing_ok=True)
    (model / "foregrounds" / "0.png").symlink_to(tmp_path)
    with pytest.raises(UnreadableModelError, match=r"0\.png: a link that leads out of its folder"):
        sign_names(model)


def test_links_that_stay_inside_and_a_link_to_the_model_itself_are_fine(model, tmp_path):
    (model / "foregrounds").rename(model / "kept")
    (model / "foregrounds").symlink_to("kept")
    link = tmp_path / "link"
    link.symlink_to(model)
    assert len(open_folder(read_case(link), CPU).names) == len(list_examples(model / "clean_example_data"))
    assert sign_names(link) == sign_names(model) and sign_names(link)


@pytest.mark.parametrize("name", ["config.json", "clean-example-logits.csv"])
def test_a_byte_order_mark_changes_nothing(model, name):
    before = open_folder(read_case(model), CPU)
    (model / name).write_bytes(b"\xef\xbb\xbf" + (model / name).read_bytes())
    after = open_folder(read_case(model), CPU)
    assert after.check == before.check and after.subject.preprocessing == before.subject.preprocessing
