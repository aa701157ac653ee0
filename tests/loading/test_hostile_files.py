"""Damaged files, files that two readers would understand differently, and things that are no model files at all."""

import gzip
import io
import json
import os
import socket
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import load_model
from trojai_moth.loading.files import open_regular
from trojai_moth.loading.refusal import Refusal


@pytest.mark.parametrize("share", [0.0005, 0.003, 0.01, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize("kind", ["stock_bytes", "legacy_bytes"])
def test_cut_files(refuse, request, share, kind):
    content = request.getfixturevalue(kind)
    refuse(content[: int(len(content) * share)])


@pytest.mark.parametrize("kind", ["stock_bytes", "legacy_bytes"])
def test_one_byte_more_or_less(refuse, request, kind):
    content = request.getfixturevalue(kind)
    refuse(content[:-1])
    assert "damaged" in refuse(content + b"\0")


def test_a_flipped_byte_of_a_weight_is_noticed_by_its_checksum(refuse, stock_bytes):
    with zipfile.ZipFile(io.BytesIO(stock_bytes)) as archive:
        middle = archive.getinfo("archive/data/20").header_offset + 900
    changed = bytearray(stock_bytes)
    changed[middle] ^= 1
    assert "checksum" in refuse(bytes(changed))


def test_a_flipped_byte_of_the_pickle_is_noticed_by_its_checksum(refuse, stock_bytes):
    changed = stock_bytes.replace(b"kernel_size", b"kernel_sizf", 1)
    assert "checksum of 'archive/data.pkl'" in refuse(changed)


def old_weights(asm, view=None):
    tensor = asm.tensor(asm.storage("k", 2, old=view or asm.none), (2,), (1,))
    return asm.empty_dict + asm.text("w") + tensor + asm.setitem


GOOD, TWO = (2).to_bytes(8, "little"), bytes(8)


def keys(asm, *names):
    return asm.empty_list + b"".join(asm.text(name) + asm.append for name in names)


@pytest.mark.parametrize(
    "names, storages, reason",
    [
        (["k"], GOOD + TWO, "not an architecture"),
        (["k"], GOOD + TWO + b"\0", "weights end at"),
        (["k"], GOOD + TWO[:-1], "weights end at"),
        (["k"], GOOD[:-1], "cut short"),
        (["k"], (3).to_bytes(8, "little") + TWO, "has 2 numbers, but it has 3"),
        (["k"], b"\xff" * 8 + TWO, "has 2 numbers, but it has"),
        ([], GOOD + TWO, "list of storages"),
        (["j"], GOOD + TWO, "list of storages"),
        (["k", "k"], (GOOD + TWO) * 2, "list of storages"),
    ],
)
def test_old_container_with_wrong_lengths(refuse, asm, old_file, names, storages, reason):
    assert reason in refuse(old_file(root=old_weights(asm), keys=keys(asm, *names), storages=storages))


def test_old_container_with_storages_that_are_views(refuse, asm, old_file):
    view = asm.text("k") + asm.number(0) + asm.tuple2
    assert "views" in refuse(old_file(root=old_weights(asm, view), keys=keys(asm, "k"), storages=GOOD + TWO))


def test_pickle_with_a_zip_behind_it(refuse, legacy_bytes, stock_bytes):
    assert "its weights end at" in refuse(legacy_bytes + stock_bytes)


def test_zip_with_a_zip_behind_it(refuse, stock_bytes):
    assert "zip directory" in refuse(stock_bytes + stock_bytes)


def test_zip_behind_a_local_header(refuse, stock_bytes):
    assert "damaged" in refuse(b"PK\x03\x04" + bytes(60) + stock_bytes)


def test_zip_with_a_comment_that_is_a_zip(refuse, asm, container):
    one = container(asm.start + asm.none + asm.stop)
    buffer = io.BytesIO(one)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = one
    assert "zip directory" in refuse(buffer.getvalue())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(refuse, stock_bytes, asm):
    buffer = io.BytesIO(stock_bytes)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data.pkl", asm.start + asm.none + asm.stop)
    assert "same name" in refuse(buffer.getvalue())


def test_two_pickles_in_two_folders(refuse, stock_bytes, asm):
    buffer = io.BytesIO(stock_bytes)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("other/data.pkl", asm.start + asm.none + asm.stop)
    assert "not one that torch.save wrote" in refuse(buffer.getvalue())


@pytest.mark.parametrize("name", ["archive/more.py", "elsewhere", "../up", "/absolute"])
def test_entries_that_torch_does_not_write(refuse, stock_bytes, name):
    buffer = io.BytesIO(stock_bytes)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, b"x")
    assert "entries that torch.save does not write" in refuse(buffer.getvalue())


def test_local_header_of_another_name(refuse, stock_bytes):
    assert "not where the directory says" in refuse(stock_bytes.replace(b"archive/data/7", b"archive/data/X", 1))


def test_big_endian_files(refuse, stock_bytes, repickle):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(stock_bytes)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    assert "little-endian" in refuse(buffer.getvalue())


def image_like():
    return b"\x89PNG\r\n\x1a\n" + np.random.default_rng(0).bytes(5000)


def numpy_archive():
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.zeros(10))
    return buffer.getvalue()


def tar_archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is empty"),
        (b"\x80", "not a file that torch.save wrote"),
        (b"PK\x03\x04", "damaged"),
        (b"PK\x05\x06" + bytes(18), "not a file that torch.save wrote"),
        (b"hello, this is a text\n" * 50, "not a file that torch.save wrote"),
        (json.dumps({"model": [1, 2]}).encode(), "not a file that torch.save wrote"),
        (image_like(), "not a file that torch.save wrote"),
        (numpy_archive(), "not one that torch.save wrote"),
        (tar_archive(), "tar file"),
        (b"\x80\x02}q\x00.", "not a file that torch.save wrote but another pickle; load it where it was made"),
        (gzip.compress(b"model", mtime=0), "wrote but a packed one, by gzip; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "in Git LFS; fetch the file itself"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "a web page or XML; download the file again"),
    ],
)
def test_files_of_other_kinds(refuse, content, reason):
    assert reason in refuse(content)


@pytest.mark.parametrize(
    "value", [None, 5, "text", [torch.zeros(3)], torch.zeros(3), {}, {"a": 1}, {3: torch.zeros(2)}, {"state_dict": {}}]
)
def test_torch_files_without_a_model(refuse, value):
    assert "neither a whole model nor a state_dict" in refuse(value)


def test_optimizer_states(refuse):
    weight = torch.nn.Parameter(torch.zeros(2))
    assert "neither a whole model" in refuse(torch.optim.Adam([weight]).state_dict())


def test_missing_file(refuse, tmp_path):
    assert "no such file" in refuse(tmp_path / "absent.pt")


def test_directory(refuse, tmp_path):
    refuse(tmp_path)


def test_pipe(refuse, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    assert "regular file" in refuse(tmp_path / "pipe.pt")


def test_device(refuse):
    assert "regular file" in refuse(Path(os.devnull))


def test_socket(refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.pt")
        refuse(tmp_path / "s.pt")


@pytest.mark.parametrize("target", ["real.pt", "absent.pt", "link.pt"])
def test_links(refuse, tmp_path, stock_bytes, target):
    (tmp_path / "real.pt").write_bytes(stock_bytes)
    (tmp_path / "link.pt").symlink_to(target)
    assert "link" in refuse(tmp_path / "link.pt")


def test_names_that_would_break_the_line(refuse, tmp_path):
    path = tmp_path / "a\nb\x1b[2J.pt"
    path.write_bytes(b"")
    with pytest.raises(UnreadableModelError, match=r"a\\nb\\x1b\[2J.pt: is empty") as caught:
        load_model(path)
    assert str(caught.value).isprintable()


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"one")
    with pytest.raises(Refusal, match="changed"), open_regular(path):
        path.write_bytes(b"longer")
