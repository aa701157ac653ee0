import json
import os
import shutil

import pytest
from fake_round import write_config, write_metadata, write_round

from trojai_moth.core.channels import Normalisation
from trojai_moth.core.errors import UnreadableModelError, printable
from trojai_moth.rounds.config_file import read_config
from trojai_moth.rounds.metadata import read_metadata, typed_metadata
from trojai_moth.rounds.model_folder import ModelFolder, SkippedModel, is_model_id, model_id_of
from trojai_moth.rounds.reading import read_case, read_round


@pytest.fixture
def round_dir(tmp_path):
    return write_round(tmp_path / "round", models=3)


def change_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_cases_come_in_order_with_the_shape_that_config_gives(round_dir):
    cases = read_round(round_dir)
    assert [case.model_id for case in cases] == ["id-00000000", "id-00000001", "id-00000002"]
    config = cases[0].config
    assert (config.architecture, config.classes) == ("squeezenetv1_1", 3)
    assert (config.stored_size, config.size) == (36, 32)
    assert cases[0].model_file.is_file() and cases[0].logits_file.is_file()
    assert cases[0].examples.is_dir() and cases[0].foregrounds.is_dir()


def test_a_model_folder_is_a_round_of_one(round_dir, monkeypatch):
    assert [case.model_id for case in read_round(round_dir / "id-00000001")] == ["id-00000001"]
    monkeypatch.chdir(round_dir / "id-00000002")
    assert [case.model_id for case in read_round(type(round_dir)("."))] == ["id-00000002"]


def test_config_is_text_and_builds_nothing(tmp_path):
    """The same text run through jsonpickle would call os.mkdir."""
    write_config(tmp_path)
    trap = tmp_path / "it_ran"
    payload = {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": [str(trap)]}]}
    config = read_config(change_config(tmp_path, triggers=payload, **{"py/object": "os.system"}))
    assert config.classes == 3 and not trap.exists()
    with pytest.raises(UnreadableModelError, match="number_classes"):
        read_config(change_config(tmp_path, number_classes=payload))
    assert not trap.exists()


@pytest.mark.parametrize(
    "said",
    [
        {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 1]},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 1]},
        {"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 1], "input_size": [3, 32, 32]}},
    ],
)
def test_what_the_network_expects_is_read_as_plain_keys_and_as_timm_and_hugging_face_write_it(tmp_path, said):
    write_config(tmp_path)
    found = read_config(change_config(tmp_path, **said)).normalisation
    assert found == Normalisation(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 1))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"number_classes": None}, "number_classes is None"),
        ({"number_classes": True}, "number_classes is True"),
        ({"number_classes": 0}, "number_classes is 0"),
        ({"number_classes": 3.0}, "number_classes is 3.0"),
        ({"cnn_img_size_pixels": "32"}, "cnn_img_size_pixels is '32'"),
        ({"cnn_img_size_pixels": -1}, "cnn_img_size_pixels is -1"),
        ({"img_size_pixels": 10**9}, "img_size_pixels is 1000000000"),
        ({"img_size_pixels": 31}, "img_size_pixels 31 is below cnn_img_size_pixels 32"),
        ({"model_architecture": ["resnet18"]}, "model_architecture"),
        ({"image_mean": [], "image_std": [0.5]}, "image_mean is []; a list of a number for each channel is needed"),
        ({"mean": [0.5, 0.5, 0.5], "std": [0.5, 0, 0.5]}, "std is above 0"),
    ],
)
def test_impossible_configs_are_named(tmp_path, changes, named):
    write_config(tmp_path)
    with pytest.raises(UnreadableModelError) as caught:
        read_config(change_config(tmp_path, **changes))
    assert named in str(caught.value) and str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000, b'{"number_classes": ' + b"9" * 5000 + b"}", None]
)
def test_broken_configs_are_one_line(tmp_path, content):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableModelError) as caught:
        read_config(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_too_large_or_not_a_file_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(UnreadableModelError, match="larger than 16 MiB"):
        read_config(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnreadableModelError, match="not a regular file"):
        read_config(path)


def test_every_model_that_is_named_anywhere_is_a_row(round_dir):
    """Missing file, missing config, missing folder, a dead link: skips with reasons, in place."""
    (round_dir / "id-00000000" / "model.pt").unlink()
    (round_dir / "id-00000001" / "config.json").write_text("{")
    (round_dir / "id-00000003").symlink_to(round_dir / "gone")
    write_metadata(round_dir, {"id-00000002": False, "id-00000009": True, "n" * 300: False})
    found = read_round(round_dir)
    assert [case.model_id for case in found[:5]] == [f"id-0000000{n}" for n in (0, 1, 2, 3, 9)]
    assert found[5].model_id.startswith("n" * 100) and len(found[5].model_id) < 128
    assert [type(case) for case in found] == [
        SkippedModel,
        SkippedModel,
        ModelFolder,
        SkippedModel,
        SkippedModel,
        SkippedModel,
    ]
    reasons = [case.reason for case in found if isinstance(case, SkippedModel)]
    for reason, part in zip(
        reasons,
        ["no model.pt", "not JSON", "no such folder", "no such folder", "cannot be a model's name"],
        strict=True,
    ):
        assert part in reason and "\n" not in reason


def test_a_listed_model_without_an_id_name_is_found(round_dir):
    shutil.move(round_dir / "id-00000002", round_dir / "extra")
    write_metadata(round_dir, {"extra": False})
    assert [case.model_id for case in read_round(round_dir)] == ["extra", "id-00000000", "id-00000001"]


def test_links_keep_their_own_names(round_dir, tmp_path):
    """Two links to folders of one name are two models."""
    for number in (1, 2):
        store = tmp_path / f"store{number}" / "model"
        shutil.move(round_dir / f"id-0000000{number}", store)
        (round_dir / f"id-0000000{number}").symlink_to(store)
    assert [case.model_id for case in read_round(round_dir)] == ["id-00000000", "id-00000001", "id-00000002"]


@pytest.mark.parametrize("name", ["../x", "..", ".", "a/b", "/etc", "id-00000000/"])
def test_metadata_can_not_point_elsewhere(round_dir, name):
    write_metadata(round_dir, {"id-00000000": False, name: False})
    (odd,) = [case for case in read_round(round_dir) if isinstance(case, SkippedModel)]
    assert "METADATA.csv" in odd.reason and repr(name) in odd.reason and is_model_id(odd.model_id)


@pytest.mark.parametrize(
    "name", ["id-00000001 copy", "id-00000001 (old)", "id-é", "id-\udcff", "id-\n", "id-" + "n" * 200]
)
def test_a_folder_with_an_odd_name_is_skipped_and_said(round_dir, name):
    (round_dir / "METADATA.csv").unlink()
    shutil.move(round_dir / "id-00000001", round_dir / name)
    cases = read_round(round_dir)
    (odd,) = [case for case in cases if isinstance(case, SkippedModel)]
    assert len(cases) == 3 and printable(name) in odd.reason and "rename" in odd.reason
    assert is_model_id(odd.model_id) and odd.model_id.startswith("id-")


def test_odd_names_have_ids_of_their_own():
    odd = ["id-1 ", "id-1  ", " id-1", "id_1 ", "", "é", "è", "n" * 200, "n" * 201, "-", ".."]
    made = {model_id_of(name) for name in odd}
    assert len(made) == len(odd) and all(map(is_model_id, made))


def test_a_model_folder_of_any_name_can_be_a_round_of_one(round_dir):
    (case,) = read_round((round_dir / "id-00000001").rename(round_dir / "my model"))
    assert isinstance(case, ModelFolder) and is_model_id(case.model_id)


@pytest.mark.parametrize("junk", ["._id-00000001", "__MACOSX/id-00000007", "id-00000001~", ".ipynb_checkpoints"])
def test_what_systems_leave_is_no_model(round_dir, junk):
    (round_dir / junk).mkdir(parents=True)
    for model in ("id-00000000", "id-00000002"):
        (round_dir / model / ".#model.pt").symlink_to("user@host.1:2")  # an editor's lock
    assert [type(case) for case in read_round(round_dir)] == [ModelFolder] * 3


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (b'"id-00000009,False', "id-00000009,False"),
        (b"caf\xe9,False", "caf"),
        (b"id-00000009,False,more,than,there,are", "id-00000009"),
        (b"id-00000009", "id-00000009"),
        (b"id-0\x000,1", "id-0"),
        (b"x" * 200_000 + b",1", "x" * 50),
        (b"=cmd|' /C calc'!A0,0", "=cmd"),
        (b",False", None),
        (b"", None),
        (b"id-00000000,maybe", None),
    ],
)
def test_an_odd_row_of_metadata_spoils_no_other(round_dir, row, named):
    (round_dir / "METADATA.csv").write_bytes(
        b"model_name,poisoned\r\nid-00000001,False\r\n" + row + b"\r\nlast,True\r\n"
    )
    cases = read_round(round_dir)
    assert [case.model_id for case in cases if isinstance(case, ModelFolder)] == [f"id-0000000{n}" for n in range(3)]
    reasons = {case.model_id: case.reason for case in cases if isinstance(case, SkippedModel)}
    assert "no such folder" in reasons.pop("last")
    assert len(reasons) == (named is not None) and all(named in reason for reason in reasons.values())


@pytest.mark.parametrize("name", ["config.json", "clean-example-logits.csv", "foregrounds", "anything"])
def test_links_out_of_a_model_are_refused_whatever_they_are(round_dir, tmp_path, name):
    model = round_dir / "id-00000001"
    shutil.rmtree(model / name) if (model / name).is_dir() else (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(tmp_path)
    (odd,) = [case for case in read_round(round_dir) if isinstance(case, SkippedModel)]
    assert f"{name}: a link that leads out" in odd.reason


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace("\n", ",\r\n").encode() + b"\r\n",
    ],
)
def test_metadata_that_an_editor_touched_is_the_same(tmp_path, change):
    path = tmp_path / "METADATA.csv"
    path.write_bytes(change("model_name,poisoned,number_classes\nid-00000000,True,3\nid-00000001,False,4\n"))
    found = read_metadata(path, "number_classes")
    assert found.to_numpy().tolist() == [["id-00000000", "3"], ["id-00000001", "4"]]
    assert typed_metadata(path)["poisoned"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no column model_name"),
        (b"name,poisoned\nid-0,1\n", "no column model_name"),
        (b"model_name,poisoned,Model_Name\nid-0,1,id-1\n", "more than one column model_name"),
        (b"\xff\xff\xff,\n", "cannot be read as CSV text"),
    ],
)
def test_unreadable_metadata_is_named(round_dir, content, why):
    (round_dir / "METADATA.csv").write_bytes(content)
    with pytest.raises(UnreadableModelError, match=rf"METADATA\.csv: (has )?{why}") as caught:
        read_round(round_dir)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_metadata_that_is_no_file_is_not_waited_for(round_dir):
    (round_dir / "METADATA.csv").unlink(missing_ok=True)
    os.mkfifo(round_dir / "METADATA.csv")
    with pytest.raises(UnreadableModelError, match=r"METADATA\.csv: cannot be read \(not a regular file\)"):
        read_round(round_dir)


def test_no_round_at_all(tmp_path):
    with pytest.raises(UnreadableModelError, match="no id-"):
        read_round(tmp_path)
    with pytest.raises(UnreadableModelError, match="no such directory"):
        read_round(tmp_path / "nothing")
    with pytest.raises(UnreadableModelError, match="no such folder"):
        read_case(tmp_path / "nothing")


def test_labels_are_not_read_here(round_dir):
    """Whatever the labels say, the cases are the same objects, and no field of theirs could hold one."""
    cases = read_round(round_dir)
    write_metadata(round_dir, {case.model_id: True for case in cases})
    for case in cases:
        (case.directory / "ground_truth.csv").write_text("1\n")
    assert read_round(round_dir) == cases
    fields = {*vars(cases[0]), *vars(cases[0].config)}
    assert fields == {
        *("model_id", "directory", "config", "names", "packed", "linked_model"),
        *("architecture", "classes", "stored_size", "size", "normalisation", "width", "channels", "class_names"),
        *("entry", "images", "expect_accuracy", "described"),
    }
