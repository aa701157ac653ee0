"""What is hashed is what is checked and used, whenever a file changes and whatever times it then shows."""

import hashlib
import os

import pytest
import torch

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import build_architecture, load, load_model
from trojai_moth.loading.files import open_regular
from trojai_moth.loading.refusal import Refusal
from trojai_moth.loading.steady_file import BLOCK


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(bytes(range(256)) * 1024)
    return path


def rewrite(path, change):
    """Write into the file itself and put its time back."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    change(content)
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_size == before.st_size


def flip(content):
    content[BLOCK + 7] ^= 1


def test_it_reads_as_any_file_does(path):
    content = path.read_bytes()
    with open_regular(path) as file:
        assert file.sha256 == hashlib.sha256(content).hexdigest() and file.size == len(content)
        for start, length in ((0, 5), (BLOCK - 3, 9), (7, 3 * BLOCK), (len(content) - 2, 50), (len(content) + 9, 4)):
            file.seek(start)
            assert file.read(length) == content[start : start + length]
        file.seek(-4, os.SEEK_END)
        assert file.read() == content[-4:]


def test_bytes_that_changed_are_not_given_out(path):
    with pytest.raises(Refusal, match="changed while it was read"), open_regular(path) as file:
        rewrite(path, flip)
        assert file.read(10) == path.read_bytes()[:10], "what did not change is given out"
        file.seek(BLOCK)
        file.read(1)
        pytest.fail("the changed block was given out")


@pytest.mark.parametrize("change", ["content", "another file", "gone", "longer", "rights"])
def test_a_file_that_is_another_at_the_end(path, tmp_path, change):
    with pytest.raises(Refusal, match="changed while it was read"), open_regular(path):
        if change == "content":
            rewrite(path, flip)
        elif change == "another file":
            (tmp_path / "new").write_bytes(path.read_bytes())
            os.utime(tmp_path / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
            os.replace(tmp_path / "new", path)
        elif change == "gone":
            path.unlink()
        elif change == "longer":
            path.write_bytes(path.read_bytes() + b"x")
        else:
            path.chmod(0o600)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("moment", ["before the checks", "between checks and reading", "while it is read"])
def test_weights_that_change_meanwhile_are_never_used(tmp_path, monkeypatch, moment, zipped):
    path = tmp_path / "model.pt"
    torch.save(build_architecture("squeezenetv1_1", 5).eval(), path, _use_new_zipfile_serialization=zipped)

    def undefined(content):
        content[-300_000:-200_000] = b"\x00\x00\xc0\x7f" * 25_000

    module, name = {
        "before the checks": (load, "examine"),
        "between checks and reading": (load, "_read_weights"),
        "while it is read": (load, "_tensor"),
    }[moment]
    real = getattr(module, name)

    def with_a_change(*given, **more):
        monkeypatch.setattr(module, name, real)
        rewrite(path, undefined)
        return real(*given, **more)

    monkeypatch.setattr(module, name, with_a_change)
    with pytest.raises(UnreadableModelError, match="changed while it was read"):
        load_model(path)


def test_the_hash_is_that_of_the_weights_used(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(build_architecture("squeezenetv1_1", 5).eval(), path)
    assert load_model(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
