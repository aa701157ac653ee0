import gzip
import os
import tarfile

import pytest
import torch
from fake_round import write_model, write_round
from packed_round import pack_models, write_members

from trojai_moth.core.errors import SettingsError, UnreadableModelError
from trojai_moth.core.process_identity import process_name
from trojai_moth.eval.labels import read_labels
from trojai_moth.rounds import packs
from trojai_moth.rounds.model_folder import ModelFolder, SkippedModel, is_model_id
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.packs import PackStream, read_pack, unpacked
from trojai_moth.rounds.reading import read_round

MODEL = [("id-00000001", None), ("id-00000001/model.pt", b"m" * 600), ("id-00000001/config.json", b"{}")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("packed") / "round", models=3, poisoned=(1,), per_class=2)


def left_over(tmp_path):
    return list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("prefix", ["", "./", "round4/"])
def test_a_packed_round_is_read_like_the_folders_in_it(plain, tmp_path, prefix):
    root = tmp_path / "round"
    root.mkdir()
    pack_models(root / "id-000000xx.tar.gz", sorted(plain.glob("id-*")), prefix)
    folders, packed = read_round(plain), read_round(root)
    assert [case.model_id for case in packed] == [case.model_id for case in folders]
    for case, folder in zip(packed, folders, strict=True):
        assert (case.config, case.names) == (folder.config, folder.names) and not case.model_file.exists()
        with unpacked(case) as there:
            files = {path.relative_to(there.directory) for path in there.directory.rglob("*")}
            assert files == {path.relative_to(folder.directory) for path in folder.directory.rglob("*")}
            assert there.model_file.read_bytes() == folder.model_file.read_bytes()
        assert not there.directory.exists() and left_over(tmp_path) == []
    assert read_labels(root) == {"id-00000000": False, "id-00000001": True, "id-00000002": False}


def test_a_packed_model_opens_and_its_errors_name_the_pack(plain, tmp_path):
    pack = pack_models(tmp_path / "id-000000xx.tar.gz", [plain / "id-00000000"])
    (case,) = read_pack(pack)
    with unpacked(case) as there:
        assert open_folder(there, torch.device("cpu")).check.startswith("published logits reproduced")
    with pytest.raises(UnreadableModelError) as caught, unpacked(case) as there:
        there.model_file.write_bytes(b"spoilt")
        open_folder(there, torch.device("cpu"))
    assert str(pack / "id-00000000" / "model.pt") in str(caught.value) and "temporary" not in str(caught.value)
    with pytest.raises(SettingsError) as caught, unpacked(case) as there:  # as a sign that is no picture is refused
        raise SettingsError(f"{there.foregrounds}/0.png: not a readable image")
    assert str(caught.value).startswith(str(pack / "id-00000000" / "foregrounds"))
    assert left_over(tmp_path) == []


def test_models_in_order_cost_one_pass_and_any_order_works(plain, tmp_path, monkeypatch):
    pack = pack_models(tmp_path / "id-000000xx.tar.gz", sorted(plain.glob("id-*")))
    cases = read_pack(pack)
    opened = []

    class Counting(PackStream):
        def __init__(self, path):
            opened.append(path)
            super().__init__(path)

    monkeypatch.setattr(packs, "PackStream", Counting)
    packs._reader.cache_clear()
    for number, streams in ((0, 1), (1, 1), (2, 1), (0, 2), (2, 2)):
        with unpacked(cases[number]) as there:
            assert there.model_file.read_bytes() == (plain / cases[number].model_id / "model.pt").read_bytes()
        assert len(opened) == streams


def test_the_list_is_remembered_until_the_pack_changes(plain, tmp_path, monkeypatch):
    pack = pack_models(tmp_path / "id-000000xx.tar.gz", [plain / "id-00000000"])
    first = read_pack(pack)
    monkeypatch.setattr(packs, "_read_through", lambda pack: pytest.fail("read again"))
    assert read_pack(pack) == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack_models(pack, [plain / "id-00000001"])
    os.utime(pack, (1, 1))
    assert [case.model_id for case in read_pack(pack)] == ["id-00000001"]


def test_an_unpacked_model_goes_before_its_pack(plain, tmp_path):
    root = tmp_path / "round"
    (root / "models").mkdir(parents=True)
    pack_models(root / "models" / "id-000000xx.tar.gz", sorted(plain.glob("id-*")))
    (root / "models" / "id-00000001").symlink_to(plain / "id-00000001")
    assert [case.packed is None for case in read_round(root)] == [False, True, False]


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
HARD = {"type": tarfile.LNKTYPE, "linkname": "id-00000001/model.pt"}


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("id-00000001/clean_example_data", LINK), "a link, a device"),
        (("id-00000001/x.png", HARD), "a link, a device"),
        (("id-00000001/x.png", {"type": tarfile.CHRTYPE}), "a link, a device"),
        (("id-00000001/x.png", {"type": tarfile.FIFOTYPE}), "a link, a device"),
        (("id-00000001/x\n.png", b""), "not usable as a file name"),
        (("id-00000001/\x1b[31m.png", b""), "not usable as a file name"),
        (("id-00000001/a\\b.png", b""), "not usable as a file name"),
        (("id-00000001/" + "n" * 300, b""), "not usable as a file name"),
        (("id-00000001/a/b/c/d/e/f/g.png", b""), "levels of folders"),
    ],
)
def test_a_model_with_an_odd_member_is_refused_and_its_neighbour_is_not(tmp_path, member, words):
    other = [(name.replace("01", "02"), content) for name, content in MODEL]
    found = read_pack(write_members(tmp_path / "id-000000xx.tar.gz", [*MODEL, member, *other]))
    assert [(type(case), case.model_id) for case in found] == [
        (SkippedModel, "id-00000001"),
        (ModelFolder, "id-00000002"),
    ]
    assert words in found[0].reason and found[0].reason.isprintable()
    with unpacked(found[1]) as there:
        assert there.model_file.read_bytes() == b"m" * 600


@pytest.mark.parametrize("name", ["/etc/x", "../x", "id-00000001/../../x", "id-00000001/a/../b"])
def test_a_pack_with_a_name_that_leads_out_is_refused(tmp_path, name):
    found = read_pack(write_members(tmp_path / "id-000000xx.tar.gz", [*MODEL, (name, b"x")]))
    assert all(isinstance(case, SkippedModel) for case in found) and "leads out of its folder" in found[-1].reason
    assert not (tmp_path / "x").exists() and left_over(tmp_path) == []


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_cut_pack_gives_its_whole_models_and_says_so(plain, tmp_path, keep):
    pack = pack_models(tmp_path / "id-000000xx.tar.gz", sorted(plain.glob("id-*")))
    data = pack.read_bytes()
    pack.write_bytes(data[: int(len(data) * keep)])
    found = read_pack(pack)
    assert found[-1].model_id == pack.name and "is cut short or damaged" in found[-1].reason
    whole = [case for case in found if isinstance(case, ModelFolder)]
    assert len(whole) == {0.3: 0, 0.9: 2, 0.999: 2}[keep]
    for case in whole:
        with unpacked(case) as there:
            assert there.model_file.stat().st_size == (plain / case.model_id / "model.pt").stat().st_size


def test_damage_in_the_middle_is_not_an_end(plain, tmp_path):
    pack = pack_models(tmp_path / "id-000000xx.tar.gz", sorted(plain.glob("id-*")))
    data = bytearray(gzip.decompress(pack.read_bytes()))
    start = read_pack(pack)[1].packed.start
    data[start : start + 512] = b"\xff" * 512
    pack.write_bytes(gzip.compress(bytes(data)))
    os.utime(pack, (1, 1))
    found = read_pack(pack)
    assert isinstance(found[-1], SkippedModel) and "damaged" in found[-1].reason


def test_bombs_are_refused_before_they_go_off(tmp_path, monkeypatch):
    """A header of a gigabyte would be taken into memory, and zeros without end unpacked."""
    info = tarfile.TarInfo("id-00000001/x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    pack = tmp_path / "id-000000xx.tar.gz"
    pack.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    (found,) = read_pack(pack)
    assert "header of impossible size" in found.reason
    monkeypatch.setattr("trojai_moth.rounds.packs._FREE_BYTES", 1 << 20)
    write_members(pack, [*MODEL, ("id-00000001/zeros", bytes(4 << 20))])
    os.utime(pack, (1, 1))
    assert "unpacks to more than" in read_pack(pack)[-1].reason


def test_what_is_no_pack(tmp_path):
    pack = tmp_path / "id-000000xx.tar.gz"
    for number, content in enumerate((b"", b"no gzip", gzip.compress(b"no tar" * 500))):
        pack.write_bytes(content)
        os.utime(pack, (number, number))
        (found,) = read_pack(pack)
        assert isinstance(found, SkippedModel) and pack.name in found.reason
    pack.unlink()
    os.mkfifo(pack)
    assert "not a regular file" in read_pack(pack)[0].reason


def test_members_that_do_not_lie_together_and_models_without_a_file(tmp_path):
    other = [(name.replace("01", "02"), content) for name, content in MODEL]
    found = read_pack(write_members(tmp_path / "id-000000xx.tar.gz", [*MODEL, *other, MODEL[1]]))
    assert "do not lie together" in found[0].reason and isinstance(found[1], ModelFolder)
    found = read_pack(write_members(tmp_path / "id-000001xx.tar.gz", MODEL[:1]))
    assert "id-00000001: no model.pt in it" in found[0].reason


def test_a_second_file_of_the_same_name_is_refused(tmp_path):
    (case,) = read_pack(write_members(tmp_path / "id-000000xx.tar.gz", [*MODEL, MODEL[1]]))
    with pytest.raises(UnreadableModelError, match="cannot be unpacked"), unpacked(case):
        pass
    assert left_over(tmp_path) == []


def test_no_room_is_said_before_anything_is_written(plain, tmp_path, monkeypatch):
    (case,) = read_pack(pack_models(tmp_path / "id-000000xx.tar.gz", [plain / "id-00000000"]))
    usage = type("Usage", (), {"free": 1})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UnreadableModelError, match="set TMPDIR to a larger disk"), unpacked(case):
        pass


def test_a_folder_is_unpacked_as_it_is(tmp_path):
    case = read_round(write_model(tmp_path / "id-00000000", per_class=1))[0]
    with unpacked(case) as there:
        assert there is case
    assert case.model_file.exists()


def test_what_a_killed_process_had_unpacked_is_removed_by_the_next(tmp_path):
    machine, pid, start = process_name().split("-")
    names = [
        f"trojai-moth-{machine}-{pid}-{int(start) + 1}-abc",
        f"trojai-moth-{process_name()}-abc",
        "trojai-moth-abc",
    ]
    for name in names:
        (tmp_path / "temporary" / name / "id-00000000").mkdir(parents=True)
    packs._remove_what_the_dead_left.cache_clear()
    packs._remove_what_the_dead_left()
    assert sorted(path.name for path in left_over(tmp_path)) == sorted(names[1:])


def test_what_macos_leaves_in_a_pack_is_passed_over(tmp_path):
    """Its tar writes a ._X before every X, and __MACOSX beside it."""
    odd = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
    members = [
        *(("._id-00000001", b"AppleDouble"), ("id-00000001/._model.pt", b"AppleDouble"), *MODEL),
        *(("__MACOSX/id-00000001/._config.json", b"x"), (".cache/id-00000009/model.pt", b"x"), ("notes.txt", b"x")),
        *(("id-00000001/.#model.pt", odd), ("id-00000001/more.txt", b"1")),
    ]
    (case,) = read_pack(write_members(tmp_path / "id-000000xx.tar.gz", members))
    assert isinstance(case, ModelFolder)
    with unpacked(case) as there:
        names = sorted(path.name for path in there.directory.iterdir())
        assert names == ["config.json", "model.pt", "more.txt"] and there.model_file.read_bytes() == b"m" * 600


def test_a_pack_of_any_name_is_read_and_one_that_cannot_be_has_an_id(tmp_path):
    write_members(tmp_path / "id-000000xx (1).tar.gz", MODEL)
    (tmp_path / "id-é.tar.gz").write_bytes(b"no pack")
    (tmp_path / "._id-000000xx.tar.gz").write_bytes(b"AppleDouble")
    found = read_round(tmp_path)
    assert [type(case) for case in found] == [ModelFolder, SkippedModel]
    assert is_model_id(found[1].model_id) and "id-é.tar.gz" in found[1].reason
