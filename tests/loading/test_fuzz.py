"""Seeded random damage to small real files: a refusal that some check intended, or a well-formed model."""

import io
import pickletools
import zipfile

import numpy as np
import pytest
import torch

from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.loading import load_model

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


def check(path, content):
    """Load; True when loaded. Anything but a deliberate refusal or a sound model fails the test."""
    path.write_bytes(content)
    try:
        loaded = load_model(path)
    except UnreadableModelError as error:
        assert error.__cause__ is None, repr(error.__cause__)
        assert str(error).isprintable()
        return False
    assert (loaded.architecture, loaded.classes) == ("squeezenetv1_1", 5)
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
