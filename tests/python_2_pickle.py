"""Pickles as Python 2 wrote them with protocol 2, which Python 3 cannot write: CIFAR's batches are such."""

import struct

import numpy as np

KIND = b"cnumpy\ndtype\nq\x05(U\x02u1K\x00K\x01tRq\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def python_2_pickle(value):
    """The bytes of a dictionary of text, small numbers, lists and (N, L) uint8 arrays."""
    return b"\x80\x02" + _part(value) + b"."


def _part(value):
    if isinstance(value, dict):
        return b"}q\x01(" + b"".join(_part(key) + _part(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"]q\x07(" + b"".join(map(_part, value)) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value])
    if isinstance(value, np.ndarray):
        shape = b"".join(b"J" + struct.pack("<i", size) for size in value.shape) + b"\x86"
        start = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04(K\x01"
        return start + shape + KIND + b"\x89" + _part(value.tobytes()) + b"tb"
    text = value.encode() if isinstance(value, str) else value
    return (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))) + text
