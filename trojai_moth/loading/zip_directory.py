"""A strict reader of zip directories: exactly one way to read the file, no compression, no overlap.

Common readers disagree about files with two directories, two entries of one name or a prefix; such files are refused
instead of choosing one reading.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from .files import read_exactly
from .refusal import Refusal, quote
from .steady_file import SteadyFile

MAX_ENTRIES = 10_000
"""The largest stock model has about 1,200 storages."""
MAX_DIRECTORY_BYTES = 4 << 20

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_WIDE = 0xFFFFFFFF
_NOT_ZIP = "is cut short or damaged (its zip directory is not where it should be)"


@dataclass(frozen=True)
class Entry:
    """One stored file: where its bytes are and what their checksum must be."""

    name: str
    offset: int
    size: int
    crc: int


@dataclass(frozen=True)
class _Record:
    """One line of the central directory."""

    name: str
    header: int
    size: int
    crc: int


def read_directory(file: SteadyFile) -> dict[str, Entry]:
    """All entries of a zip file by name; raises Refusal when it is damaged, compressed or ambiguous."""
    start, length, count = _find_directory(file)
    if count > MAX_ENTRIES or length > MAX_DIRECTORY_BYTES:
        raise Refusal(f"is a zip file of {count} entries, more than any known model needs")
    records = _central_records(read_exactly(file, start, length), count)
    if len({record.name for record in records}) != len(records):
        raise Refusal("has two zip entries of the same name")
    end_of_last = 0
    entries = {}
    for record in sorted(records, key=lambda record: record.header):
        if record.header < end_of_last or (end_of_last == 0 and record.header != 0):
            raise Refusal("is damaged (its zip entries overlap or do not begin at its start)")
        entries[record.name] = _locate(file, record)
        end_of_last = entries[record.name].offset + record.size
    if end_of_last > start:
        raise Refusal("is damaged (its zip entries reach into its directory)")
    return entries


def _find_directory(file: SteadyFile) -> tuple[int, int, int]:
    """Start, length and number of entries of the central directory, which must end at the end record."""
    end_at = file.size - _END.size
    signature, disk, disk2, here, count, length, start, comment = _unpack(_END, file, end_at)
    if signature != b"PK\x05\x06" or disk or disk2 or here != count or comment:
        raise Refusal(_NOT_ZIP)
    if end_at >= _END64_LOCATOR.size:
        signature, _, end64_at, _ = _unpack(_END64_LOCATOR, file, end_at - _END64_LOCATOR.size)
        if signature == b"PK\x06\x07":
            start, length, count = _find_directory64(file, end64_at, end_at)
            end_at = end64_at
    if start + length != end_at:
        raise Refusal(_NOT_ZIP)
    return start, length, count


def _find_directory64(file: SteadyFile, end64_at: int, end_at: int) -> tuple[int, int, int]:
    fields = _unpack(_END64, file, end64_at)
    if fields[0] != b"PK\x06\x06" or end64_at + _END64.size + _END64_LOCATOR.size != end_at:
        raise Refusal(_NOT_ZIP)
    if fields[4] or fields[5] or fields[6] != fields[7]:
        raise Refusal(_NOT_ZIP)
    return fields[9], fields[8], fields[7]


def _central_records(directory: bytes, count: int) -> list[_Record]:
    records, at = [], 0
    for _ in range(count):
        if at + _CENTRAL.size > len(directory):
            raise Refusal(_NOT_ZIP)
        fields = _CENTRAL.unpack_from(directory, at)
        name_at = at + _CENTRAL.size
        extra_at = name_at + fields[10]
        at = extra_at + fields[11] + fields[12]
        records.append(_record(fields, directory[name_at:extra_at], directory[extra_at : extra_at + fields[11]]))
    if at != len(directory):
        raise Refusal(_NOT_ZIP)
    return records


def _record(fields: tuple[Any, ...], raw_name: bytes, extra: bytes) -> _Record:
    signature, _, _, flags, method, _, _, crc, packed, size, _, _, _, disk, _, _, header = fields
    if signature != b"PK\x01\x02" or disk:
        raise Refusal(_NOT_ZIP)
    name = raw_name.decode("ascii", "backslashreplace")
    size, packed, header = _widen([size, packed, header], extra)
    if method != 0 or packed != size:
        raise Refusal("is a compressed zip file (TorchScript, or no model at all); torch.save the plain module instead")
    if flags & 0x2041:
        raise Refusal(f"has an encrypted zip entry {quote(name)}")
    return _Record(name, header, size, crc)


def _widen(values: list[int], extra: bytes) -> list[int]:
    """Replace the 32-bit sizes that overflowed by those of the zip64 extra field, in its fixed order."""
    wide = [value for value in values if value == _WIDE]
    numbers: list[int] = []
    at = 0
    while wide and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1 and length >= 8 * len(wide) and at + 4 + length <= len(extra):
            numbers = list(struct.unpack_from(f"<{len(wide)}Q", extra, at + 4))
        at += 4 + length
    if len(numbers) != len(wide):
        raise Refusal(_NOT_ZIP)
    rest = iter(numbers)
    return [next(rest) if value == _WIDE else value for value in values]


def _locate(file: SteadyFile, record: _Record) -> Entry:
    """Find an entry's bytes behind its local header, which must agree with the directory."""
    fields = _unpack(_LOCAL, file, record.header)
    name_length, extra_length = fields[9], fields[10]
    raw_name = read_exactly(file, record.header + _LOCAL.size, name_length)
    if fields[0] != b"PK\x03\x04" or fields[3] != 0 or raw_name.decode("ascii", "backslashreplace") != record.name:
        raise Refusal(f"is damaged (zip entry {quote(record.name)} is not where the directory says)")
    offset = record.header + _LOCAL.size + name_length + extra_length
    return Entry(record.name, offset, record.size, record.crc)


def _unpack(layout: struct.Struct, file: SteadyFile, offset: int) -> tuple[Any, ...]:
    return layout.unpack(read_exactly(file, offset, layout.size))
