"""What is read is a regular file or an error at once, and nothing is written where there is no home."""

import os
import socket
from pathlib import Path

import pytest

from trojai_moth.core import files
from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.files import (
    cache_folder,
    is_passed_over,
    list_closed,
    list_folder,
    open_text,
    read_bytes,
    read_text,
)


def put_pipe(path):
    os.mkfifo(path)


def put_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def put_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("put", [put_pipe, put_socket, put_device, Path.mkdir])
@pytest.mark.parametrize("read", [read_bytes, read_text, open_text])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, put, read, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's whole path may be too long
    put(Path("it"))
    with pytest.raises(OSError, match=r"^not a regular file"):
        read(Path("it"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_takes_the_files_place_is_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "it"
    path.touch()
    seen = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(files.os, "stat", lambda _: seen)
    with pytest.raises(OSError, match=r"^not a regular file"):
        read_bytes(path)


def test_what_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(OSError, match=r"^larger than 4 bytes$"):
        read_bytes(path, 4)
    with path.open("wb") as file:
        file.truncate(files.TEXT_LIMIT + 1)
    with pytest.raises(OSError, match=r"^larger than 64 MiB$"):
        open_text(path)
    if Path("/proc/self/status").exists():  # says that it is empty, and is not
        with pytest.raises(OSError, match=r"^larger than 4 bytes$"):
            read_bytes("/proc/self/status", 4)


def test_the_mark_before_a_text_is_no_part_of_it(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    assert read_text(path) == "a\r\nb\n"
    with open_text(path) as file:
        assert list(file) == ["a\r\n", "b\n"]


@pytest.mark.parametrize(
    "name",
    ["._1.png", ".DS_Store", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", "Desktop.ini", "model.pt~", "Icon\r"],
)
def test_what_systems_and_editors_leave_is_passed_over(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "b.png").touch()
    (tmp_path / "a.png").touch()
    assert is_passed_over(name)
    assert [path.name for path in list_folder(tmp_path)] == ["a.png", "b.png"]


def test_links_may_lead_about_in_a_folder_and_not_out_of_it(tmp_path):
    inside = tmp_path / "folder"
    inside.mkdir()
    (inside / "a").touch()
    (inside / "b").symlink_to("a")
    (tmp_path / "link").symlink_to(inside)
    assert [path.name for path in list_closed(tmp_path / "link")] == ["a", "b"]
    (inside / "c").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnreadableModelError, match="folder/c: a link that leads out of its folder"):
        list_closed(inside)
    assert [path.name for path in list_folder(inside)] == ["a", "b", "c"]
    assert list_closed(tmp_path / "nothing") == list_folder(tmp_path / "nothing") == []


@pytest.mark.parametrize("home", ["~", "somewhere", "/no such home"])
@pytest.mark.parametrize("cache", ["", "~/.cache", ".cache"])
def test_without_a_home_nothing_is_remembered(monkeypatch, home, cache):
    monkeypatch.setattr(files.os.path, "expanduser", lambda _: home)  # what it says of a user whom nobody knows
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert cache_folder() is None


def test_the_cache_lies_where_it_is_wanted(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "trojai-moth"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of_its_own"))
    assert cache_folder() == tmp_path / "of_its_own" / "trojai-moth"
