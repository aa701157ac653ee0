import io
import lzma
import os
import pickle
import signal
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import build_architecture, load_model

LIMIT_S = 60


@pytest.fixture(scope="session")
def own_data():
    return Path(__file__).resolve().parents[1] / "data"


@pytest.fixture
def unpack(tmp_path):
    """The content of an .xz file as a file of its own."""

    def unpack(packed):
        path = tmp_path / packed.stem
        path.write_bytes(lzma.decompress(packed.read_bytes()))
        return path

    return unpack


@pytest.fixture
def stock():
    """A fresh small network of a known architecture in evaluation mode."""
    return build_architecture("squeezenetv1_1", 5, seed=3).eval()


@pytest.fixture(scope="session")
def stock_bytes():
    """What torch.save writes for such a network, in the zip container."""
    buffer = io.BytesIO()
    torch.save(build_architecture("squeezenetv1_1", 5, seed=3).eval(), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def legacy_bytes():
    """What torch.save writes for such a network, in the container of torch <= 1.5."""
    buffer = io.BytesIO()
    model = build_architecture("squeezenetv1_1", 5, seed=3).eval()
    torch.save(model, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture
def sentinel(tmp_path):
    """A path that only the payload of a hostile file would create."""
    return tmp_path / "it_ran"


@pytest.fixture
def evil(sentinel):
    """Make an object that calls something when it is unpickled; by default it creates the sentinel."""

    class Evil:
        def __init__(self, function=os.system, *arguments):
            self.call = function, arguments or (f"touch {sentinel}",)

        def __reduce__(self):
            return self.call

    return Evil


@pytest.fixture
def refuse(tmp_path, sentinel):
    """Load content (bytes, an object for torch.save, or a path) and return the one line it is refused with."""

    def refuse(content, **config):
        path = content
        if not isinstance(content, Path):
            path = tmp_path / "model.pt"
            _write(content, path)
        beside = sorted(tmp_path.iterdir())
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(LIMIT_S)
        try:
            with pytest.raises(UnreadableModelError) as caught:
                load_model(path, **config)
        finally:
            signal.alarm(0)
        assert not sentinel.exists() and sorted(tmp_path.iterdir()) == beside
        # A cause would mean that no check foresaw this file.
        assert caught.value.__cause__ is None, repr(caught.value.__cause__)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < 600
        assert "; " in message, "says no mend"
        return message.removeprefix(f"{path}: ")

    return refuse


def _too_long(*_):
    raise TimeoutError(f"not refused within {LIMIT_S} s")


def _write(content, path):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


@pytest.fixture(scope="session")
def container():
    """Build a zip container around pickle instructions and storages given as bytes by key."""

    def container(instructions, storages=None, **extra):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", extra.pop("compression", zipfile.ZIP_STORED)) as archive:
            archive.writestr("archive/data.pkl", instructions)
            for key, data in (storages or {}).items():
                archive.writestr(f"archive/data/{key}", data)
            archive.writestr("archive/version", "3\n")
        return buffer.getvalue()

    return container


@pytest.fixture(scope="session")
def repickle():
    """Replace the pickle of a zip container by what a function makes of it; checksums fit again."""

    def repickle(content, change):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, change(data) if name.endswith("/data.pkl") else data)
        return buffer.getvalue()

    return repickle


class Asm:
    """Pickle instructions, written out; methods return bytes to be joined."""

    start, stop, mark, pop = b"\x80\x02", b".", b"(", b"0"
    reduce, new, build, setitem, setitems, persid = b"R", b"\x81", b"b", b"s", b"u", b"Q"
    none, true, false, empty_dict, empty_list, empty_tuple = b"N", b"\x88", b"\x89", b"}", b"]", b")"
    append, tuple, tuple1, tuple2 = b"a", b"t", b"\x85", b"\x86"

    @staticmethod
    def name(module, name):
        return f"c{module}\n{name}\n".encode()

    @staticmethod
    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    @staticmethod
    def number(value):
        if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        data = pickle.encode_long(value)
        return b"\x8a" + bytes([len(data)]) + data

    @staticmethod
    def put(index):
        return b"r" + struct.pack("<I", index)

    @staticmethod
    def get(index):
        return b"j" + struct.pack("<I", index)

    def call(self, module, name, *arguments):
        return self.name(module, name) + self.mark + b"".join(arguments) + self.tuple + self.reduce

    def numbers(self, values):
        return self.mark + b"".join(map(self.number, values)) + self.tuple

    def storage(self, key, numel, kind="FloatStorage", old=b""):
        """``old`` is what the old container adds: None, or a view into another storage."""
        parts = [self.text("storage"), self.name("torch", kind), self.text(key), self.text("cpu"), self.number(numel)]
        return self.mark + b"".join(parts) + old + self.tuple + self.persid

    def tensor(self, storage, shape, stride, offset=0):
        hooks = self.call("collections", "OrderedDict")
        parts = [storage, self.number(offset), self.numbers(shape), self.numbers(stride), self.false, hooks]
        return self.call("torch._utils", "_rebuild_tensor_v2", *parts)


@pytest.fixture(scope="session")
def asm():
    return Asm()


@pytest.fixture(scope="session")
def old_file(asm):
    """Build a container of torch <= 1.5 from its five pickles, given as instructions, and its storages as bytes."""

    def old_file(magic=None, version=None, system=None, root=None, keys=None, storages=b""):
        parts = [
            magic or asm.number(0x1950A86A20F9469CFC6C),
            version or asm.number(1001),
            system or asm.empty_dict + asm.text("little_endian") + asm.true + asm.setitem,
            root or asm.empty_dict,
            keys or asm.empty_list,
        ]
        return b"".join(asm.start + part + asm.stop for part in parts) + storages

    return old_file
