"""Pickles of data: read as what they say, and never run."""

import os
import pickle
import struct

import numpy as np
import pytest
from python_2_pickle import python_2_pickle

from trojai_moth.loading import plain_pickle
from trojai_moth.loading.plain_pickle import read_plain_pickle
from trojai_moth.loading.refusal import Refusal

VALUES = {
    "data": np.arange(24, dtype=np.uint8).reshape(2, 12),
    "wide": np.arange(6, dtype=">i4").reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "labels": [3, -1, 70_000, 1 << 40],
    "names": ("a", b"b", "\u00e9", None, True, 0.5, [], {}, ()),
}


def refused(content):
    with pytest.raises(Refusal) as caught:
        read_plain_pickle(content)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [2, 3])
def test_data_come_back_as_they_were(protocol):
    found = read_plain_pickle(pickle.dumps(VALUES, protocol))
    assert list(found) == list(VALUES)
    for name in ("data", "wide", "columns"):
        assert found[name].dtype == VALUES[name].dtype and np.array_equal(found[name], VALUES[name])
    assert (found["labels"], found["names"]) == (VALUES["labels"], VALUES["names"])


def test_python_2s_bytes_are_an_array():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 300), dtype=np.uint8)
    content = python_2_pickle({"data": pixels, "labels": [0, 9, 4], "filenames": ["a.png", "b.png"]})
    found = read_plain_pickle(content)
    assert np.array_equal(found["data"], pixels)
    assert (found["labels"], found["filenames"]) == ([0, 9, 4], ["a.png", "b.png"])
    native = pickle.loads(content, encoding="latin-1")
    assert np.array_equal(native["data"], pixels) and native["labels"] == [0, 9, 4]


class Runs:
    def __reduce__(self):
        return os.system, ("false",)


def test_what_could_run_is_refused_by_name():
    assert "asks for 'posix.system', which no images need; nothing was run" in refused(pickle.dumps({"x": Runs()}, 2))
    assert "has pickle protocol '4'; save it with protocol 2" in refused(pickle.dumps({}, 4))
    assert "uses the pickle instruction NEWOBJ" in refused(b"\x80\x02}U\x01xcnumpy\ndtype\n)\x81s.")
    objects = np.array([{}, []], dtype=object)
    assert "holds an array of 'O8', which are no numbers" in refused(pickle.dumps({"x": objects}, 2))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}",
        b"\x80\x02.",
        b"\x80\x02}u.",
        b"\x80\x02}(U\x01xu.",
        b"\x80\x02}K\x01K\x02s.",
        b"\x80\x02h\x05.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02}(U\x01xK\x01uK\x02tb.",
        python_2_pickle({"data": np.zeros((2, 3), np.uint8)}).replace(b"J\x02\0\0\0", b"J\x03\0\0\0"),
        python_2_pickle({"data": np.zeros((2, 3), np.uint8)}).replace(b"J\x02\0\0\0", b"J\xfe\xff\xff\xff"),
    ],
)
def test_what_is_damaged_is_refused(content):
    assert "is damaged" in refused(content)


def test_other_things_than_a_dictionary_are_refused():
    assert "something else than a dictionary" in refused(pickle.dumps([1], 2))


def test_a_short_file_takes_no_more_memory_than_it_has():
    """One text that is made into an array often."""
    whole = python_2_pickle({"data": np.zeros((1, 1000), np.uint8)})
    text = b"T" + struct.pack("<i", 1000) + bytes(1000)
    array = whole[whole.index(b"cnumpy.core") :].partition(text)[0]
    again = b"".join(b"U\x01" + bytes([65 + number]) + array + b"h\x09tb" for number in range(9))
    assert "is damaged" in refused(whole[:-2].replace(text, text + b"q\x09") + again + b"u.")


def test_instructions_are_counted(monkeypatch):
    monkeypatch.setattr(plain_pickle, "MAX_PLAIN_OPERATIONS", 50)
    assert "more than 50 instructions" in refused(pickle.dumps({"x": list(range(100))}, 2))
