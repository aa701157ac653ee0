"""Seeded random damage to small real files: a refusal that some check intended, or a well-formed model."""

import io
import pickletools
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import allowing_architectures, load_model

ROUNDS = 150


def structural_bytes(content):
    """Places that are not weights: where the pickles, headers and the directory are."""
    if not content.startswith(b"PK"):
        # Five pickles come first; what follows them are storages, each behind its length.
        head = io.BytesIO(content)
        for _ in range(5):
            for _ in pickletools.genops(head):
                pass
        return np.arange(head.tell() + 8)
    places = [np.arange(len(content) - 22_000, len(content))]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            small = entry.filename.endswith(("data.pkl", "version", "byteorder"))
            places.append(entry.header_offset + np.arange(64 + (entry.file_size if small else 0)))
    return np.concatenate(places)


def flip(content, places, rng):
    changed = bytearray(content)
    for place in rng.choice(places, size=rng.integers(1, 4)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def move(content, places, rng):
    start, end = sorted(rng.choice(places, size=2))
    return content[:start] + content[end:] if rng.integers(2) else content[:end] + content[start:]


def overwrite(content, places, rng):
    start, source = rng.choice(places, size=2)
    length = int(rng.integers(1, 40))
    piece = content[source : source + length]
    return content[:start] + piece + content[start + len(piece) :]


def check(path, content, architecture=None, classes=5, entry=None):
    """Load; True when loaded. Anything but a deliberate refusal or a sound model fails the test."""
    path.write_bytes(content)
    try:
        loaded = load_model(path, architecture=architecture, entry=entry)
    except UnreadableModelError as error:
        assert error.__cause__ is None, repr(error.__cause__)
        assert str(error).isprintable()
        return False
    assert (loaded.architecture, loaded.classes) == (architecture or "squeezenetv1_1", classes)
    assert all(torch.isfinite(value).all() for value in loaded.module.state_dict().values())
    return True


@pytest.mark.parametrize("damage", [flip, move, overwrite])
@pytest.mark.parametrize("kind", ["stock_bytes", "legacy_bytes"])
def test_random_damage(request, tmp_path, kind, damage):
    content = request.getfixturevalue(kind)
    rng = np.random.default_rng(11)
    places = structural_bytes(content)
    results = [check(tmp_path / "model.pt", damage(content, places, rng)) for _ in range(ROUNDS)]
    assert not all(results)


def test_random_damage_to_the_pickle_behind_a_right_checksum(stock_bytes, repickle, tmp_path):
    rng = np.random.default_rng(12)

    def damaged(old):
        return [flip, overwrite][rng.integers(2)](old, np.arange(len(old)), rng)

    results = [check(tmp_path / "model.pt", repickle(stock_bytes, damaged)) for _ in range(ROUNDS)]
    assert not all(results)


@pytest.mark.filterwarnings("ignore:invalid escape")
def test_random_damage_to_what_is_read_for_a_network_of_the_user(repickle, tmp_path, monkeypatch):
    (tmp_path / "nets_to_damage.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes=3):\n    "
        "return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(13)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 4))

    def damaged(old):
        return [flip, overwrite, move][rng.integers(3)](old, np.arange(len(old)), rng)

    results = []
    with allowing_architectures(["nets_to_damage:net"]):
        for content in (net, {"a": net.state_dict(), "b": net}):
            buffer = io.BytesIO()
            torch.save(content, buffer)
            for entry in (None, "a", "0"):
                results += [
                    check(tmp_path / "model.pt", repickle(buffer.getvalue(), damaged), "nets_to_damage:net", 4, entry)
                    for _ in range(ROUNDS // 3)
                ]
    assert any(results) and not all(results)
